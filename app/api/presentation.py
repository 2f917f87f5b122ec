"""The serialized leaves of the snapshot's records, made once per record and snapshot."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

from graphql import GraphQLField, GraphQLObjectType, GraphQLOutputType, is_leaf_type, is_list_type, is_non_null_type
from strawberry.types.field import StrawberryField

DEFINITION = "strawberry-definition"


class NotCompiled(Exception):
    """The operation, or this run of it, is for graphql-core."""


class Presentation:
    """Serialized leaves of the records of one snapshot, made as they are first asked for."""

    def __init__(self, snapshot: object) -> None:
        self.snapshot = snapshot
        self.leaves: dict[str, dict[int, dict[str, Any]]] = {}


def is_plain_leaf(field: GraphQLField) -> bool:
    type_ = field.type
    while is_non_null_type(type_) or is_list_type(type_):
        type_ = type_.of_type
    definition: StrawberryField = field.extensions[DEFINITION]
    return is_leaf_type(type_) and definition.base_resolver is None


def presenter(type_: GraphQLObjectType) -> Callable[[Any], dict[str, Any]]:
    fields: list[tuple[str, Callable[[Any], Any], Callable[[Any], Any]]] = []
    for name, field in type_.fields.items():
        if is_plain_leaf(field):
            fields.append((name, attrgetter(field.extensions[DEFINITION].python_name), serializer(field.type)))
    return lambda source: {name: serialize(get(source)) for name, get, serialize in fields}


def serializer(type_: GraphQLOutputType) -> Callable[[Any], Any]:
    if is_non_null_type(type_):
        inner = serializer(type_.of_type)

        def required(value: Any) -> Any:
            if value is None:
                raise NotCompiled
            return inner(value)

        return required
    if is_list_type(type_):
        item = serializer(type_.of_type)
        return lambda value: None if value is None else [item(entry) for entry in value]
    assert is_leaf_type(type_)
    serialize = type_.coerce_output_value
    return lambda value: None if value is None else serialize(value)

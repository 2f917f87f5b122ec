"""Runs queries that read nothing but the snapshot, as closures over its records.

An operation is compiled once: fields collected, constant arguments read, leaf serializers bound. A run then builds
plain dicts. Whatever is out of the ordinary (an error, an abstract type, a coroutine) is left to graphql-core, whose
answer is the truth; a property test holds the two equal over the whole schema.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from typing import Any, Final, Generic, TypeVar

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLSchema,
    OperationType,
    VariableNode,
    Visitor,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_object_type,
    visit,
)
from graphql.execution.collect_fields import (
    FieldDetails,
    FragmentDetails,
    GroupedFieldSet,
    collect_fields,
    collect_subfields,
)
from graphql.execution.values import VariableValues, get_argument_values
from strawberry import Schema
from strawberry.types.arguments import convert_arguments
from strawberry.types.field import StrawberryField

from app.api.documents import Operation
from app.api.lru import LruCache
from app.api.presentation import DEFINITION, NotCompiled, Presentation, is_plain_leaf, presenter, serializer

READS_SNAPSHOT: Final[Mapping[Any, Any]] = {"reads": "snapshot"}
"""Metadata of a root field that reads only `context.snapshot`, as all that it leads to does."""

READS_CLOCK: Final[Mapping[Any, Any]] = {"reads": "clock"}
"""Metadata of a field whose answer changes with time: no answer that holds it is kept."""

_BYTES_PER_FIELD = 2_000
_MAX_FIELDS = 1_000

ContextT = TypeVar("ContextT")
Resolve = Callable[[Any, "Run"], Any]
Complete = Callable[[Any, "Run"], Any]


@dataclass(slots=True)
class Run:
    """One run of a plan: stands in for strawberry's Info, of which resolvers use `context` alone."""

    context: Any
    variables: VariableValues
    records: Presentation
    memo: dict[tuple[int, int], Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """What one operation, with its @skip and @include decided, comes to. Without `select` it is for graphql-core."""

    select: Complete | None
    field_count: int

    @property
    def size_bytes(self) -> int:
        return 1_000 + self.field_count * _BYTES_PER_FIELD


class CompiledExecutor(Generic[ContextT]):
    """`record_types` name the object types whose sources are records that live as long as their snapshot."""

    def __init__(self, schema: Schema, record_types: frozenset[str], cache_bytes: int = 2**24) -> None:
        self._schema = schema
        self._record_types = record_types
        self._plans: LruCache[tuple[object, ...], Plan] = LruCache(cache_bytes)
        self._presentation = Presentation(None)

    def execute(
        self, operation: Operation, variables: VariableValues, context: ContextT, snapshot: object
    ) -> dict[str, Any] | None:
        """The `data` of the response; None where graphql-core is to run the operation."""
        select = self._plan(operation, variables).select
        if select is None:
            return None
        if self._presentation.snapshot is not snapshot:
            self._presentation = Presentation(snapshot)
        try:
            data: dict[str, Any] = select(None, Run(context, variables, self._presentation, {}))
        except Exception:  # noqa: BLE001 - graphql-core runs it again and reports the error where it belongs
            return None
        return data

    def _plan(self, operation: Operation, variables: VariableValues) -> Plan:
        if operation.directive_variables is None:
            operation.directive_variables = _directive_variables(operation)
        decided = [variables.coerced.get(name) for name in operation.directive_variables]
        key = (operation, *decided)
        plan = self._plans.get(key)
        if plan is None:
            plan = _Compilation(self._schema, self._record_types, operation, variables).plan()
            self._plans.put(key, plan, plan.size_bytes)
        return plan


def _directive_variables(operation: Operation) -> tuple[str, ...]:
    found: set[str] = set()

    class Collect(Visitor):
        def enter_directive(self, node: Any, *_: Any) -> None:
            for argument in node.arguments:
                if isinstance(argument.value, VariableNode):
                    found.add(argument.value.name.value)

    visit(operation.document, Collect())
    return tuple(sorted(found))


class _Compilation:
    def __init__(
        self, schema: Schema, record_types: frozenset[str], operation: Operation, variables: VariableValues
    ) -> None:
        self._strawberry = schema
        self._schema: GraphQLSchema = schema._schema
        self._record_types = record_types
        self._operation = operation
        self._variables = variables
        self._count = 0
        self._fragments = {
            item.name.value: FragmentDetails(item)
            for item in operation.document.definitions
            if isinstance(item, FragmentDefinitionNode)
        }

    def plan(self) -> Plan:
        root = self._schema.query_type
        if root is None or self._operation.type is not OperationType.QUERY:
            return Plan(None, 0)
        try:
            grouped = collect_fields(
                self._schema, self._fragments, self._variables, root, self._operation.node
            ).grouped_field_set
            for details in grouped.values():
                self._require_marked(root, details[0].node)
            return Plan(self._object(root, grouped), self._count)
        except NotCompiled:
            return Plan(None, 0)

    def _require_marked(self, root: GraphQLObjectType, node: FieldNode) -> None:
        if node.name.value == "__typename":
            return
        field = root.fields.get(node.name.value)
        definition = field.extensions.get(DEFINITION) if field is not None else None
        if definition is None or definition.metadata.get("reads") != "snapshot":
            raise NotCompiled

    def _object(self, type_: GraphQLObjectType, grouped: GroupedFieldSet) -> Complete:
        template: dict[str, Any] = {}
        leaves: list[tuple[str, str]] = []
        nested: list[tuple[str, Complete]] = []
        is_record = type_.name in self._record_types
        for key, details in grouped.items():
            node = details[0].node
            name = node.name.value
            if self._number() > _MAX_FIELDS:
                raise NotCompiled
            template[key] = type_.name if name == "__typename" else None
            if name == "__typename":
                continue
            field = type_.fields.get(name)
            if field is None:
                raise NotCompiled  # __schema, __type
            if is_record and is_plain_leaf(field):
                leaves.append((key, name))
            else:
                nested.append((key, self._field(field, details)))
        if leaves:
            return self._record(type_, template, leaves, nested)

        def build(source: Any, run: Run) -> dict[str, Any]:
            result = template.copy()
            for key, complete in nested:
                result[key] = complete(source, run)
            return result

        return build

    def _record(
        self,
        type_: GraphQLObjectType,
        template: dict[str, Any],
        leaves: list[tuple[str, str]],
        nested: list[tuple[str, Complete]],
    ) -> Complete:
        present = presenter(type_)
        type_name = type_.name
        keys = [key for key, _ in leaves]
        pick = _picker([name for _, name in leaves])
        memo_number = self._number()
        in_order = not nested and list(template) == keys

        def build(source: Any, run: Run) -> dict[str, Any]:
            number = id(source)
            made = run.memo.get((memo_number, number))
            if made is not None:
                result: dict[str, Any] = made
                return result
            known = run.records.leaves.setdefault(type_name, {})
            values = known.get(number)
            if values is None:
                values = known[number] = present(source)
            picked = zip(keys, pick(values), strict=True)
            if in_order:
                result = dict(picked)
            else:
                result = template.copy()
                result.update(picked)
                for key, complete in nested:
                    result[key] = complete(source, run)
            run.memo[memo_number, number] = result
            return result

        return build

    def _number(self) -> int:
        self._count += 1
        return self._count

    def _field(self, field: GraphQLField, details: list[FieldDetails]) -> Complete:
        resolve = self._resolver(field, details[0].node)
        complete = self._complete(field.type, details)

        def run_field(source: Any, run: Run) -> Any:
            return complete(resolve(source, run), run)

        return run_field

    def _resolver(self, field: GraphQLField, node: FieldNode) -> Resolve:
        definition: StrawberryField = field.extensions[DEFINITION]
        if definition.metadata.get("reads", "snapshot") != "snapshot":
            raise NotCompiled
        resolver = definition.base_resolver
        if resolver is None:
            get = attrgetter(definition.python_name)
            return lambda source, _run: get(source)
        if definition.extensions or definition.is_async or definition.is_subscription:
            raise NotCompiled
        function: Callable[..., Any] = getattr(resolver, "wrapped_func")  # noqa: B009 - typed as several things
        if inspect.iscoroutinefunction(function):
            raise NotCompiled
        takes_self = resolver.self_parameter is not None
        info = resolver.info_parameter.name if resolver.info_parameter is not None else None
        source_name = next(
            (item.name for item in (resolver.parent_parameter, resolver.root_parameter) if item is not None), None
        )
        arguments = self._arguments(field, definition, node)

        def call(source: Any, run: Run) -> Any:
            keywords = arguments(run.variables)
            if info is not None:
                keywords[info] = run
            if source_name is not None:
                keywords[source_name] = source
            return function(source, **keywords) if takes_self else function(**keywords)

        return call

    def _arguments(
        self, field: GraphQLField, definition: StrawberryField, node: FieldNode
    ) -> Callable[[VariableValues], dict[str, Any]]:
        converter = self._strawberry.schema_converter

        def read(variables: VariableValues) -> dict[str, Any]:
            return convert_arguments(
                get_argument_values(field, node, variables),
                definition.arguments,
                scalar_registry=converter.scalar_registry,
                config=self._strawberry.config,
            )

        if not field.args:
            return lambda _variables: {}
        if _uses_variables(node):
            return read
        try:
            constant = read(self._variables)
        except Exception:  # noqa: BLE001 - graphql-core reports what is wrong with the arguments
            raise NotCompiled from None
        return lambda _variables: constant.copy()

    def _complete(self, type_: GraphQLOutputType, details: list[FieldDetails]) -> Complete:
        if is_non_null_type(type_):
            inner = self._complete(type_.of_type, details)

            def required(value: Any, run: Run) -> Any:
                if value is None:
                    raise NotCompiled
                return inner(value, run)

            return required
        if is_list_type(type_):
            item_type = type_.of_type
            item = self._complete(item_type, details)

            def complete_list(value: Any, run: Run) -> Any:
                if value is None:
                    return None
                return [item(entry, run) for entry in value]

            return complete_list
        if is_leaf_type(type_):
            serialize = serializer(type_)
            return lambda value, _run: serialize(value)
        if not is_object_type(type_):
            raise NotCompiled
        grouped = collect_subfields(
            self._schema, self._fragments, self._variables, self._operation.node, type_, details
        ).grouped_field_set
        build = self._object(type_, grouped)

        def nullable(value: Any, run: Run) -> Any:
            return None if value is None else build(value, run)

        return nullable


def _uses_variables(node: FieldNode) -> bool:
    found = False

    class Find(Visitor):
        def enter_variable(self, *_: Any) -> None:
            nonlocal found
            found = True

    for argument in node.arguments or ():
        visit(argument, Find())
    return found


def _picker(names: list[str]) -> Callable[[Mapping[str, Any]], tuple[Any, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    (name,) = names
    return lambda values: (values[name],)

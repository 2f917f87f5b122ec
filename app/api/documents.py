"""Parsed, guarded and validated documents, kept for the next request that sends the same text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    GraphQLError,
    GraphQLSchema,
    IntValueNode,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
    ValidationRule,
    parse,
    specified_rules,
    validate,
)

from app.api.errors import request_error
from app.api.guards import MAX_TOKENS, Cost, Guard, Limits, refuse
from app.api.lru import LruCache

_MAX_DIGITS = 1_000
_BYTES_PER_CHARACTER = 120
"""What a parsed document takes in memory, roughly, per character of its text."""


@dataclass(slots=True, eq=False)
class Operation:
    """One operation of a valid document."""

    document: DocumentNode
    node: OperationDefinitionNode
    cost: Cost
    directive_variables: tuple[str, ...] | None = None
    """The variables that decide its @skip and @include; filled in by the compiled executor."""

    @property
    def type(self) -> OperationType:
        return self.node.operation


class RequestErrors(Exception):
    """The request cannot be run: its document, operation name or variables are wrong."""

    def __init__(self, errors: list[GraphQLError]) -> None:
        super().__init__(errors[0].message)
        self.errors = errors


class ReadableLiterals(ValidationRule):
    """Refuses U+0000 in strings, which no text in the database can hold, and numbers too long for Python to read."""

    def enter_int_value(self, node: IntValueNode, *_: Any) -> None:
        if len(node.value) > _MAX_DIGITS:
            self.report_error(GraphQLError(f"a number cannot have more than {_MAX_DIGITS} digits", node))

    def enter_string_value(self, node: StringValueNode, *_: Any) -> None:
        if "\0" in node.value:
            self.report_error(GraphQLError("a string cannot hold U+0000", node))


class Documents:
    """Raises RequestErrors for a text that is not a valid document within the limits."""

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, introspection: bool, cache_bytes: int = 2**24) -> None:
        self._schema = schema
        self._limits = limits
        self.hide_suggestions = not introspection
        self._rules = specified_rules if introspection else (*specified_rules, NoSchemaIntrospectionCustomRule)
        self._cache: LruCache[str, dict[str | None, Operation]] = LruCache(cache_bytes)

    def operation(self, text: str, name: str | None) -> Operation:
        operations = self._cache.get(text)
        if operations is None:
            operations = self._prepare(text)
            self._cache.put(text, operations, len(text) * _BYTES_PER_CHARACTER + 1_000)
        if name is None and len(operations) == 1:
            return next(iter(operations.values()))
        found = operations.get(name) if name is not None else None
        if found is None:
            known = ", ".join(repr(item) for item in operations if item is not None)
            problem = f"the document has no operation {name!r}" if name is not None else "operationName is missing"
            raise RequestErrors([request_error(f"{problem}; it has {known or 'one without a name'}")])
        return found

    def _prepare(self, text: str) -> dict[str | None, Operation]:
        try:
            document = parse(text, max_lexical_tokens=MAX_TOKENS, max_comments=MAX_TOKENS)
        except GraphQLError as error:
            raise RequestErrors([_parse_error(error)]) from None
        nodes = [item for item in document.definitions if isinstance(item, OperationDefinitionNode)]
        guard = Guard(self._schema, document, self._limits)
        try:
            costs = [guard.measure(node) for node in nodes]
        except GraphQLError as error:
            raise RequestErrors([error]) from None
        # The first stands alone: graphql-core's rules read the numbers.
        invalid = validate(self._schema, document, (ReadableLiterals,)) or validate(
            self._schema, document, self._rules, max_errors=20, hide_suggestions=self.hide_suggestions
        )
        for problem in invalid:
            problem.extensions = problem.extensions or {"code": "GRAPHQL_VALIDATION_FAILED"}
        if invalid:
            raise RequestErrors(invalid)
        if not nodes:
            raise RequestErrors([request_error("the document has no operation")])
        return {
            node.name.value if node.name else None: Operation(document, node, cost)
            for node, cost in zip(nodes, costs, strict=True)
        }


def _parse_error(error: GraphQLError) -> GraphQLError:
    if "Document contains more than" in error.message:
        return refuse("number of tokens", MAX_TOKENS + 1, MAX_TOKENS)
    error.extensions = {"code": "GRAPHQL_PARSE_FAILED"}
    return error

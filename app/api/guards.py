"""Limits on what a GraphQL document may ask for, checked before it is validated or run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNamedType,
    GraphQLSchema,
    InlineFragmentNode,
    IntValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
    get_named_type,
    get_nullable_type,
    is_list_type,
)

MAX_TOKENS = 4_000
MAX_FRAGMENT_NESTING = 50
MAX_SAME_FIELD = 100
"""Validation compares each pair of fields that share a response name, so their number is bounded before it."""
UNPAGED_LIST_SIZE = 20
"""What a list without `first` counts as."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one operation: nesting of fields, aliased fields, fields times list sizes."""

    depth: int
    aliases: int
    complexity: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What a field costs: one, plus its children times the size of its list."""

    children: tuple[Cost, ...]
    size: int
    size_variable: str | None = None
    """The variable that gives the size; `size` then is its default."""

    def evaluate(self, variables: Mapping[str, Any]) -> int:
        if not self.children:
            return 1
        size = self.size
        if self.size_variable is not None:
            given = variables.get(self.size_variable, size)
            size = given if isinstance(given, int) and given > 0 else size
        return 1 + size * sum(child.evaluate(variables) for child in self.children)


def refuse(name: str, actual: int, limit: int) -> GraphQLError:
    """The error of a document beyond a limit: names the limit, its value and the document's."""
    return GraphQLError(
        f"the operation's {name} is {actual}, above the limit of {limit}",
        extensions={"code": "LIMIT_EXCEEDED", "limit": name, "value": actual, "maximum": limit},
    )


class Guard:
    """Measures one document. Raises GraphQLError at the first limit that it exceeds."""

    def __init__(self, schema: GraphQLSchema, document: DocumentNode, limits: Limits) -> None:
        self._schema = schema
        self._limits = limits
        self._fragments = {
            item.name.value: item for item in document.definitions if isinstance(item, FragmentDefinitionNode)
        }
        self._measured: dict[tuple[str, bool, int], tuple[tuple[Cost, ...], int]] = {}
        self._open: set[str] = set()
        self._same_field: Counter[str] = Counter()
        self._operation: OperationDefinitionNode | None = None

    def measure(self, operation: OperationDefinitionNode) -> Cost:
        """Checks depth and aliases; the cost that comes back is to be evaluated with the variables of each run."""
        self._operation = operation
        self._measured.clear()
        root = self._schema.get_root_type(operation.operation)
        children, aliases = self._selections(operation.selection_set, root, paged=False, depth=0, nesting=0)
        if aliases > self._limits.aliases:
            raise refuse("number of aliases", aliases, self._limits.aliases)
        return Cost(children, 1)

    def _selections(
        self, selection_set: SelectionSetNode, parent: GraphQLNamedType | None, *, paged: bool, depth: int, nesting: int
    ) -> tuple[tuple[Cost, ...], int]:
        if nesting > MAX_FRAGMENT_NESTING:
            raise refuse("nesting of fragments", nesting, MAX_FRAGMENT_NESTING)
        costs: list[Cost] = []
        aliases = 0
        for selection in selection_set.selections:
            if isinstance(selection, FieldNode):
                cost, inner = self._field(selection, parent, paged=paged, depth=depth + 1, nesting=nesting)
                if cost is not None:
                    costs.append(cost)
            elif isinstance(selection, InlineFragmentNode):
                condition = selection.type_condition
                of = self._schema.get_type(condition.name.value) if condition else parent
                part, inner = self._selections(
                    selection.selection_set, of, paged=paged, depth=depth, nesting=nesting + 1
                )
                costs.extend(part)
            else:
                assert isinstance(selection, FragmentSpreadNode)
                part, inner = self._spread(selection.name.value, paged=paged, depth=depth, nesting=nesting + 1)
                costs.extend(part)
            aliases += inner
        return tuple(costs), aliases

    def _spread(self, name: str, *, paged: bool, depth: int, nesting: int) -> tuple[tuple[Cost, ...], int]:
        fragment = self._fragments.get(name)
        if fragment is None or name in self._open:
            return (), 0  # validation says so
        key = (name, paged, depth)
        if key not in self._measured:
            self._open.add(name)
            of = self._schema.get_type(fragment.type_condition.name.value)
            self._measured[key] = self._selections(
                fragment.selection_set, of, paged=paged, depth=depth, nesting=nesting
            )
            self._open.discard(name)
        return self._measured[key]

    def _field(
        self, node: FieldNode, parent: GraphQLNamedType | None, *, paged: bool, depth: int, nesting: int
    ) -> tuple[Cost | None, int]:
        name = node.name.value
        if depth > self._limits.depth:
            raise refuse("depth", depth, self._limits.depth)
        response_name = node.alias.value if node.alias else name
        self._same_field[response_name] += 1
        if self._same_field[response_name] > MAX_SAME_FIELD:
            raise refuse(f"number of fields {response_name!r}", self._same_field[response_name], MAX_SAME_FIELD)
        aliases = 1 if node.alias else 0
        if name in ("__schema", "__type"):
            return None, aliases  # bounded by graphql-core's MaxIntrospectionDepthRule
        field = getattr(parent, "fields", {}).get(name)
        if node.selection_set is None:
            return Cost((), 1), aliases
        size, variable = 1, None
        takes_first = field is not None and "first" in field.args
        if takes_first:
            size, variable = self._first(node, field)
        elif not paged and field is not None and is_list_type(get_nullable_type(field.type)):
            size = UNPAGED_LIST_SIZE
        of = get_named_type(field.type) if field is not None else None
        children, inner = self._selections(node.selection_set, of, paged=takes_first, depth=depth, nesting=nesting)
        return Cost(children, size, variable), aliases + inner

    def _first(self, node: FieldNode, field: Any) -> tuple[int, str | None]:
        default = field.args["first"].default_value
        size = default if isinstance(default, int) else UNPAGED_LIST_SIZE
        for argument in node.arguments or ():
            if argument.name.value != "first":
                continue
            if isinstance(argument.value, IntValueNode):
                return max(int(argument.value.value), 0), None
            if isinstance(argument.value, VariableNode):
                variable = argument.value.name.value
                return self._variable_default(variable, size), variable
        return size, None

    def _variable_default(self, name: str, otherwise: int) -> int:
        assert self._operation is not None
        for definition in self._operation.variable_definitions or ():
            if definition.variable.name.value == name and isinstance(definition.default_value, IntValueNode):
                return int(definition.default_value.value)
        return otherwise

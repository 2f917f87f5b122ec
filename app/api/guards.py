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
_MAX_SHOWN = 2**53 - 1
"""The greatest integer that every JSON reader takes for itself."""
UNPAGED_LIST_SIZE = 20
"""What a list without `first` counts as."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one operation: nesting of fields, aliased fields, fields times list sizes."""

    depth: int
    aliases: int
    complexity: int


class Cost:
    """`own`, plus the sum of the children times the size of the list that they are in.

    Fragments are shared, so costs form a graph in which the number of paths may be exponential: what no variable
    decides is summed up at once, and the rest once per evaluation.
    """

    __slots__ = ("_children", "_constant", "_own", "_size", "_size_variable")

    def __init__(
        self, children: tuple[Cost, ...], size: int = 1, size_variable: str | None = None, own: int = 1
    ) -> None:
        """`size_variable` is the variable that gives the size; `size` then is its default."""
        self._own = own
        self._size = size
        self._size_variable = size_variable if children else None
        self._constant = 0
        varying = []
        for child in children:
            if child._varies:
                varying.append(child)
            else:
                self._constant += child._total({}, {})
        self._children = tuple(varying)

    @property
    def _varies(self) -> bool:
        return bool(self._children) or self._size_variable is not None

    def evaluate(self, variables: Mapping[str, Any]) -> int:
        return self._total(variables, {})

    def _total(self, variables: Mapping[str, Any], known: dict[int, int]) -> int:
        total = known.get(id(self))
        if total is None:
            inner = self._constant + sum(child._total(variables, known) for child in self._children)
            total = known[id(self)] = self._own + self._size_of(variables) * inner
        return total

    def _size_of(self, variables: Mapping[str, Any]) -> int:
        given = variables.get(self._size_variable) if self._size_variable is not None else None
        return given if isinstance(given, int) and given > 0 else self._size


def refuse(name: str, actual: int, limit: int) -> GraphQLError:
    """The error of a document beyond a limit: names the limit, its value and the document's."""
    actual = min(actual, _MAX_SHOWN)
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
        self._measured: dict[tuple[str, bool, int], tuple[Cost, int]] = {}
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
        return Cost(children, own=0)

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
                spread, inner = self._spread(selection.name.value, paged=paged, depth=depth, nesting=nesting + 1)
                costs.append(spread)
            aliases += inner
        return tuple(costs), aliases

    def _spread(self, name: str, *, paged: bool, depth: int, nesting: int) -> tuple[Cost, int]:
        fragment = self._fragments.get(name)
        if fragment is None or name in self._open:
            return Cost(()), 0  # validation says so
        key = (name, paged, depth)
        if key not in self._measured:
            self._open.add(name)
            of = self._schema.get_type(fragment.type_condition.name.value)
            costs, aliases = self._selections(fragment.selection_set, of, paged=paged, depth=depth, nesting=nesting)
            self._measured[key] = Cost(costs, own=0), aliases
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
            return Cost(()), aliases
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
                return _int(argument.value), None
            if isinstance(argument.value, VariableNode):
                variable = argument.value.name.value
                return self._variable_default(variable, size), variable
        return size, None

    def _variable_default(self, name: str, otherwise: int) -> int:
        assert self._operation is not None
        for definition in self._operation.variable_definitions or ():
            if definition.variable.name.value == name and isinstance(definition.default_value, IntValueNode):
                return _int(definition.default_value)
        return otherwise


def _int(node: IntValueNode) -> int:
    # Longer than any Int may be; Python refuses to read some thousand digits at all.
    return max(int(node.value), 0) if len(node.value) < 20 else _MAX_SHOWN

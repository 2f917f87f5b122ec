"""YAML to nodes that keep each scalar's own text and line. Plain scalars mean what YAML 1.2's core schema says."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, TypeAlias

import yaml

from app.configuration.interpolation import InterpolationError, interpolate
from app.configuration.problems import Problems
from app.configuration.records import Position
from app.errors import ConfigurationError, ValidationError

MAX_NODES: Final = 300_000
"""Of one file with its aliases followed, so that a few lines cannot fill the memory."""
MAX_DEPTH: Final = 300
_LEAST_TO_OVERFLOW: Final = 20_000

_PLAIN: Final = "plain"
_QUOTED: Final = "quoted"
_STRING: Final = ("tag:yaml.org,2002:str", _QUOTED)
_SEQUENCE: Final = "tag:yaml.org,2002:seq"
_MAPPING: Final = "tag:yaml.org,2002:map"
_NULL: Final = re.compile(r"|~|null|Null|NULL")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_BOOLEAN: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Scalar:
    """`written` is the file's text, `text` what it stands for after interpolation."""

    text: str
    written: str
    is_plain: bool
    is_from_environment: bool
    position: Position

    @property
    def is_null(self) -> bool:
        return self.is_plain and _NULL.fullmatch(self.text) is not None

    @property
    def shown(self) -> str | None:
        """What an error may repeat in place of the value; None: the value itself."""
        return self.written if self.is_from_environment else None


@dataclass(frozen=True, slots=True)
class Sequence:
    items: tuple[Node, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class Entry:
    """`position` is the key's."""

    node: Node
    position: Position


@dataclass(frozen=True, slots=True)
class Map:
    entries: Mapping[str, Entry]
    position: Position


Node: TypeAlias = Scalar | Sequence | Map


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # chosen at run time
    """Composes only. A scalar's tag says whether it was written plain: its type is not guessed here."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode:
            return _PLAIN if implicit[0] else _QUOTED
        return _MAPPING if kind is yaml.MappingNode else _SEQUENCE


def read_nodes(text: str, file: str, environment: Mapping[str, str], problems: Problems) -> Node | None:
    """None for an empty file, or one that is no YAML."""
    loader = _Loader(text)
    try:
        _check_depth(text, file)
        root = loader.get_single_node()
    except yaml.YAMLError as error:
        problems.add(_error_position(error, file), _explain(error))
        return None
    finally:
        loader.dispose()
    return None if root is None else _Reader(file, environment, problems).read(root)


def _check_depth(text: str, file: str) -> None:
    """libyaml composes by recursion, and would overflow the stack of a file that is nested some 100,000 deep."""
    if len(text) < _LEAST_TO_OVERFLOW:
        return
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _too_much(Position(file, event.start_mark.line + 1 if event.start_mark is not None else 1))
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _too_much(position: Position) -> ConfigurationError:
    return ConfigurationError(
        f"{position}: the file must have at most {MAX_NODES} values, nested at most {MAX_DEPTH} deep"
    )


def _error_position(error: yaml.YAMLError, file: str) -> Position:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return Position(file, mark.line + 1 if mark is not None else 1)


def _explain(error: yaml.YAMLError) -> str:
    reasons = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    return "this is no YAML: " + (", ".join(reason for reason in reasons if reason) or "it cannot be read")


class _Reader:
    def __init__(self, file: str, environment: Mapping[str, str], problems: Problems) -> None:
        self._file = file
        self._environment = environment
        self._problems = problems
        self._count = 0

    def read(self, node: yaml.Node, path: str = "", depth: int = 0) -> Node:
        position = self._position(node)
        self._count += 1
        # Also ends an alias that contains itself.
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            raise _too_much(position)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path, position)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, position, (_SEQUENCE,))
            items = (self.read(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(node.value))
            return Sequence(tuple(items), position)
        self._check_tag(node, position, (_MAPPING,))
        return self._map(node, path, position, depth)

    def _map(self, node: yaml.Node, path: str, position: Position, depth: int) -> Map:
        entries: dict[str, Entry] = {}
        for key, value in node.value:
            at = self._position(key)
            if not isinstance(key, yaml.ScalarNode):
                self._problems.add(at, f"{path or 'the file'}: a key must be text")
            elif key.value in entries:
                first = entries[key.value].position.line
                self._problems.add(at, f"{joined(path, key.value)} is given twice, first in line {first}")
            else:
                entries[key.value] = Entry(self.read(value, joined(path, key.value), depth + 1), at)
        return Map(entries, position)

    def _scalar(self, node: yaml.ScalarNode, path: str, position: Position) -> Scalar:
        self._check_tag(node, position, (*_STRING, _PLAIN))
        text, from_environment = node.value, False
        try:
            text, from_environment = interpolate(node.value, self._environment)
        except InterpolationError as error:
            self._problems.add(position, f"{path}: {error}")
        return Scalar(text, node.value, node.tag == _PLAIN, from_environment, position)

    def _check_tag(self, node: yaml.Node, position: Position, known: tuple[str, ...]) -> None:
        if node.tag not in known:
            self._problems.add(position, f"the tag {node.tag!r} is not supported; only plain YAML is")

    def _position(self, node: yaml.Node) -> Position:
        return Position(self._file, node.start_mark.line + 1)


def joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def integer(scalar: Scalar) -> int | None:
    """None where it is none."""
    return int(scalar.text) if len(scalar.text) <= 40 and _INTEGER.fullmatch(scalar.text) else None


def boolean(scalar: Scalar) -> bool | None:
    return _BOOLEAN.get(scalar.text)


def number(scalar: Scalar) -> float | None:
    """A binary number, for what is stored as one. Never a price."""
    return float(scalar.text) if len(scalar.text) <= 40 and _NUMBER.fullmatch(scalar.text) else None


def json_value(node: Node, field: str = "value") -> Any:
    """The node as JSON. Raises ValidationError for what JSON, or a 64-bit number, cannot hold exactly."""
    if isinstance(node, Sequence):
        return [json_value(item, field) for item in node.items]
    if isinstance(node, Map):
        return {_storable(key, field): json_value(entry.node, field) for key, entry in node.entries.items()}
    if not node.is_plain:
        return _storable(node.text, field)
    if node.is_null:
        return None
    if node.text in _BOOLEAN:
        return _BOOLEAN[node.text]
    if _INTEGER.fullmatch(node.text):
        return int(node.text) if len(node.text) <= 400 else _refuse_number(node.text, field)
    if _NOT_FINITE.fullmatch(node.text):
        return _refuse_number(node.text, field)
    if _NUMBER.fullmatch(node.text):
        value = float(node.text)
        if not math.isfinite(value) or len(node.text) > 400 or Decimal(repr(value)) != Decimal(node.text):
            return _refuse_number(node.text, field)
        return value
    return _storable(node.text, field)


def _refuse_number(text: str, field: str) -> Any:
    raise ValidationError(field, text, "a number that JSON's readers hold exactly, or quoted text")


def _storable(text: str, field: str) -> str:
    if "\0" in text:
        raise ValidationError(field, text, "text without the character U+0000")
    return text


def is_plain_text(text: str) -> bool:
    """Whether it would still be text if it were written plain."""
    other = (_NULL, _INTEGER, _NUMBER, _NOT_FINITE)
    return text not in _BOOLEAN and not any(pattern.fullmatch(text) for pattern in other)

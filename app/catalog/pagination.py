"""Pages of a sorted sequence, by keyset: a cursor holds the sort key of its item, so that it outlives the item."""

from __future__ import annotations

import base64
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from app.errors import ValidationError

T = TypeVar("T")
Key = tuple[Any, ...]
"""Of str, int and bool only, the same types at the same places in one sequence, and unique in it."""

MAX_FIRST: Final = 500
_MAX_CURSOR: Final = 4_000


@dataclass(frozen=True, slots=True)
class Sorted(Generic[T]):
    """`items` with their `keys`, ascending; read from the end where `descending`. `name` tells orderings apart."""

    name: str
    keys: tuple[Key, ...]
    items: tuple[T, ...]
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    nodes: tuple[T, ...]
    keys: tuple[Key, ...]
    """One per node."""
    ordering: str
    has_next_page: bool
    has_previous_page: bool
    total_count: int
    """Of the whole sequence."""

    @property
    def cursors(self) -> tuple[str, ...]:
        """One per node; made when asked for, since most pages are asked for their last one only."""
        return tuple(encode_cursor(self.ordering, key) for key in self.keys)

    @property
    def start_cursor(self) -> str | None:
        return encode_cursor(self.ordering, self.keys[0]) if self.keys else None

    @property
    def end_cursor(self) -> str | None:
        return encode_cursor(self.ordering, self.keys[-1]) if self.keys else None


def sort_by(name: str, items: Iterable[T], key: Callable[[T], Key], *, descending: bool = False) -> Sorted[T]:
    decorated = sorted(((key(item), item) for item in items), key=lambda pair: pair[0])
    return Sorted(name, tuple(pair[0] for pair in decorated), tuple(pair[1] for pair in decorated), descending)


def paginate(sequence: Sorted[T], first: int, after: str | None = None) -> Page[T]:
    """The `first` items behind the cursor `after`. Raises ValidationError."""
    first = check_first(first)
    total = len(sequence.items)
    if sequence.descending:
        end = total if after is None else bisect_left(sequence.keys, _decode_for(sequence, after))
        start = max(0, end - first)
        window = slice(start, end)
        nodes, keys = sequence.items[window][::-1], sequence.keys[window][::-1]
        has_next, has_previous = start > 0, end < total
    else:
        start = 0 if after is None else bisect_right(sequence.keys, _decode_for(sequence, after))
        end = min(total, start + first)
        nodes, keys = sequence.items[start:end], sequence.keys[start:end]
        has_next, has_previous = end < total, start > 0
    return Page(nodes, keys, sequence.name, has_next, has_previous, total)


def check_first(first: int, field: str = "first") -> int:
    if isinstance(first, bool) or not 1 <= first <= MAX_FIRST:
        raise ValidationError(field, first, f"from 1 to {MAX_FIRST}")
    return first


def encode_cursor(name: str, key: Key) -> str:
    text = json.dumps([name, *key], separators=(",", ":"), ensure_ascii=True)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(name: str, shape: tuple[type, ...], cursor: str, field: str = "after") -> Key:
    """The key in `cursor`. Raises ValidationError unless it is one of ordering `name` whose key has these types."""
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError
        padded = cursor + "=" * (-len(cursor) % 4)
        decoded = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(decoded, list) or [type(part) for part in decoded] != [str, *shape] or decoded[0] != name:
        raise ValidationError(field, cursor, "a cursor that this query gave, in the same order")
    return tuple(decoded[1:])


def _decode_for(sequence: Sorted[T], cursor: str) -> Key:
    if not sequence.keys:
        return ()
    return decode_cursor(sequence.name, tuple(type(part) for part in sequence.keys[0]), cursor)

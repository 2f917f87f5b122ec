"""What configuration files say, each value with its place, and what a plan is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, NamedTuple

from app.catalog.records import UsageUnit


class Position(NamedTuple):
    """`line` counts from 1."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Given(NamedTuple):
    """A value within its bounds, as it is to be stored."""

    value: Any
    position: Position


class PriceEntry(NamedTuple):
    """A price per 1,000,000 units; None: not known. `effective_at` None: before the first dated one."""

    price: Decimal | None
    effective_at: datetime | None
    position: Position


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """`values` by column. What the file leaves out is not among them."""

    model_id: str
    position: Position
    values: Mapping[str, Given] = field(default_factory=dict)
    prices: Mapping[UsageUnit, tuple[PriceEntry, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProviderEntry:
    """`values` by column. `models` None: the file says nothing of them."""

    name: str
    position: Position
    values: Mapping[str, Given] = field(default_factory=dict)
    models: Mapping[str, ModelEntry] | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A file with all that it includes. None: it has no such section."""

    providers: Mapping[str, ProviderEntry] | None = None
    settings: Mapping[str, Given] | None = None


class Kind(StrEnum):
    PROVIDER = "provider"
    MODEL = "model"
    SETTING = "setting"


class Action(StrEnum):
    """The value is the sign that a plan is printed with."""

    CREATE = "+"
    UPDATE = "~"
    DELETE = "-"


class Difference(NamedTuple):
    """`path` as the file names the field. Values are printable: decimals and times as plain strings."""

    path: str
    old: Any
    new: Any
    note: str | None = None


class NewPrice(NamedTuple):
    """To be appended. `effective_at` None: dated by the database when it is written."""

    unit: UsageUnit
    price: Decimal | None
    effective_at: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """`key` is "openai", "openai:gpt-4o" or a setting's. `row_id` None: the row is new. `values` by column."""

    action: Action
    kind: Kind
    key: str
    row_id: str | None = None
    provider: str | None = None
    differences: tuple[Difference, ...] = ()
    note: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    prices: tuple[NewPrice, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Providers by name, each followed by its models; then settings. Equal plans do the same."""

    changes: tuple[Change, ...] = ()

    def count(self, action: Action) -> int:
        return sum(change.action is action for change in self.changes)

    def of(self, kind: Kind, action: Action) -> list[Change]:
        return [change for change in self.changes if change.kind is kind and change.action is action]


@dataclass(frozen=True, slots=True)
class Referenced:
    """Rows that must not be deleted: requests refer to them."""

    provider_ids: frozenset[str] = frozenset()
    model_ids: frozenset[str] = frozenset()


NOT_REFERENCED: Final = Referenced()

"""What a seed is to do, decided from three things: the rows that are there, what seeds last wrote, what is wanted.

Pure: no I/O, no clock. Values are JSON's own types, with decimals as plain strings, so that they compare exactly.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

Values = Mapping[str, Any]


class Kind(StrEnum):
    PROVIDER = "provider"
    MODEL = "model"
    PRICE = "price"
    """Of a unit that is not on the model itself: cache reads and writes."""
    SETTING = "setting"


class Source(StrEnum):
    REFERENCE = "reference"
    GENAI_PRICES = "genai-prices"


class Outcome(StrEnum):
    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    KEPT = "kept"
    """Something differs from what is wanted, and stays: an operator, or a source that knows better, wanted it so."""


class Identity(NamedTuple):
    """`key` holds for good, whatever the row's id: "default/openai", "default/openai:gpt-4o",
    "default/openai:gpt-4o#CACHE_READ_TOKENS", "infra_model_summarization"."""

    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Item:
    """A row that a source wants, with the fields it has something to say about. `parent`: a model's provider, a
    price's model."""

    identity: Identity
    values: Values
    parent: Identity | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """What seeds last wrote to a row. `sources`: those that have written to it."""

    sources: frozenset[Source]
    values: Values


@dataclass(frozen=True, slots=True)
class Catalog:
    """What there is. `defaults`: each provider's default model, where it has one."""

    rows: Mapping[Identity, Values] = field(default_factory=dict)
    records: Mapping[Identity, Record] = field(default_factory=dict)
    defaults: Mapping[Identity, Identity] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """`kept` says why `old` stays; None: `new` is written."""

    field: str
    old: Any
    new: Any
    kept: str | None = None


@dataclass(frozen=True, slots=True)
class Action:
    item: Item
    outcome: Outcome
    differences: tuple[Difference, ...] = ()
    reason: str | None = None
    record: Record | None = None
    """To be stored. None: what is stored stays."""

    @property
    def written(self) -> dict[str, Any]:
        return {difference.field: difference.new for difference in self.differences if difference.kept is None}


@dataclass(frozen=True, slots=True)
class Plan:
    source: Source
    actions: tuple[Action, ...]

    def count(self, kind: Kind, outcome: Outcome) -> int:
        return self._counts()[kind, outcome]

    def total(self, outcome: Outcome) -> int:
        return sum(self.count(kind, outcome) for kind in Kind)

    def _counts(self) -> Counter[tuple[Kind, Outcome]]:
        return Counter((action.item.identity.kind, action.outcome) for action in self.actions)


SCHEMA_DEFAULTS: Final[Mapping[Kind, Values]] = {
    Kind.PROVIDER: {
        "adapter": "openai",
        "base_url": None,
        "max_parallel_requests": 1,
        "requests_per_minute": 60,
    },
    Kind.MODEL: {
        "description": None,
        "model_type": "TEXT",
        "context_window": None,
        "cost_input_per_million": None,
        "cost_output_per_million": None,
        "status": "ACTIVE",
        "is_default": False,
    },
    Kind.PRICE: {},
    Kind.SETTING: {},
}
"""What a column holds when nobody said anything: such a field that no seed has written is free to be filled."""

# Who knows better, where two sources speak of one field: genai-prices, which is kept current, about what a model is
# and costs; the reference about names, addresses and limits. So the order in which the two are run does not matter.
_KEPT_CURRENT: Final = frozenset(
    {
        (Kind.MODEL, "description"),
        (Kind.MODEL, "model_type"),
        (Kind.MODEL, "context_window"),
        (Kind.MODEL, "cost_input_per_million"),
        (Kind.MODEL, "cost_output_per_million"),
        (Kind.MODEL, "status"),
        (Kind.PRICE, "price_per_million"),
    }
)

EDITED = "edited by an operator"
DELETED = "deleted by an operator"
MADE_BY_OPERATOR = "made by an operator"
PARENT_MISSING = "what it belongs to is not there"
PARENT_OF_OPERATOR = "its model was made by an operator"
OTHER_DEFAULT = "another model is the default"
DEFAULT_NOT_DEPRECATED = "it is the default of its provider"
DEPRECATED_NOT_DEFAULT = "it is deprecated"


def decide(source: Source, items: Iterable[Item], catalog: Catalog) -> Plan:
    """The plan. `items` name parents before children; a second plan from its outcome has nothing to write."""
    wanted = list(items)
    decider = _Decider(source, catalog)
    # A default that is withdrawn goes first, so that its place is free.
    actions = [decider.decide(item) for item in sorted(wanted, key=_order)]
    actions += decider.withdraw_prices(wanted)
    return Plan(source, tuple(actions))


def _order(item: Item) -> tuple[int, bool]:
    return list(Kind).index(item.identity.kind), bool(item.values.get("is_default"))


class _Decider:
    def __init__(self, source: Source, catalog: Catalog) -> None:
        self._source = source
        self._catalog = catalog
        self._defaults = dict(catalog.defaults)
        self._created: set[Identity] = set()

    def decide(self, item: Item) -> Action:
        row = self._catalog.rows.get(item.identity)
        record = self._catalog.records.get(item.identity)
        if row is None:
            return self._create(item, record)
        if record is None:
            differences = tuple(
                Difference(name, row[name], new, MADE_BY_OPERATOR)
                for name, new in item.values.items()
                if row[name] != new
            )
            return _unwritten(item, differences)
        return self._update(item, row, record)

    def withdraw_prices(self, wanted: Iterable[Item]) -> list[Action]:
        """A price that its source no longer gives is unknown from now on, if its model is still in the source."""
        identities = {item.identity for item in wanted}
        withdrawn = [
            Item(identity, {"price_per_million": None}, parent)
            for identity, record in self._catalog.records.items()
            if identity.kind is Kind.PRICE and self._source in record.sources and identity not in identities
            if (parent := Identity(Kind.MODEL, identity.key.rpartition("#")[0])) in identities
            if identity in self._catalog.rows
        ]
        return [self.decide(item) for item in withdrawn]

    def _create(self, item: Item, record: Record | None) -> Action:
        if record is not None:
            return Action(item, Outcome.KEPT, reason=DELETED)
        parent = item.parent
        if parent is not None and parent not in self._created:
            if parent not in self._catalog.rows:
                return Action(item, Outcome.KEPT, reason=PARENT_MISSING)
            if item.identity.kind is Kind.PRICE and parent not in self._catalog.records:
                return Action(item, Outcome.KEPT, reason=PARENT_OF_OPERATOR)
        blank = dict.fromkeys(item.values) | dict(SCHEMA_DEFAULTS[item.identity.kind])
        differences = tuple(
            Difference(name, None, new, self._conflict(item, blank, name, new)) for name, new in item.values.items()
        )
        written = {difference.field: difference.new for difference in differences if difference.kept is None}
        self._note_default(item, written)
        self._created.add(item.identity)
        return Action(item, Outcome.CREATE, differences, record=Record(frozenset({self._source}), written))

    def _update(self, item: Item, row: Values, record: Record) -> Action:
        differences = []
        for name, new in item.values.items():
            if row[name] != new:
                kept = self._claim(item.identity.kind, name, row[name], record) or self._conflict(item, row, name, new)
                differences.append(Difference(name, row[name], new, kept))
        written = {difference.field: difference.new for difference in differences if difference.kept is None}
        if not written:
            return _unwritten(item, tuple(differences))
        self._note_default(item, written)
        stored = Record(record.sources | {self._source}, {**record.values, **written})
        return Action(item, Outcome.UPDATE, tuple(differences), record=stored)

    def _claim(self, kind: Kind, name: str, old: Any, record: Record) -> str | None:
        """Whose the field's present value is, where it is not this source's to change."""
        if name not in record.values:
            return None if old == SCHEMA_DEFAULTS[kind].get(name) else EDITED
        if record.values[name] != old:
            return EDITED
        authority = Source.GENAI_PRICES if (kind, name) in _KEPT_CURRENT else Source.REFERENCE
        if authority is not self._source and authority in record.sources:
            return f"as {authority} has it"
        return None

    def _conflict(self, item: Item, row: Values, name: str, new: Any) -> str | None:
        """Why the database would refuse the field's new value: one default per provider, and no deprecated one."""
        if name == "is_default" and new:
            assert item.parent is not None
            if self._defaults.get(item.parent, item.identity) != item.identity:
                return OTHER_DEFAULT
            if "DEPRECATED" in (row["status"], item.values.get("status")):
                return DEPRECATED_NOT_DEFAULT
        if name == "status" and new == "DEPRECATED" and row["is_default"]:
            return DEFAULT_NOT_DEPRECATED
        return None

    def _note_default(self, item: Item, written: Values) -> None:
        if "is_default" in written and item.parent is not None:
            if written["is_default"]:
                self._defaults[item.parent] = item.identity
            elif self._defaults.get(item.parent) == item.identity:
                del self._defaults[item.parent]


def _unwritten(item: Item, differences: tuple[Difference, ...]) -> Action:
    reasons = {difference.kept for difference in differences}
    outcome = Outcome.KEPT if differences else Outcome.UNCHANGED
    return Action(item, outcome, differences, reason=reasons.pop() if len(reasons) == 1 else None)

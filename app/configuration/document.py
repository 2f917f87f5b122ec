"""From a file's nodes to what it says, each value checked; and one document over another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from app import money
from app.catalog import validation
from app.catalog.records import UsageUnit
from app.configuration.fields import MODEL_FIELDS, PRICE_KEYS, PROVIDER_FIELDS, Field, price_key
from app.configuration.nodes import Map, Node, Scalar, Sequence, joined, json_value
from app.configuration.problems import Problems
from app.configuration.records import Document, Given, ModelEntry, Position, PriceEntry, ProviderEntry
from app.errors import RequestRefused, ValidationError
from app.settings import rules

TOP_KEYS: Final = ("include", "providers", "settings")
PROVIDER_KEYS: Final = ("name", *dict.fromkeys(field.path.partition(".")[0] for field in PROVIDER_FIELDS), "models")
MODEL_KEYS: Final = ("modelId", *dict.fromkeys(field.path.partition(".")[0] for field in MODEL_FIELDS), "prices")
DATED_KEYS: Final = ("price", "effectiveAt")

_T = TypeVar("_T")


def read_document(root: Node | None, problems: Problems) -> Document:
    """What one file says, without what it includes."""
    if root is None or (isinstance(root, Scalar) and root.is_null):
        return Document()
    top = _keys(root, "the file", TOP_KEYS, problems)
    reader = _Reader(problems)
    providers = settings = None
    if (node := top.get("providers")) is not None:
        providers = reader.keyed(node, "providers", "name", _provider_name, reader.provider)
    if (node := top.get("settings")) is not None:
        settings = reader.settings(node)
    return Document(providers, settings)


def included(root: Node | None, problems: Problems) -> list[tuple[str, Position]]:
    """The patterns under `include`, each with its place."""
    node = root.entries["include"].node if isinstance(root, Map) and "include" in root.entries else None
    if node is None:
        return []
    items = node.items if isinstance(node, Sequence) else (node,)
    patterns = []
    for item in items:
        if isinstance(item, Scalar) and not item.is_null and item.text:
            patterns.append((item.text, item.position))
        else:
            problems.add(item.position, "include must be a list of files, relative to this one")
    return patterns


def merge(under: Document, over: Document) -> Document:
    """What `over` says holds; providers, models, prices and settings are matched by their names."""
    return Document(
        _united(under.providers, over.providers, _merge_providers),
        _united(under.settings, over.settings, lambda _, new: new),
    )


def _merge_providers(under: ProviderEntry, over: ProviderEntry) -> ProviderEntry:
    models = _united(under.models, over.models, _merge_models)
    return ProviderEntry(over.name, over.position, {**under.values, **over.values}, models)


def _merge_models(under: ModelEntry, over: ModelEntry) -> ModelEntry:
    values, prices = {**under.values, **over.values}, {**under.prices, **over.prices}
    return ModelEntry(over.model_id, over.position, values, prices)


def _united(
    under: Mapping[str, _T] | None, over: Mapping[str, _T] | None, both: Callable[[_T, _T], _T]
) -> Mapping[str, _T] | None:
    if under is None or over is None:
        return over if under is None else under
    return {**under, **{key: both(under[key], new) if key in under else new for key, new in over.items()}}


class _Reader:
    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def keyed(
        self,
        node: Node,
        path: str,
        key: str,
        check: Callable[[str], str],
        read: Callable[[Map, str, str], _T],
    ) -> Mapping[str, _T] | None:
        """A list of mappings, each known by what it has at `key`. None: nothing is said, which an empty list does."""
        found: dict[str, _T] = {}
        first: dict[str, Position] = {}
        if isinstance(node, Scalar) and node.is_null:
            return None
        if not isinstance(node, Sequence):
            self._problems.add(node.position, f"{path} must be a list, each item with its {key}")
            return found
        for index, item in enumerate(node.items):
            at = f"{path}[{index}]"
            entry = item.entries.get(key) if isinstance(item, Map) else None
            if not isinstance(item, Map) or entry is None or not isinstance(entry.node, Scalar) or entry.node.is_null:
                self._problems.add(item.position, f"{at} must have a {key}")
                continue
            name = self._checked(entry.node, joined(at, key), check, entry.node.text)
            if name is None:
                continue
            if name in found:
                self._problems.add(
                    entry.position, f"{joined(at, key)} {name!r} is given twice, first in line {first[name].line}"
                )
                continue
            first[name] = entry.position
            found[name] = read(item, name, f"{path}[{name}]")
        return found

    def provider(self, node: Map, name: str, path: str) -> ProviderEntry:
        keys = _keys(node, path, PROVIDER_KEYS, self._problems)
        values = self._values(PROVIDER_FIELDS, keys, path)
        models = None
        if (found := keys.get("models")) is not None:
            models = self.keyed(found, joined(path, "models"), "modelId", validation.model_id, self.model)
        return ProviderEntry(name, node.position, values, models)

    def model(self, node: Map, model_id: str, path: str) -> ModelEntry:
        keys = _keys(node, path, MODEL_KEYS, self._problems)
        prices: dict[UsageUnit, tuple[PriceEntry, ...]] = {}
        if (found := keys.get("prices")) is not None:
            at = joined(path, "prices")
            for key, price in _keys(found, at, tuple(PRICE_KEYS), self._problems).items():
                prices[PRICE_KEYS[key]] = self._prices(price, joined(at, key))
        return ModelEntry(model_id, node.position, self._values(MODEL_FIELDS, keys, path), prices)

    def settings(self, node: Node) -> Mapping[str, Given] | None:
        if isinstance(node, Scalar) and node.is_null:
            return None
        if not isinstance(node, Map):
            self._problems.add(node.position, "settings must be a mapping of keys to values")
            return {}
        settings = {}
        for key, entry in node.entries.items():
            path = joined("settings", key)
            try:
                rules.check_key(key)
                value = json_value(entry.node)
                rules.encode_value(value)
            except ValidationError as error:
                shown = entry.node.shown if isinstance(entry.node, Scalar) else None
                self._problems.refuse(entry.position, path, error, shown=shown)
            else:
                settings[key] = Given(value, entry.node.position)
        return settings

    def _values(self, fields: Iterable[Field], keys: Mapping[str, Node], path: str) -> Mapping[str, Given]:
        values: dict[str, Given] = {}
        groups: dict[str, Mapping[str, Node]] = {}
        fields = tuple(fields)
        for field in fields:
            group, _, rest = field.path.partition(".")
            node = keys.get(group)
            if node is not None and rest:
                if group not in groups:
                    known = tuple(other.name for other in fields if other.path.startswith(f"{group}."))
                    groups[group] = _keys(node, joined(path, group), known, self._problems)
                node = groups[group].get(rest)
            if node is not None:
                try:
                    values[field.column] = Given(field.read(node), node.position)
                except RequestRefused as error:
                    shown = node.shown if isinstance(node, Scalar) else None
                    self._problems.refuse(node.position, joined(path, field.path), error, shown=shown)
        return values

    def _prices(self, node: Node, path: str) -> tuple[PriceEntry, ...]:
        if isinstance(node, Scalar):
            return (PriceEntry(self._price(node, path), None, node.position),)
        if not isinstance(node, Sequence) or not node.items:
            self._problems.add(node.position, f"{path} must be a price, or a list of prices with their effectiveAt")
            return ()
        entries: dict[datetime | None, PriceEntry] = {}
        for index, item in enumerate(node.items):
            at = f"{path}[{index}]"
            keys = _keys(item, at, DATED_KEYS, self._problems)
            price, effective = keys.get("price"), keys.get("effectiveAt")
            if price is None:
                self._problems.add(item.position, f"{at} must have a price; null where it is not known")
                continue
            effective_at = None if effective is None else self._time(effective, joined(at, "effectiveAt"))
            entry = PriceEntry(self._price(price, joined(at, "price")), effective_at, item.position)
            if effective_at in entries:
                line = entries[effective_at].position.line
                self._problems.add(item.position, f"{at} is for the same time as the price in line {line}")
            entries[effective_at] = entry
        return tuple(entries.values())

    def _price(self, node: Node, path: str) -> Any:
        def check(text: str) -> Any:
            return money.parse_price(text, "price")

        if isinstance(node, Scalar) and node.is_null:
            return None
        return self._checked(node, path, check, node.text if isinstance(node, Scalar) else "a list or mapping")

    def _time(self, node: Node, path: str) -> datetime | None:
        return self._checked(node, path, parse_time, node.text if isinstance(node, Scalar) else "a list or mapping")

    def _checked(self, node: Node, path: str, check: Callable[[str], _T], text: str) -> _T | None:
        try:
            return check(text)
        except ValidationError as error:
            shown = node.shown if isinstance(node, Scalar) else None
            self._problems.refuse(node.position, path, error, shown=shown)
            return None


def parse_time(text: str) -> datetime:
    """A time with its offset, or a date, which begins at midnight UTC. Raises ValidationError."""
    try:
        if len(text) == 10:
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        parsed = datetime.fromisoformat(text)
        if parsed.tzinfo is not None:
            return parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise ValidationError("effectiveAt", text, "a time with its offset (2026-12-01T00:00:00Z) or a date (2026-12-01)")


def print_time(value: datetime) -> str:
    """What `parse_time` reads."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def price_path(unit: UsageUnit, effective_at: datetime | None = None) -> str:
    return f"prices.{price_key(unit)}" + (f" from {print_time(effective_at)}" if effective_at is not None else "")


def _provider_name(text: str) -> str:
    return validation.name(text, "name")


def _keys(node: Node, path: str, known: tuple[str, ...], problems: Problems) -> Mapping[str, Node]:
    """The values by key. What is not known is refused, with the nearest key that is."""
    if not isinstance(node, Map):
        if not (isinstance(node, Scalar) and node.is_null):
            problems.add(node.position, f"{path} must be a mapping with {_listed(known)}")
        return {}
    for key, entry in node.entries.items():
        if key not in known:
            near = get_close_matches(key, known, 1, 0.5) or [
                name for name in known if name.lower() == key.replace("_", "").lower()
            ]
            hint = f"did you mean {near[0]!r}?" if near else f"it may have {_listed(known)}"
            problems.add(entry.position, f"{path} has an unknown key {key!r}; {hint}")
    return {key: entry.node for key, entry in node.entries.items() if key in known}


def _listed(known: tuple[str, ...]) -> str:
    return ", ".join(known[:-1]) + " and " + known[-1] if len(known) > 1 else known[0]

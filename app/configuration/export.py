"""Writes a catalog as a configuration file, from which a plan finds no difference to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

import yaml

from app.catalog.records import LlmModel, LlmProvider, UsageUnit
from app.catalog.snapshot import Snapshot
from app.configuration.document import print_time
from app.configuration.fields import MODEL_FIELDS, PROVIDER_FIELDS, Field, price_key
from app.configuration.interpolation import escape
from app.configuration.nodes import is_plain_text
from app.money import print_decimal

SCHEMA_FILE: Final = "tollgate.schema.json"
HEADER: Final = f"# yaml-language-server: $schema={SCHEMA_FILE}\n"
_BREAKS: Final = frozenset("\x85\u2028\u2029\ufeff")
_NEVER_FOLDED: Final = 1_000_000
_STRING: Final = "tag:yaml.org,2002:str"


def write_document(snapshot: Snapshot, *, at: datetime, workspace_id: str) -> str:
    """Prices are those in force `at`, and those with a later date."""
    providers = [_provider(snapshot, row, at) for row in snapshot.providers if row.workspace_id == workspace_id]
    settings = {setting.key: setting.value for setting in snapshot.settings}
    return HEADER + dump({"providers": providers, "settings": settings})


def dump(value: Mapping[str, Any]) -> str:
    """YAML that means the same to readers of YAML 1.1 and 1.2, with ${ escaped."""
    return str(
        yaml.dump(
            _escaped(value),
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=False,
            width=1_000_000,
        )
    )


def _provider(snapshot: Snapshot, row: LlmProvider, at: datetime) -> dict[str, Any]:
    return {
        "name": row.name,
        **_fields(PROVIDER_FIELDS, row),
        "models": [_model(snapshot, model, at) for model in snapshot.models_of(row.id)],
    }


def _model(snapshot: Snapshot, row: LlmModel, at: datetime) -> dict[str, Any]:
    prices = {
        price_key(unit): _prices(snapshot, row, unit, at) for unit in UsageUnit if snapshot.prices_of(row.id, unit)
    }
    return {"modelId": row.model_id, **_fields(MODEL_FIELDS, row), "prices": prices}


def _prices(snapshot: Snapshot, row: LlmModel, unit: UsageUnit, at: datetime) -> Any:
    in_force = snapshot.price_at(row.id, unit, at)
    price = None if in_force is None else in_force.price_per_million
    later = [entry for entry in snapshot.prices_of(row.id, unit) if entry.effective_at > at]
    if not later:
        return price
    dated = [{"price": entry.price_per_million, "effectiveAt": print_time(entry.effective_at)} for entry in later]
    return [{"price": price}, *dated]


def _fields(fields: Sequence[Field], row: LlmProvider | LlmModel) -> dict[str, Any]:
    """Nothing is left out, so that what is cleared here is cleared there."""
    values: dict[str, Any] = {}
    for field in fields:
        value = getattr(row, field.column)
        group, _, name = field.path.partition(".")
        if name:
            values.setdefault(group, {})[name] = value
        else:
            values[group] = value
    return values


def _escaped(value: Any) -> Any:
    """Variables are read in values, not in keys."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return escape(value) if type(value) is str else value


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
    # What YAML 1.1 takes for line breaks is escaped, since 1.2 takes it for text.
    style = '"' if _BREAKS.intersection(value) else "|" if "\n" in value else None if is_plain_text(value) else "'"
    return dumper.represent_scalar(_STRING, value, style=style)


def _decimal(dumper: yaml.SafeDumper, value: Decimal) -> yaml.Node:
    text = print_decimal(value)
    return dumper.represent_scalar(f"tag:yaml.org,2002:{'float' if '.' in text else 'int'}", text)


def _word(dumper: yaml.SafeDumper, value: StrEnum) -> yaml.Node:
    return dumper.represent_scalar(_STRING, value.value)


def _words(dumper: yaml.SafeDumper, value: tuple[str, ...]) -> yaml.Node:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", list(value), flow_style=True)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Decimal, _decimal)
_Dumper.add_representer(tuple, _words)
_Dumper.add_multi_representer(StrEnum, _word)

"""What pricing one call costs in time, against the bare formula and against libraries that do it as well."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec

import genai_prices

from app.catalog.snapshots import SnapshotHolder
from app.db.pool import Database
from app.prices.calculation import price_usage
from app.prices.records import Usage
from bench.table import Row, at_most
from seed.service import seed_reference

_REFERENCE = "openai:gpt-4o"
_REPEATS = 10
_MILLION = Decimal(1_000_000)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """What genai_prices reads of a usage."""

    input_tokens: int
    output_tokens: int


async def run(database: Database, seconds: float) -> list[Row]:
    """A call of 1,000 input and 500 output tokens of gpt-4o, priced with all that a receipt holds."""
    await seed_reference(database)
    snapshots = SnapshotHolder(database)
    await snapshots.refresh()
    snapshot = snapshots.current
    await snapshots.stop()
    model = snapshot.model_by_ref(_REFERENCE)
    assert model is not None
    model_id, usage, now = model.id, Usage(input_tokens=1_000, output_tokens=500), datetime.now(UTC)
    input_price, output_price = model.cost_input_per_million, model.cost_output_per_million
    assert input_price is not None
    assert output_price is not None

    def ours() -> object:
        return price_usage(usage, lambda unit: snapshot.price_at(model_id, unit, now))

    def formula() -> object:
        return (1_000 * input_price + 500 * output_price) / _MILLION

    tokens = _Tokens(1_000, 500)

    def theirs() -> object:
        return genai_prices.calc_price(tokens, model_ref="gpt-4o", provider_id="openai")

    slice_seconds = seconds / _REPEATS / 4
    own = _microseconds(ours, slice_seconds)
    rows = [at_most("cost of a call: dated prices, receipt with its lines", own, 5, "us")]
    peers: list[tuple[str, Callable[[], object]]] = [
        ("the bare formula", formula),
        ("genai_prices.calc_price", theirs),
    ]
    if (litellm := _litellm()) is not None:
        peers.append(("litellm.cost_per_token, in floats", litellm))
    for name, function in peers:
        peer = _microseconds(function, slice_seconds)
        rows.append(Row(f"cost of a call: {name}", f"{own:.2f} us", f"{peer:.2f} us", f"{peer / own:.2g}x"))
    return rows


def _litellm() -> Callable[[], object] | None:
    """An optional peer."""
    if find_spec("litellm") is None:
        return None
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it fetches its prices when imported
    cost_per_token: Callable[..., object] = import_module("litellm").cost_per_token
    return lambda: cost_per_token(model="gpt-4o", prompt_tokens=1_000, completion_tokens=500)


def _microseconds(function: Callable[[], object], seconds: float) -> float:
    """Of one call, as CPU time: the best of some rounds, for the least disturbed one says what the code takes."""
    function()
    count = 1
    while (taken := _time(function, count)) < seconds:
        count = max(count * 2, int(count * seconds / taken) if taken > 0 else 0)
    return min(_time(function, count) for _ in range(_REPEATS)) / count * 1e6


def _time(function: Callable[[], object], count: int) -> float:
    started = time.process_time()
    for _ in range(count):
        function()
    return time.process_time() - started

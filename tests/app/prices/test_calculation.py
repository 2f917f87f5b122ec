"""The cost of a call: exact, additive, each token billed once, and unknown where a price is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.snapshot import Snapshot
from app.errors import NotFound, PriceUnknown, ValidationError
from app.prices.calculation import calculate_cost, disjoint_parts, price_usage
from app.prices.records import CostReceipt, ModelPrice, Usage, UsageUnit
from app.prices.service import estimate_cost
from tests.app.catalog import make

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
TOKENS = (
    UsageUnit.INPUT_TOKENS,
    UsageUnit.OUTPUT_TOKENS,
    UsageUnit.CACHE_READ_TOKENS,
    UsageUnit.CACHE_WRITE_TOKENS,
)

prices = st.integers(0, 10**20 - 1).map(lambda units: Decimal(units).scaleb(-10))
counts = st.integers(0, 2**30)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    read, written, plain, output = (draw(counts) for _ in range(4))
    return Usage(read + written + plain, output, read, written)


def dated(unit: UsageUnit, price: Decimal | None, at: datetime = NOON) -> ModelPrice:
    return ModelPrice(f"{unit}@{at.isoformat()}", "m1", unit, price, "USD", at, at)


def priced(usage: Usage, rates: Mapping[UsageUnit, Decimal | None]) -> CostReceipt:
    return price_usage(usage, lambda unit: dated(unit, rates[unit]) if unit in rates else None)


def reference_models() -> list[Any]:
    data = json.loads(files("seed").joinpath("data/reference.json").read_text())
    return [
        (f"{provider['name']}:{model['model_id']}", model["input"], model["output"])
        for provider in data["providers"]
        for model in provider["models"]
    ]


@pytest.mark.parametrize("counted", [(0, 0), (1, 0), (0, 1), (1234, 567), (999_999, 1_000_001), (2**31 - 1, 2**31 - 1)])
@pytest.mark.parametrize(("ref", "cost_input", "cost_output"), reference_models())
def test_the_reference_s_formula_holds_for_every_seeded_model(
    ref: str, cost_input: str, cost_output: str, counted: tuple[int, int]
) -> None:
    input_tokens, output_tokens = counted
    rates = {UsageUnit.INPUT_TOKENS: Decimal(cost_input), UsageUnit.OUTPUT_TOKENS: Decimal(cost_output)}
    expected = (Fraction(input_tokens) * Fraction(cost_input) + Fraction(output_tokens) * Fraction(cost_output)) / 10**6
    cost = calculate_cost(input_tokens, output_tokens, *rates.values())
    assert Fraction(cost) == expected
    assert priced(Usage(input_tokens, output_tokens), rates).total == cost


def test_the_reference_has_seventeen_models() -> None:
    assert len(reference_models()) == 17


@given(usages(), prices, prices, prices, prices)
def test_a_total_is_the_exact_sum_over_disjoint_parts(
    usage: Usage, rate_in: Decimal, rate_out: Decimal, rate_read: Decimal, rate_written: Decimal
) -> None:
    receipt = priced(usage, dict(zip(TOKENS, (rate_in, rate_out, rate_read, rate_written), strict=True)))
    plain = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    expected = (
        plain * Fraction(rate_in)
        + usage.output_tokens * Fraction(rate_out)
        + usage.cache_read_tokens * Fraction(rate_read)
        + usage.cache_write_tokens * Fraction(rate_written)
    ) / 10**6
    assert receipt.total is not None
    assert Fraction(receipt.total) == expected
    assert sum(Fraction(line.amount) for line in receipt.lines if line.amount is not None) == expected


@given(usages())
def test_every_token_is_in_exactly_one_part(usage: Usage) -> None:
    parts = disjoint_parts(usage)
    assert sum(quantity for _, quantity in parts) == usage.total_tokens
    assert len({unit for unit, _ in parts}) == len(parts)
    assert all(quantity >= 0 for _, quantity in parts)


@given(usages(), usages(), prices, prices)
def test_two_calls_cost_what_their_sum_costs(first: Usage, second: Usage, rate_in: Decimal, rate_out: Decimal) -> None:
    rates = {UsageUnit.INPUT_TOKENS: rate_in, UsageUnit.OUTPUT_TOKENS: rate_out}
    together = Usage(
        first.input_tokens + second.input_tokens,
        first.output_tokens + second.output_tokens,
        first.cache_read_tokens + second.cache_read_tokens,
        first.cache_write_tokens + second.cache_write_tokens,
    )
    parts = [priced(usage, rates).total for usage in (first, second)]
    total = priced(together, rates).total
    assert total is not None
    assert sum(Fraction(part) for part in parts if part is not None) == Fraction(total)


@given(usages(), prices, prices)
def test_cached_tokens_without_a_price_of_their_own_cost_what_input_costs(
    usage: Usage, rate_in: Decimal, rate_out: Decimal
) -> None:
    rates = {UsageUnit.INPUT_TOKENS: rate_in, UsageUnit.OUTPUT_TOKENS: rate_out}
    uncached = Usage(usage.input_tokens, usage.output_tokens)
    assert priced(usage, rates).total == priced(uncached, rates).total


@pytest.mark.parametrize("rates", [{}, {UsageUnit.INPUT_TOKENS: None, UsageUnit.OUTPUT_TOKENS: None}])
@pytest.mark.parametrize("usage", [Usage(1, 0), Usage(0, 1), Usage(5, 5, 5)])
def test_an_unknown_price_is_unknown_and_never_zero(usage: Usage, rates: dict[UsageUnit, Decimal | None]) -> None:
    receipt = priced(usage, rates)
    assert receipt.total is None
    assert all(line.amount is None for line in receipt.lines if line.quantity)


def test_one_unknown_price_makes_the_total_unknown_but_not_the_other_lines() -> None:
    receipt = priced(Usage(10, 10), {UsageUnit.INPUT_TOKENS: Decimal(3)})
    assert receipt.total is None
    assert [line.amount for line in receipt.lines] == [Decimal("0.00003"), None]


def test_an_unused_unit_needs_no_price() -> None:
    assert priced(Usage(0, 2), {UsageUnit.OUTPUT_TOKENS: Decimal(4)}).total == Decimal("0.000008")
    assert priced(Usage(0, 0), {}).total == 0


def test_a_price_of_zero_is_a_price() -> None:
    free = {UsageUnit.INPUT_TOKENS: Decimal(0), UsageUnit.OUTPUT_TOKENS: Decimal(0)}
    assert priced(Usage(10, 10), free).total == 0


@pytest.mark.parametrize(
    ("usage", "field"),
    [
        (Usage(-1, 0), "input_tokens"),
        (Usage(0, -1), "output_tokens"),
        (Usage(0, 0, -1), "cache_read_tokens"),
        (Usage(0, 0, 0, -1), "cache_write_tokens"),
        (Usage(9, 0, 10), "input_tokens"),
        (Usage(9, 0, 5, 5), "input_tokens"),
    ],
)
def test_counts_that_contradict_each_other_are_refused(usage: Usage, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        disjoint_parts(usage)
    assert caught.value.field == field


def snapshot_with(*prices: ModelPrice) -> Snapshot:
    model = make.model("acme", "chat-1")
    return Snapshot(1, [make.provider("acme")], [model], [replace(price, model_id=model.id) for price in prices])


def test_a_dated_price_holds_from_its_very_instant() -> None:
    before, after = Decimal(2), Decimal(3)
    snapshot = snapshot_with(
        dated(UsageUnit.INPUT_TOKENS, after, NOON), dated(UsageUnit.INPUT_TOKENS, before, NOON - timedelta(days=1))
    )

    def cost_at(at: datetime) -> Decimal | None:
        return estimate_cost(snapshot, "acme:chat-1", Usage(10**6, 0), workspace_id="default", at=at).total

    assert cost_at(NOON - INSTANT) == before
    assert cost_at(NOON) == after
    assert cost_at(NOON + timedelta(days=400)) == after
    with pytest.raises(PriceUnknown, match="INPUT_TOKENS"):
        cost_at(NOON - timedelta(days=1) - INSTANT)


def test_a_price_that_becomes_unknown_is_unknown_from_then_on() -> None:
    snapshot = snapshot_with(
        dated(UsageUnit.INPUT_TOKENS, Decimal(1), NOON - timedelta(days=1)), dated(UsageUnit.INPUT_TOKENS, None, NOON)
    )
    with pytest.raises(PriceUnknown):
        estimate_cost(snapshot, "acme:chat-1", Usage(1, 0), workspace_id="default", at=NOON)


@pytest.mark.parametrize(
    ("model", "workspace"), [("acme:none", "default"), ("acme:chat-1", "other"), ("none", "default")]
)
def test_the_cost_of_a_model_that_is_not_there_is_not_found(model: str, workspace: str) -> None:
    with pytest.raises(NotFound):
        estimate_cost(snapshot_with(), model, Usage(1, 1), workspace_id=workspace, at=NOON)

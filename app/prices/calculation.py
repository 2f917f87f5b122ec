"""The cost of a call: the sum over the disjoint parts of its usage, exact, each part at its dated price."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from app.errors import ValidationError
from app.money import add, amount_for
from app.prices.records import CURRENCY, CostLine, CostReceipt, ModelPrice, Usage, UsageUnit

PriceLookup = Callable[[UsageUnit], ModelPrice | None]

_ZERO = Decimal(0)
_COUNTS = (
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "images",
    "characters",
    "seconds",
    "searches",
)
_CACHE_UNITS = (UsageUnit.CACHE_READ_TOKENS, UsageUnit.CACHE_WRITE_TOKENS)


def calculate_cost(
    input_tokens: int,
    output_tokens: int,
    cost_input_per_million: Decimal,
    cost_output_per_million: Decimal,
) -> Decimal:
    """The cost at two plain prices per 1,000,000 tokens, exactly."""
    return add(amount_for(input_tokens, cost_input_per_million), amount_for(output_tokens, cost_output_per_million))


def disjoint_parts(usage: Usage) -> list[tuple[UsageUnit, int | Decimal]]:
    """Each token once: cached input is taken out of the input. Raises ValidationError where the counts contradict."""
    for field in _COUNTS:
        if (value := getattr(usage, field)) < 0:
            raise ValidationError(field, value, "at least 0")
    plain_input = usage.input_tokens - usage.cache_read_tokens - usage.cache_write_tokens
    if plain_input < 0:
        cached = usage.cache_read_tokens + usage.cache_write_tokens
        raise ValidationError("input_tokens", usage.input_tokens, f"at least the {cached} cached tokens it includes")
    if usage.reasoning_tokens > usage.output_tokens:
        raise ValidationError(
            "output_tokens", usage.output_tokens, f"at least the {usage.reasoning_tokens} reasoning tokens it includes"
        )
    parts: list[tuple[UsageUnit, int | Decimal]] = [
        (UsageUnit.INPUT_TOKENS, plain_input),
        (UsageUnit.OUTPUT_TOKENS, usage.output_tokens),
    ]
    if usage.cache_read_tokens:
        parts.append((UsageUnit.CACHE_READ_TOKENS, usage.cache_read_tokens))
    if usage.cache_write_tokens:
        parts.append((UsageUnit.CACHE_WRITE_TOKENS, usage.cache_write_tokens))
    return parts


def _other_parts(usage: Usage) -> list[tuple[UsageUnit, int | Decimal]]:
    counts: tuple[tuple[UsageUnit, int | Decimal], ...] = (
        (UsageUnit.IMAGES, usage.images),
        (UsageUnit.CHARACTERS, usage.characters),
        (UsageUnit.SECONDS, usage.seconds),
        (UsageUnit.SEARCHES, usage.searches),
    )
    return [(unit, quantity) for unit, quantity in counts if quantity]


def price_usage(usage: Usage, price_of: PriceLookup) -> CostReceipt:
    """The receipt for `usage`. Cached tokens without a price of their own cost what other input costs.

    A model is priced by its tokens or by a unit of its own, such as images: a unit of its own that has no price is
    left out where there are tokens to pay for, and makes the total unknown where there are none.
    """
    lines: list[CostLine] = []
    total: Decimal | None = _ZERO
    parts = disjoint_parts(usage)
    if usage.images or usage.characters or usage.seconds or usage.searches:
        has_tokens = any(quantity for _, quantity in parts)
        parts = [part for part in parts if part[1]]
        parts += [part for part in _other_parts(usage) if not has_tokens or price_of(part[0]) is not None]
    for unit, quantity in parts:
        price = price_of(unit)
        if price is None and unit in _CACHE_UNITS:
            price = price_of(UsageUnit.INPUT_TOKENS)
        rate = price.price_per_million if price is not None else None
        amount = amount_for(quantity, rate) if rate is not None else (_ZERO if quantity == 0 else None)
        lines.append(CostLine(unit, quantity, price, amount))
        total = None if total is None or amount is None else add(total, amount)
    return CostReceipt(total, CURRENCY, tuple(lines))

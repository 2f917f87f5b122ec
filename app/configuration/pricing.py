"""What a file's prices of one unit add to the dated ones. A dated price is never changed, only followed by another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Final

from app.catalog.records import ModelPrice, UsageUnit
from app.configuration.document import price_path, print_time
from app.configuration.records import Difference, NewPrice, Position, PriceEntry
from app.money import print_decimal

LIST_PRICE_FOLLOWS: Final = "in force already; the list price follows"


@dataclass(slots=True)
class PriceDecision:
    """`listed`, if any, holds the new value of the model's own column, which a trigger appends."""

    prices: list[NewPrice] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    listed: tuple[Decimal | None] | None = None
    problems: list[tuple[Position, str]] = field(default_factory=list)


def decide_prices(
    unit: UsageUnit,
    entries: Sequence[PriceEntry],
    present: Sequence[ModelPrice],
    *,
    listed: Decimal | None,
    has_column: bool,
    at: datetime,
) -> PriceDecision:
    """`present`: oldest first. The file's price in force is its newest dated one, or else the one without a date."""
    decision = PriceDecision()
    known = {price.effective_at: price.price_per_million for price in present}
    before = _in_force(known, at)
    wanted = None
    for entry in sorted(entries, key=lambda entry: (entry.effective_at is not None, entry.effective_at or at)):
        if entry.effective_at is None:
            wanted = entry
            continue
        if entry.effective_at <= at:
            wanted = entry
        if entry.effective_at not in known:
            decision.prices.append(NewPrice(unit, entry.price, entry.effective_at))
            decision.differences.append(Difference(price_path(unit, entry.effective_at), None, _shown(entry.price)))
        elif known[entry.effective_at] != entry.price:
            there = _shown(known[entry.effective_at]) or "unknown"
            decision.problems.append(
                (
                    entry.position,
                    f"must stay {there} from {print_time(entry.effective_at)}: dated prices are never changed; "
                    "add one with a later effectiveAt",
                )
            )
    if wanted is None:
        return decision
    after = _in_force(known | {price.effective_at: price.price for price in decision.prices if price.effective_at}, at)
    lags = has_column and wanted.effective_at is not None and listed != wanted.price
    if after != wanted.price or lags:
        if after != wanted.price:
            difference = Difference(price_path(unit), _shown(before), _shown(wanted.price))
        else:
            difference = Difference(price_path(unit), _shown(listed), _shown(wanted.price), LIST_PRICE_FOLLOWS)
        decision.differences.append(difference)
        if has_column and listed != wanted.price:
            decision.listed = (wanted.price,)
        else:
            decision.prices.append(NewPrice(unit, wanted.price, None))
    return decision


def _in_force(known: dict[datetime, Decimal | None], at: datetime) -> Decimal | None:
    times = [time for time in known if time <= at]
    return known[max(times)] if times else None


def _shown(price: Decimal | None) -> str | None:
    return None if price is None else print_decimal(price)

"""What the ledger's lines of a time come to."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from app.db.rows import UsageUnit

__all__ = ["UsageLine", "UsageSummary", "UsageUnit"]


@dataclass(frozen=True, slots=True)
class UsageLine:
    """All of one unit. `amount` leaves out what had no price when it was used."""

    unit: UsageUnit
    quantity: Decimal
    amount: Decimal


@dataclass(frozen=True, slots=True)
class UsageSummary:
    """`requests` that were charged, by `calls` of a provider: a retried request may have several.

    `total` is the exact sum of the lines' amounts. `unpriced_calls` used a unit whose price was not known: what they
    came to is in no amount. `estimated_calls` have counts that the provider did not give.
    """

    requests: int
    calls: int
    estimated_calls: int
    unpriced_calls: int
    total: Decimal
    currency: str
    lines: tuple[UsageLine, ...]

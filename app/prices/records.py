"""What a call used, and what it came to."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from app.db.rows import ModelPrice, UsageUnit

__all__ = ["CostLine", "CostReceipt", "ModelPrice", "Usage", "UsageUnit"]

CURRENCY = "USD"


@dataclass(frozen=True, slots=True)
class Usage:
    """The counts of one call, all >= 0.

    `cache_read_tokens` and `cache_write_tokens` are included in `input_tokens`, `reasoning_tokens` in
    `output_tokens`. `images` were generated, `characters` spoken, `seconds` of audio heard or of video generated (at
    most 2 decimals), `searches` ranked. `estimated`: the provider did not say, so the counts are an estimate.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    images: int = 0
    characters: int = 0
    seconds: Decimal = Decimal(0)
    searches: int = 0
    estimated: bool = False

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class CostLine(NamedTuple):
    """`quantity` units at a dated price. `price` and `amount` are null where no price was known."""

    unit: UsageUnit
    quantity: int | Decimal
    price: ModelPrice | None
    amount: Decimal | None


class CostReceipt(NamedTuple):
    """`total` is the exact sum of the lines' amounts; null where a used unit has no known price."""

    total: Decimal | None
    currency: str
    lines: tuple[CostLine, ...]

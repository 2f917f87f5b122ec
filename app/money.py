"""Money: one Decimal context, one way to parse it, one way to print it.

Prices are per 1,000,000 units with at most 10 decimals; a cost has at most 18. Sums and products of such values are
exact in 60 digits, so nothing is ever rounded; a value that would need rounding is an error.
"""

from __future__ import annotations

from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow
from typing import Final

from app.errors import ValidationError

EXACT: Final = Context(prec=60, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
"""Raises instead of rounding."""

PRICE_SCALE: Final = 10
COST_SCALE: Final = 18
MAX_PRICE: Final = Decimal(10) ** 10
"""A price is below this: the column is NUMERIC(20, 10)."""


def amount_for(quantity: int | Decimal, price_per_million: Decimal) -> Decimal:
    """What `quantity` units come to, exactly. A quantity has at most 2 decimals."""
    return EXACT.scaleb(EXACT.multiply(Decimal(quantity), price_per_million), -6)


def add(first: Decimal, second: Decimal) -> Decimal:
    """The exact sum."""
    return EXACT.add(first, second)


def parse_price(text: str | int | Decimal, field: str) -> Decimal:
    """A price >= 0 with at most 10 decimals. Raises ValidationError; a float is refused, since it is not exact."""
    bound = f"a decimal of at least 0, below {MAX_PRICE}, with at most {PRICE_SCALE} decimals"
    if isinstance(text, (bool, float)):
        raise ValidationError(field, text, bound)
    try:
        value = Decimal(text)
    except (InvalidOperation, ValueError, TypeError):
        raise ValidationError(field, text, bound) from None
    # The number of digits is bounded before anything prints them: "1e-999999999" has nine hundred million.
    if not value.is_finite() or value < 0 or value >= MAX_PRICE or (value and abs(value.adjusted()) > PRICE_SCALE):
        raise ValidationError(field, text, bound)
    plain = normalize(value) if value else Decimal(0)
    if -int(plain.as_tuple().exponent) > PRICE_SCALE:
        raise ValidationError(field, text, bound)
    return plain


def normalize(value: Decimal) -> Decimal:
    """The same value without trailing zeros, and without an exponent when printed by `print_decimal`."""
    return Decimal(print_decimal(value))


def print_decimal(value: Decimal) -> str:
    """A plain decimal string: no exponent, no trailing zeros, no minus zero ("2.5", "0.00875", "0")."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text

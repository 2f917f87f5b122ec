"""Money is exact: whatever goes in comes out, to the last digit, or is refused."""

from __future__ import annotations

from decimal import Decimal, Inexact, localcontext
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import ValidationError
from app.money import EXACT, MAX_PRICE, PRICE_SCALE, add, amount_for, normalize, parse_price, print_decimal

prices = st.integers(0, 10**20 - 1).map(lambda units: Decimal(units).scaleb(-PRICE_SCALE))
quantities = st.integers(0, 2**31 - 1)
decimals = st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=-(10**15), max_value=10**15)


@given(quantities, prices)
def test_an_amount_is_the_exact_product(quantity: int, price: Decimal) -> None:
    assert Fraction(amount_for(quantity, price)) == Fraction(quantity) * Fraction(price) / 1_000_000


@given(quantities, quantities, prices)
def test_amounts_add_up_however_a_quantity_is_split(first: int, second: int, price: Decimal) -> None:
    assert add(amount_for(first, price), amount_for(second, price)) == amount_for(first + second, price)


@given(st.lists(decimals, max_size=30), st.randoms())
def test_a_sum_does_not_depend_on_its_order(amounts: list[Decimal], random: object) -> None:
    shuffled = list(amounts)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis types its Random as object
    totals = []
    for order in (amounts, shuffled):
        total = Decimal(0)
        for amount in order:
            total = add(total, amount)
        totals.append(total)
    assert totals[0] == totals[1]
    assert Fraction(totals[0]) == sum(map(Fraction, amounts), Fraction(0))


@given(quantities, prices)
def test_the_thread_s_own_decimal_context_has_no_say(quantity: int, price: Decimal) -> None:
    with localcontext() as context:
        context.prec = 2
        assert Fraction(amount_for(quantity, price)) == Fraction(quantity) * Fraction(price) / 1_000_000
        assert print_decimal(price) == print_decimal(normalize(price))


def test_what_would_need_rounding_is_an_error() -> None:
    with pytest.raises(Inexact):
        add(Decimal(10) ** 50, Decimal("1e-50"))
    with pytest.raises(Inexact):
        EXACT.divide(Decimal(1), Decimal(3))


@given(prices)
def test_a_printed_price_is_read_back_as_itself(price: Decimal) -> None:
    text = print_decimal(price)
    assert parse_price(text, "price") == price
    assert print_decimal(parse_price(text, "price")) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=Decimal("-1e40"), max_value=Decimal("1e40")))
def test_a_decimal_is_printed_plainly(value: Decimal) -> None:
    text = print_decimal(value)
    assert Decimal(text) == value
    assert "e" not in text.lower()
    assert "." not in text or not text.endswith(("0", "."))
    assert text != "-0"


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("2.50", "2.5"),
        ("0.00875", "0.00875"),
        ("-0.00", "0"),
        ("1E+5", "100000"),
        ("100", "100"),
        ("1e-10", "0.0000000001"),
    ],
)
def test_zeros_and_exponents_do_not_show(text: str, printed: str) -> None:
    assert print_decimal(Decimal(text)) == printed


@pytest.mark.parametrize("text", ["0", "-0", "0e999999999", "0.0000000001", "9999999999.9999999999", "00012.500", 7])
def test_a_price_within_bounds_is_taken(text: str | int) -> None:
    assert parse_price(text, "price") == Decimal(text)


@pytest.mark.parametrize(
    "text",
    [
        "NaN",
        "sNaN",
        "inf",
        "-Infinity",
        "1e-999999999",
        "1e999999999",
        "-1",
        "-0.0000000001",
        "0.00000000001",
        "10000000000",
        "9999999999.99999999999",
        "",
        "two",
        "0x10",
        Decimal("1e-11"),
        MAX_PRICE,
        2.5,
        0.0,
        True,
    ],
)
def test_a_bad_price_is_refused_with_field_value_and_bound(text: str | Decimal) -> None:
    with pytest.raises(ValidationError) as caught:
        parse_price(text, "costInputPerMillion")
    error = caught.value
    assert (error.field, error.path) == ("costInputPerMillion", ("costInputPerMillion",))
    assert error.value is text
    assert "at least 0" in error.bound
    assert "10 decimals" in error.bound
    assert repr(text) in error.message


@given(st.floats())
def test_no_float_is_ever_a_price(value: float) -> None:
    with pytest.raises(ValidationError):
        parse_price(value, "price")  # type: ignore[arg-type]  # what the types forbid must be refused at run time too

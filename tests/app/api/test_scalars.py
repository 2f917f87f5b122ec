from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from graphql import GraphQLError
from hypothesis import given
from hypothesis import strategies as st

from app.api.scalars import parse_datetime, parse_decimal, parse_json, print_datetime
from app.money import print_decimal


@given(st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=0, max_value=10**9))
def test_a_decimal_comes_back_as_it_was_sent(value: Decimal) -> None:
    assert parse_decimal(print_decimal(value)) == value


@pytest.mark.parametrize("value", [0.1, True, None, [], "x", "", "NaN", "Infinity", "1e100", "1" * 61, " "])
def test_what_is_no_exact_decimal_is_refused(value: Any) -> None:
    with pytest.raises(GraphQLError):
        parse_decimal(value)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_comes_back_as_it_was_sent(value: datetime) -> None:
    printed = print_datetime(value)
    assert printed.endswith("Z")
    assert parse_datetime(printed) == value


def test_an_offset_is_turned_into_utc() -> None:
    assert parse_datetime("2026-01-31T12:00:00+02:00") == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert parse_datetime("2026-01-31T12:00:00+02:00").utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "value", ["2026-01-31T12:00:00", "2026-13-01T00:00:00Z", "now", 7, "9999-12-31T23:59:59-23:00"]
)
def test_a_time_without_offset_or_out_of_range_is_refused(value: Any) -> None:
    with pytest.raises(GraphQLError):
        parse_datetime(value)


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "a\0", {"a\0": 1}, float("nan"), [[float("inf")]]])
def test_json_that_no_database_can_hold_is_refused(value: Any) -> None:
    with pytest.raises(GraphQLError):
        parse_json(value)


def test_json_nested_without_end_is_refused() -> None:
    value: Any = []
    for _ in range(200):
        value = [value]
    with pytest.raises(GraphQLError, match="nested"):
        parse_json(value)

"""Durations and instants of a command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from app.durations import parse_duration, parse_instant
from app.errors import ValidationError

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("1s", timedelta(seconds=1)),
        ("60s", timedelta(minutes=1)),
        ("90m", timedelta(minutes=90)),
        ("36h", timedelta(days=1.5)),
        ("90d", timedelta(days=90)),
        ("12w", timedelta(weeks=12)),
        ("36500d", timedelta(days=36500)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, duration: timedelta) -> None:
    assert parse_duration(text, "--older-than") == duration


@pytest.mark.parametrize(
    "text", ["", "90", "d", "-1d", "1.5d", "1 d", "1d\n", "90D", "0s", "36501d", "9" * 400 + "w", "٩d"]
)
def test_what_is_no_duration_is_refused_by_field_and_bound(text: str) -> None:
    with pytest.raises(ValidationError, match=r"^--older-than must be (a whole number|at least 1s and at most 36500d)"):
        parse_duration(text, "--older-than")


def test_a_duration_has_a_bound_of_its_own() -> None:
    assert parse_duration("60m", "x", at_least="1h") == timedelta(hours=1)
    with pytest.raises(ValidationError, match="x must be at least 1h and at most 36500d, not '59m'"):
        parse_duration("59m", "x", at_least="1h")


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2h", NOW - timedelta(hours=2)),
        ("36500d", NOW - timedelta(days=36500)),
        ("2026-02-01", datetime(2026, 2, 1, tzinfo=UTC)),
        ("2026-02-01T10:00:00Z", datetime(2026, 2, 1, 10, tzinfo=UTC)),
        ("2026-02-01T10:00:00.25", datetime(2026, 2, 1, 10, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-02-01T10:00+02:00", datetime(2026, 2, 1, 8, tzinfo=UTC)),
    ],
)
def test_an_instant_is_iso_or_counts_back(text: str, instant: datetime) -> None:
    assert parse_instant(text, "--since", now=NOW) == instant


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "0s", "36501d"])
def test_what_is_no_instant_is_refused_by_field(text: str) -> None:
    with pytest.raises(ValidationError, match=r"^--since must be "):
        parse_instant(text, "--since", now=NOW)

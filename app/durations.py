"""Lengths of time and instants as they are written on a command line: "90d", "2026-11-01T12:00:00Z"."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from app.errors import ValidationError

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION: Final = re.compile(r"([0-9]+)([smhdw])")
_MOST: Final = 36_500 * _UNITS["d"]
_A_DURATION: Final = "a whole number of s, m, h, d or w, such as 90d"


def parse_duration(text: str, field: str, *, at_least: str = "1s") -> timedelta:
    """At most a hundred years. Raises ValidationError that names `field`."""
    seconds, least = _seconds(text), _seconds(at_least)
    assert least is not None
    if seconds is None:
        raise ValidationError(field, text, _A_DURATION)
    if not least <= seconds <= _MOST:
        raise ValidationError(field, text, f"at least {at_least} and at most 36500d")
    return timedelta(seconds=seconds)


def parse_instant(text: str, field: str, *, now: datetime) -> datetime:
    """An ISO 8601 date or time, UTC where it names no zone, or a duration that counts back from `now`."""
    if _DURATION.fullmatch(text):
        return now - parse_duration(text, field)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise ValidationError(field, text, f"an ISO 8601 time, or {_A_DURATION}") from None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _seconds(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    return None if match is None else int(match[1]) * _UNITS[match[2]]

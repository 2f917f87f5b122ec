"""How long a video is asked to be: what it is billed by, in every protocol."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from app.errors import InvalidRequest

DEFAULT_SECONDS: Final = 4
"""OpenAI's. It is asked for in so many words of every provider, so that what is billed is never a guess."""
_MAX_SECONDS: Final = 3600


def video_seconds(parameters: Mapping[str, Any]) -> Decimal:
    """The parameter `seconds`, a number or its text. Raises InvalidRequest."""
    value = parameters.get("seconds")
    if value is None:
        return Decimal(DEFAULT_SECONDS)
    try:
        seconds = Decimal(str(value))
        if isinstance(value, bool) or not 0 < seconds <= _MAX_SECONDS:
            raise InvalidOperation
    except InvalidOperation:
        raise InvalidRequest(f"seconds must be a number above 0, not {str(value)[:40]!r}") from None
    return seconds

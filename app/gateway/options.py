"""What a client says to Tollgate itself, in headers beside the provider's protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from app.errors import ValidationError

PREFIX: Final = "x-tollgate-"
KNOWN_OPTIONS: Final = ("fallbacks", "on-disconnect", "priority", "wait-seconds")
MAX_WAIT_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class GatewayOptions:
    """`wait_seconds`: how long the call may wait for its permit. `detaches`: it goes on when its client hangs up."""

    priority: int
    wait_seconds: float
    detaches: bool
    fallbacks: tuple[str, ...]


def read_options(headers: Mapping[str, str], *, default_wait_seconds: float) -> GatewayOptions:
    """From lower-case headers. Raises ValidationError naming the header; one that is not known is refused."""
    for name, value in headers.items():
        if name.startswith(PREFIX) and name.removeprefix(PREFIX) not in KNOWN_OPTIONS:
            raise ValidationError(
                name, value, f"left out: known are {', '.join(PREFIX + item for item in KNOWN_OPTIONS)}"
            )
    return GatewayOptions(
        priority=_priority(headers.get(f"{PREFIX}priority")),
        wait_seconds=_wait(headers.get(f"{PREFIX}wait-seconds"), default_wait_seconds),
        detaches=_detaches(headers.get(f"{PREFIX}on-disconnect")),
        fallbacks=tuple(filter(None, (item.strip() for item in headers.get(f"{PREFIX}fallbacks", "").split(",")))),
    )


def _priority(text: str | None) -> int:
    if text is None:
        return 0
    try:
        return int(text)
    except ValueError:
        raise ValidationError(f"{PREFIX}priority", text, "a whole number") from None


def _wait(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise ValidationError(f"{PREFIX}wait-seconds", text, f"a number of seconds between 0 and {MAX_WAIT_SECONDS:g}")
    return seconds


def _detaches(text: str | None) -> bool:
    if text not in (None, "cancel", "detach"):
        raise ValidationError(f"{PREFIX}on-disconnect", text, "cancel or detach")
    return text == "detach"

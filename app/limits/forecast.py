"""When a call that came now would get its permit: an estimate, for clients that are asked to come back later."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WindowStart:
    """A start that still counts: in how many seconds it leaves the window, and its tokens, settled or else reserved."""

    leaves_in_seconds: float
    tokens: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """What stands before a new call of one provider, in all processes.

    `span_seconds`: how long a start counts. `window` is in order of the starts. `call_seconds`: how long the calls of
    the window took on average, those that run until now; None where there is none. `circuit_seconds`: for how long
    the provider's circuit stays open.
    """

    max_parallel: int
    requests_per_minute: int
    tokens_per_minute: int | None
    span_seconds: float
    running: int
    waiting: int
    waiting_tokens: int
    window: Sequence[WindowStart] = ()
    call_seconds: float | None = None
    circuit_seconds: float = 0.0


def seconds_until_permit(backlog: Backlog, *, tokens: int) -> float:
    """For a call that reserves `tokens` and goes behind all that wait, if each permit is used when it comes free."""
    return max(backlog.circuit_seconds, _by_places(backlog), _by_requests(backlog), _by_tokens(backlog, tokens))


def _by_places(backlog: Backlog) -> float:
    """`max_parallel` calls of average length end in the time of one."""
    ends_needed = backlog.running + backlog.waiting + 1 - backlog.max_parallel
    if ends_needed <= 0 or backlog.call_seconds is None:
        return 0.0
    return ends_needed * backlog.call_seconds / backlog.max_parallel


def _by_requests(backlog: Backlog) -> float:
    """Each start frees its permit when it leaves the window; who takes that one frees it a whole window later."""
    windows, place = divmod(backlog.waiting, backlog.requests_per_minute)
    leaving = place - (backlog.requests_per_minute - len(backlog.window))
    return windows * backlog.span_seconds + (backlog.window[leaving].leaves_in_seconds if leaving >= 0 else 0.0)


def _by_tokens(backlog: Backlog, tokens: int) -> float:
    if backlog.tokens_per_minute is None:
        return 0.0
    windows, rest = divmod(max(1, backlog.waiting_tokens + tokens) - 1, backlog.tokens_per_minute)
    free = backlog.tokens_per_minute - sum(start.tokens for start in backlog.window)
    seconds = 0.0
    for start in backlog.window:
        if free > rest:
            break
        free += start.tokens
        seconds = start.leaves_in_seconds
    return windows * backlog.span_seconds + seconds

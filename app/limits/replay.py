"""The proof of adherence: replays every sliding window over a start log, knowing nothing of how it came about."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.limits.records import Start


@dataclass(frozen=True, slots=True)
class LimitSetting:
    """The limits in force from `since` on, until the next setting's `since`. None: not limited."""

    since: datetime
    max_parallel: int
    requests_per_window: int
    tokens_per_window: int | None


@dataclass(frozen=True, slots=True)
class Violation:
    """At `at`, the instant of a start, `observed` was above `limit`. `kind`: "parallel", "requests" or "tokens"."""

    kind: str
    at: datetime
    observed: int
    limit: int
    sequence: int


def replay(starts: Iterable[Start], settings: Sequence[LimitSetting], *, window: timedelta) -> list[Violation]:
    """Every violation, in order of time.

    A window is worst when it ends at a start, so the windows (start - window, start] are all that need looking at.
    Each start is judged by the setting in force at its instant; starts of before a lowered limit still count.
    """
    ordered = sorted(starts, key=lambda start: (start.started_at, start.sequence))
    recent: deque[Start] = deque()
    running: list[Start] = []
    tokens = 0
    violations: list[Violation] = []
    for start in ordered:
        now = start.started_at
        while recent and recent[0].started_at <= now - window:
            tokens -= recent.popleft().tokens
        running = [other for other in running if other.ended_at is None or other.ended_at > now]
        recent.append(start)
        running.append(start)
        tokens += start.tokens
        setting = _in_force(settings, now)
        checks: list[tuple[str, int, int | None]] = [
            ("parallel", len(running), setting.max_parallel),
            ("requests", len(recent), setting.requests_per_window),
            ("tokens", tokens, setting.tokens_per_window),
        ]
        for kind, observed, limit in checks:
            if limit is not None and observed > limit:
                violations.append(Violation(kind, now, observed, limit, start.sequence))
    return violations


def _in_force(settings: Sequence[LimitSetting], at: datetime) -> LimitSetting:
    chosen = settings[0]
    for setting in settings:
        if setting.since <= at:
            chosen = setting
    return chosen

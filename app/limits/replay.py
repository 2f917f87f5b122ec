"""The proof of adherence: replays every sliding window over a start log, knowing nothing of how it came about."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from heapq import heappop, heappush
from typing import Final

from app.limits.records import Start

KINDS: Final = ("parallel", "requests", "tokens")
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


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


@dataclass(frozen=True, slots=True)
class Peak:
    """The most that was seen of one kind, measured by its limit at that instant; None: not limited."""

    at: datetime
    observed: int
    limit: int | None

    def is_below(self, observed: int, limit: int | None) -> bool:
        if self.limit is None or limit is None:
            return self.limit is None and (limit is not None or observed > self.observed)
        return observed * self.limit > self.observed * limit


class Replay:
    """Judges the starts of one provider, one after the other, and remembers no more of them than a window.

    A window is worst when it ends at a start, so the windows (start - window, start] are all that need looking at.
    Each start is judged by the setting in force at its instant; starts of before a lowered limit still count. Starts
    before `judged_from` only count.
    """

    def __init__(
        self, settings: Sequence[LimitSetting], *, window: timedelta, judged_from: datetime | None = None
    ) -> None:
        """`settings` is in order of `since`; the first one holds for what lies before it too."""
        self.starts = 0
        self.first_at: datetime | None = None
        self.last_at: datetime | None = None
        self.peaks: dict[str, Peak] = {}
        self._settings = deque(settings)
        self._window = window
        self._judged_from = judged_from
        self._recent: deque[Start] = deque()
        self._tokens = 0
        self._ends: list[datetime] = []
        self._previous: Start | None = None

    def add(self, start: Start) -> list[Violation]:
        """The limits that this start exceeds. Raises ValueError where it lies before the start added before."""
        now = start.started_at
        if self._previous is not None and now < self._previous.started_at:
            raise ValueError(f"start {start.sequence} lies before start {self._previous.sequence}, which precedes it")
        self._previous = start
        while self._recent and self._recent[0].started_at <= now - self._window:
            self._tokens -= self._recent.popleft().tokens
        while self._ends and self._ends[0] <= now:
            heappop(self._ends)
        self._recent.append(start)
        self._tokens += start.tokens
        heappush(self._ends, start.ended_at or _NEVER)
        if self._judged_from is not None and now < self._judged_from:
            return []
        self.starts += 1
        self.first_at = self.first_at or now
        self.last_at = now
        return self._judge(start)

    def _judge(self, start: Start) -> list[Violation]:
        now = start.started_at
        while len(self._settings) > 1 and self._settings[1].since <= now:
            self._settings.popleft()
        setting = self._settings[0]
        limits = (setting.max_parallel, setting.requests_per_window, setting.tokens_per_window)
        violations = []
        for kind, observed, limit in zip(
            KINDS, (len(self._ends), len(self._recent), self._tokens), limits, strict=True
        ):
            peak = self.peaks.get(kind)
            if peak is None or peak.is_below(observed, limit):
                self.peaks[kind] = Peak(now, observed, limit)
            if limit is not None and observed > limit:
                violations.append(Violation(kind, now, observed, limit, start.sequence))
        return violations


def replay(starts: Iterable[Start], settings: Sequence[LimitSetting], *, window: timedelta) -> list[Violation]:
    """Every violation of starts that may come in any order, in order of time."""
    judge = Replay(settings, window=window)
    ordered = sorted(starts, key=lambda start: (start.started_at, start.sequence))
    return [violation for start in ordered for violation in judge.add(start)]

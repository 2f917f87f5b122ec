"""A provider's own limits, judged at each arrival over a sliding window. Pure: the time is an argument."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    PARALLEL = "parallel"
    REQUESTS = "requests"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit. Requests and tokens are per window."""

    parallel: int | None = None
    requests: int | None = None
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Breach:
    kind: Kind
    limit: int
    observed: int
    """With the call that is judged."""
    early_by_seconds: float | None
    """How much later the call would have been within the limit; None where no time says so."""


class Enforcement:
    """Counts calls in the window (now - window, now]: two calls exactly one window apart are never counted together.

    `now` is any monotonic clock in seconds, and must not go back from one method call to the next.
    """

    def __init__(self, limits: Limits, *, window_seconds: float, tolerance_seconds: float = 0.0) -> None:
        self._limits = limits
        self._span = max(0.0, window_seconds - tolerance_seconds)
        self._former: list[tuple[Limits, float]] = []
        self._arrivals: deque[tuple[float, int]] = deque()
        self._tokens = 0
        self._parallel = 0
        self.peak_parallel = 0
        self.peak_requests = 0
        self.peak_tokens = 0

    @property
    def limits(self) -> Limits:
        return self._limits

    @property
    def parallel(self) -> int:
        return self._parallel

    def change(
        self, limits: Limits, *, now: float, window_seconds: float, tolerance_seconds: float, grace_seconds: float
    ) -> None:
        """Judges the calls that arrive from now on by `limits`; until the grace ends, the former ones serve as well."""
        if grace_seconds > 0 and limits != self._limits:
            self._former.append((self._limits, now + grace_seconds))
        self._limits = limits
        self._span = max(0.0, window_seconds - tolerance_seconds)

    def judge(self, now: float, tokens: int) -> list[Breach]:
        """The limits that one more call of so many tokens would break now."""
        self._forget(now)
        limits = self._in_force(now) if self._former else self._limits
        breaches = []
        if limits.parallel is not None and self._parallel >= limits.parallel:
            breaches.append(Breach(Kind.PARALLEL, limits.parallel, self._parallel + 1, None))
        if limits.requests is not None and len(self._arrivals) >= limits.requests:
            early = self._arrivals[-limits.requests][0] + self._span - now
            breaches.append(Breach(Kind.REQUESTS, limits.requests, len(self._arrivals) + 1, early))
        if limits.tokens is not None and self._tokens + tokens > limits.tokens:
            early_by = self._until_tokens_fit(now, tokens, limits.tokens)
            breaches.append(Breach(Kind.TOKENS, limits.tokens, self._tokens + tokens, early_by))
        return breaches

    def admit(self, now: float, tokens: int) -> None:
        """Counts a call; `leave` ends it."""
        self._forget(now)
        self._arrivals.append((now, tokens))
        self._tokens += tokens
        self._parallel += 1
        if self._parallel > self.peak_parallel:
            self.peak_parallel = self._parallel
        if len(self._arrivals) > self.peak_requests:
            self.peak_requests = len(self._arrivals)
        if self._tokens > self.peak_tokens:
            self.peak_tokens = self._tokens

    def leave(self) -> None:
        self._parallel -= 1

    def reset_peaks(self) -> None:
        self.peak_parallel = self._parallel
        self.peak_requests = self.peak_tokens = 0

    def _forget(self, now: float) -> None:
        arrivals = self._arrivals
        oldest = now - self._span
        while arrivals and arrivals[0][0] <= oldest:
            self._tokens -= arrivals.popleft()[1]

    def _in_force(self, now: float) -> Limits:
        self._former = [entry for entry in self._former if entry[1] > now]
        sheets = [self._limits, *(former for former, _ in self._former)]
        return Limits(
            _most_generous([sheet.parallel for sheet in sheets]),
            _most_generous([sheet.requests for sheet in sheets]),
            _most_generous([sheet.tokens for sheet in sheets]),
        )

    def _until_tokens_fit(self, now: float, tokens: int, limit: int) -> float | None:
        excess = self._tokens + tokens - limit
        for at, counted in self._arrivals:
            excess -= counted
            if excess <= 0:
                return at + self._span - now
        return None  # the call alone is above the limit


def _most_generous(limits: list[int | None]) -> int | None:
    known = [limit for limit in limits if limit is not None]
    return max(known) if len(known) == len(limits) else None

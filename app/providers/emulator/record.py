"""What a provider saw: every call within a bound, every violation, every edit of its limits."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

from app.providers.emulator.enforcement import Breach, Enforcement, Limits
from app.providers.emulator.wire import Usage


class Clock:
    """A monotonic clock and the Unix time it stands for, which therefore never jumps."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def now(self) -> float:
        return time.monotonic()

    def unix(self, now: float) -> float:
        return round(now + self._offset, 6)


class Outcome(StrEnum):
    RUNNING = "running"
    ANSWERED = "answered"
    FAILED = "failed"
    """Told to: an injected error or fault."""
    REFUSED = "refused"
    """A bad request or credential."""
    LIMITED = "limited"
    """Answered with 429 by the enforcement."""
    ABANDONED = "abandoned"
    """The client left first."""


@dataclass(slots=True)
class RecordedCall:
    id: str
    """As sent to the client in the request id header."""
    key: str | None
    protocol: str
    operation: str
    model: str | None
    arrived: float
    ended: float | None = None
    status: int | None = None
    """None: no status was sent."""
    outcome: Outcome = Outcome.RUNNING
    stream: bool = False
    parts: int = 0
    """Of the body: the events of a stream, or 1; 0 until a body begins."""
    parts_sent: int = 0
    served: Usage | None = None
    """What the provider bills, were all of it sent; None where it refused. Of a stream cut short, see parts_sent."""

    def as_json(self) -> dict[str, Any]:
        """Flat: the counts of `served`, 0 where there are none, stand beside the rest."""
        body = {name: getattr(self, name) for name in _CALL_FIELDS}
        served = self.served or _NOTHING
        for name in _USAGE_FIELDS:
            body[name] = getattr(served, name)
        return body


_NOTHING = Usage()
_USAGE_FIELDS = tuple(item.name for item in fields(Usage))
_CALL_FIELDS = tuple(item.name for item in fields(RecordedCall) if item.name != "served")


@dataclass(frozen=True, slots=True)
class Violation:
    kind: str
    limit: int
    limit_since: float
    """Unix time of the edit that set the limits then in force."""
    observed: int
    early_by_seconds: float | None
    at: float
    provider: str
    id: str
    key: str | None


@dataclass(slots=True)
class Record:
    """Times are Unix seconds with microseconds. Calls beyond `bound` push out the oldest; counts are never lost."""

    provider: str
    clock: Clock
    bound: int
    calls: deque[RecordedCall] = field(init=False)
    violations: deque[Violation] = field(init=False)
    violation_counts: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int | None] = field(default_factory=Counter)
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    arrivals: int = 0
    ended: int = 0
    billed: Usage = field(default_factory=Usage)
    """Of all calls that ended."""
    limit_edits: list[dict[str, Any]] = field(default_factory=list)
    _watchers: set[asyncio.Event] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.calls = deque(maxlen=self.bound)
        self.violations = deque(maxlen=self.bound)

    def begin(
        self, now: float, *, id: str, key: str | None, protocol: str, operation: str, model: str | None, stream: bool
    ) -> RecordedCall:
        call = RecordedCall(id, key, protocol, operation, model, self.clock.unix(now), stream=stream)
        self.arrivals += 1
        self.calls.append(call)
        self._tell()
        return call

    def end(self, call: RecordedCall, now: float, outcome: Outcome) -> None:
        call.ended = self.clock.unix(now)
        call.outcome = outcome
        self.statuses[call.status] += 1
        self.outcomes[outcome] += 1
        self.ended += 1
        if call.served is not None:
            self._bill(call.served)
        self._tell()

    async def until(self, *, arrivals: int, running: int, ended: int) -> None:
        """Returns once the record counts at least so many of each."""
        change = asyncio.Event()
        self._watchers.add(change)
        try:
            while self.arrivals < arrivals or self.arrivals - self.ended < running or self.ended < ended:
                await change.wait()
                change.clear()
        finally:
            self._watchers.discard(change)

    def _bill(self, served: Usage) -> None:
        billed = self.billed
        billed.input_tokens += served.input_tokens
        billed.output_tokens += served.output_tokens
        billed.cached_tokens += served.cached_tokens
        billed.cache_write_tokens += served.cache_write_tokens
        billed.reasoning_tokens += served.reasoning_tokens
        billed.images += served.images
        billed.characters += served.characters
        billed.seconds += served.seconds
        billed.searches += served.searches

    def _tell(self) -> None:
        for change in self._watchers:
            change.set()

    def violated(self, breach: Breach, call: RecordedCall) -> None:
        since = self.limit_edits[-1]["at"]
        early = None if breach.early_by_seconds is None else round(breach.early_by_seconds, 6)
        at = call.arrived
        self.violation_counts[breach.kind.value] += 1
        self.violations.append(
            Violation(breach.kind, breach.limit, since, breach.observed, early, at, self.provider, call.id, call.key)
        )

    def limits_edited(self, now: float, limits: Limits, window_seconds: float) -> None:
        self.limit_edits.append({"at": self.clock.unix(now), **asdict(limits), "window_seconds": window_seconds})

    def reset(self) -> None:
        """Forgets all but the limits in force and how many calls are under way."""
        self.__post_init__()
        self.violation_counts.clear()
        self.statuses.clear()
        self.outcomes.clear()
        self.arrivals -= self.ended  # calls under way will still end
        self.ended = 0
        self.billed = Usage()
        del self.limit_edits[:-1]

    def as_json(self, enforcement: Enforcement, *, with_calls: bool) -> Mapping[str, Any]:
        body: dict[str, Any] = {
            "provider": self.provider,
            "arrivals": self.arrivals,
            "served": {"none" if status is None else str(status): n for status, n in self.statuses.items()},
            "outcomes": {str(outcome): n for outcome, n in self.outcomes.items()},
            "billed": asdict(self.billed),
            "parallel": enforcement.parallel,
            "peak_parallel": enforcement.peak_parallel,
            "peak_requests": enforcement.peak_requests,
            "peak_tokens": enforcement.peak_tokens,
            "violation_counts": dict(self.violation_counts),
            "violations": list(self.violations),
            "limit_edits": self.limit_edits,
        }
        if with_calls:
            body["calls"] = [call.as_json() for call in self.calls]
        return body

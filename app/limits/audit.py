"""Judges a whole start log, line by line, and remembers no more than a window of each provider."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from app.errors import ConfigurationError
from app.limits.log import LimitsLine, LogLine, StartLine
from app.limits.records import Start
from app.limits.replay import LimitSetting, Replay, Violation

_LISTED: Final = 20


@dataclass(slots=True)
class AuditedProvider:
    """What was found. `violations` are the first ones; `violation_count` is how many there were."""

    settings: list[LimitSetting] = field(default_factory=list)
    replay: Replay | None = None
    sequence: int = 0
    violations: list[Violation] = field(default_factory=list)
    violation_count: int = 0


class Audit:
    """`names`: the providers to look at; none names all."""

    def __init__(self, *, window: timedelta, judged_from: datetime | None = None, names: Collection[str] = ()) -> None:
        self.providers: dict[str, AuditedProvider] = {}
        self.window = window
        self.judged_from = judged_from
        self._names = frozenset(names)

    @property
    def violation_count(self) -> int:
        return sum(audited.violation_count for audited in self.providers.values())

    def take(self, line: LogLine) -> None:
        """Raises ConfigurationError where the line cannot be in a start log after those before it."""
        if self._names and line.provider not in self._names:
            return
        audited = self.providers.setdefault(line.provider, AuditedProvider())
        try:
            self._take(line, audited)
        except ValueError as error:
            raise ConfigurationError(f"the start log of {line.provider!r} is not whole and in order: {error}") from None

    def _take(self, line: LogLine, audited: AuditedProvider) -> None:
        if isinstance(line, LimitsLine):
            setting = LimitSetting(
                line.since, line.max_parallel_requests, line.requests_per_minute, line.tokens_per_minute
            )
            if audited.replay is not None:
                raise ValueError("limits come after starts")
            if audited.settings and setting.since < audited.settings[-1].since:
                raise ValueError("limits lie before those that precede them")
            audited.settings.append(setting)
            return
        if audited.replay is None:
            if not audited.settings:
                raise ValueError("starts come before any limits")
            audited.replay = Replay(audited.settings, window=self.window, judged_from=self.judged_from)
        if line.sequence <= audited.sequence:
            raise ValueError(f"start {line.sequence} comes after start {audited.sequence}")
        audited.sequence = line.sequence
        found = audited.replay.add(_start_of(line))
        audited.violation_count += len(found)
        audited.violations += found[: max(0, _LISTED - len(audited.violations))]


def _start_of(line: StartLine) -> Start:
    tokens = line.reserved_tokens if line.settled_tokens is None else line.settled_tokens
    return Start(line.provider, line.sequence, line.request_id, line.started_at, line.ended_at, tokens)

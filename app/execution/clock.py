"""The clock that windows and leases run on, as this machine knows it.

The database's own clock can be stepped. A machine's time since its start cannot: so every process tells, four times a
lease, how far the two are apart, and says with each claim what it expects the clock to be.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from app.db.ids import new_id
from app.db.pool import Connection, Database
from app.db.trouble import DATABASE_TROUBLE
from app.limits import repository
from app.limits.records import UNKNOWN, ClockReading, Expectation

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TRIES: Final = 5
_SOON_MICROSECONDS: Final = 20_000
_LATE_MICROSECONDS: Final = 100_000
"""What was answered no later is known within 50 ms, which permits allow for."""

_log = structlog.get_logger(__name__)


def machine_id() -> str:
    """Names this machine for as long as its kernel runs; this process, where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # The clock of a container in a time namespace of its own is another.
        return f"{boot} {Path('/proc/self/ns/time').readlink()}"
    except OSError:
        return new_id()


def machine_microseconds() -> int:
    """Since the machine's start, with its sleep where the system counts that."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime_ns(clock) // 1000


class SteadyClock:
    """One per process. Until it could be read in time, nothing is expected of it."""

    def __init__(self, database: Database, *, lease_seconds: float) -> None:
        self._database = database
        self._period_seconds = lease_seconds / 4
        self._machine_id = machine_id()
        self._known: tuple[int, int] | None = None
        """The epoch, and how many microseconds the clock is ahead of the machine's."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.witness()
        self._task = asyncio.create_task(self._witness_for_ever(), name="clock")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def expectation(self) -> Expectation:
        """Of this moment: to be asked for just before the statement that it goes with is sent."""
        if self._known is None:
            return UNKNOWN
        epoch, offset = self._known
        return Expectation(epoch, _EPOCH + timedelta(microseconds=machine_microseconds() + offset))

    async def witness(self) -> None:
        """Measures how far the clock is ahead of the machine's own, and tells the database."""
        async with self._database.connection() as connection:
            for _ in range(_TRIES):
                reading, offset = await self._measure(connection)
                if reading is None:
                    break
                known = await repository.witness_clock(
                    connection,
                    self._machine_id,
                    reading,
                    offset_microseconds=offset,
                    machine_microseconds=machine_microseconds(),
                )
                if known is not None:
                    self._known = known
                    return
        # What was known before holds on.
        _log.warning("clock_not_measured", tries=_TRIES)

    async def _measure(self, connection: Connection) -> tuple[ClockReading | None, int]:
        """The soonest answer, None where none came in time, and how far the clock is ahead by it."""
        soonest, reading, offset = _LATE_MICROSECONDS, None, 0
        for _ in range(_TRIES):
            asked_at = machine_microseconds()
            answer = await repository.read_steady_clock(connection)
            took = machine_microseconds() - asked_at
            if took <= soonest:
                soonest, reading, offset = took, answer, answer.told_microseconds - asked_at - took // 2
            if took <= _SOON_MICROSECONDS:
                break
        return reading, offset

    async def _witness_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._period_seconds)
            try:
                async with asyncio.timeout(self._period_seconds):
                    await self.witness()
            except DATABASE_TROUBLE as error:
                _log.warning("clock_not_witnessed", error=str(error))

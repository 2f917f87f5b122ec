"""Keeps the leases of a process alive, and stops the call of each lease that it cannot keep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.execution.clock import SteadyClock
from app.execution.executor import Interruption
from app.execution.watchdog import Watchdog
from app.limits import repository
from app.limits.records import ClaimedRequest, LeaseId

_log = structlog.get_logger(__name__)

Stop = Callable[[Interruption], None]


@dataclass(slots=True)
class _Held:
    claim: ClaimedRequest
    stop: Stop
    ends_at: float
    """On time.monotonic(): never later than the lease's end in the database."""
    alarm: asyncio.TimerHandle | None = field(default=None)
    is_lost: bool = False


class LeaseKeeper:
    """Renews every quarter of a lease. A call is stopped an eighth before its lease ends unless it was renewed.

    With `watchdog`, a process that is too frozen to do so is killed a sixteenth before.
    """

    def __init__(
        self, database: Database, clock: SteadyClock, *, lease_seconds: float, watchdog: Watchdog | None = None
    ) -> None:
        self._database = database
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._watchdog = watchdog
        self._kill_at = 0.0
        self._held: dict[LeaseKey, _Held] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._renew_for_ever(), name="leases")]
        if self._watchdog is not None:
            self._watchdog.start()
            self._tasks.append(asyncio.create_task(self._report_for_ever(), name="watchdog"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watchdog is not None:
            self._watchdog.stop()
        for held in self._held.values():
            if held.alarm is not None:
                held.alarm.cancel()

    def hold(self, claim: ClaimedRequest, *, claimed_at: float, stop: Stop) -> None:
        """`claimed_at`: time.monotonic() from before the claim was sent. `stop` is called at most once per reason."""
        held = _Held(claim, stop, claimed_at + self._lease_seconds)
        self._held[claim.request_id, claim.lease_id] = held
        self._set_alarm(held)
        if held.ends_at - self._lease_seconds / 16 < self._kill_at:
            self._report()

    def release(self, claim: ClaimedRequest) -> None:
        held = self._held.pop((claim.request_id, claim.lease_id), None)
        if held is not None and held.alarm is not None:
            held.alarm.cancel()

    def request_cancel(self, request_id: str) -> None:
        """Stops the call of a request, if it is held here."""
        for (held_id, _), held in list(self._held.items()):
            if held_id == request_id:
                held.stop(Interruption.CANCELLED)

    def _set_alarm(self, held: _Held) -> None:
        if held.alarm is not None:
            held.alarm.cancel()
        loop = asyncio.get_running_loop()
        left = held.ends_at - self._lease_seconds / 8 - time.monotonic()
        held.alarm = loop.call_later(max(0.0, left), self._expire, held)

    def _expire(self, held: _Held) -> None:
        _log.warning("lease_not_renewed", request_id=held.claim.request_id)
        self._lose(held)
        self._report()

    def _lose(self, held: _Held) -> None:
        held.is_lost = True
        held.stop(Interruption.LEASE_LOST)

    def _report(self) -> None:
        """That this process runs, and until when: before the first end of a lease that may still have a call."""
        if self._watchdog is None:
            return
        unreported = time.monotonic() + self._lease_seconds
        first = min((held.ends_at for held in self._held.values() if not held.is_lost), default=unreported)
        self._kill_at = first - self._lease_seconds / 16
        self._watchdog.kill_at(self._kill_at)

    async def _report_for_ever(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(self._lease_seconds / 8)

    async def _renew_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._lease_seconds / 4)
            if self._held:
                try:
                    await self._renew()
                except DATABASE_TROUBLE as error:
                    _log.warning("renew_failed", leases=len(self._held), error=str(error))

    async def _renew(self) -> None:
        asked = dict(self._held)
        asked_at = time.monotonic()
        async with asyncio.timeout(self._lease_seconds / 4), self._database.connection() as connection:
            renewed = await repository.renew_leases(
                connection,
                list(asked),
                lease_seconds=self._lease_seconds,
                expectation=self._clock.expectation(),
            )
        kept = {(lease.request_id, lease.lease_id): lease for lease in renewed}
        for key, held in asked.items():
            if self._held.get(key) is not held:
                continue
            lease = kept.get(key)
            if lease is None:
                self._lose(held)
                continue
            held.ends_at = asked_at + self._lease_seconds
            self._set_alarm(held)
            if lease.cancel_requested:
                held.stop(Interruption.CANCELLED)


LeaseKey = tuple[str, LeaseId]

"""The claim loop of a process: asks each provider's limits when it can be of use, and sleeps until then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

import structlog

from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.db.listen import WORK, Listener
from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.execution.clock import SteadyClock
from app.limits import repository
from app.limits.records import Claim

MAX_CLAIM: Final = 200
_RETRY_SECONDS: Final = 0.5
_LAST_CLAIM_SECONDS: Final = 5.0

_log = structlog.get_logger(__name__)

Take = Callable[[Claim, str, float], None]
"""Gets a claim, its provider's id, and time.monotonic() from before the claim was sent."""


class ClaimLoop:
    """`capacity` says how many more calls the process can take. `listener` must not be started yet.

    With `owner_id` it claims what that process owns; without, what any worker may run.
    """

    def __init__(
        self,
        *,
        worker_id: str,
        owner_id: str | None,
        database: Database,
        clock: SteadyClock,
        listener: Listener,
        snapshots: SnapshotHolder,
        lease_seconds: float,
        capacity: Callable[[], int],
        take: Take,
    ) -> None:
        self._worker_id = worker_id
        self._owner_id = owner_id
        self._database = database
        self._clock = clock
        self._lease_seconds = lease_seconds
        self._capacity = capacity
        self._take = take
        self._due: dict[str, float] = {}
        """Per provider, the time.monotonic() instant from which a claim can be of use."""
        self._tidy_at = time.monotonic() + lease_seconds
        self._stopping = False
        self._wake = asyncio.Event()
        listener.subscribe(WORK, self.wake)
        listener.on_connect(self._look_everywhere)
        snapshots.on_change(self._wake_all)

    def wake(self, provider_id: str) -> None:
        """A claim of this provider may be of use now."""
        self._due[provider_id] = 0.0
        self._wake.set()

    def look_again(self) -> None:
        """There is capacity where there was none: what became due meanwhile is claimed now."""
        self._wake.set()

    def learn(self, provider_id: str, claim: Claim) -> None:
        """Takes over when to look again from a claim, also one made elsewhere in this process."""
        if claim.wait_seconds is not None:
            self._set_due(provider_id, time.monotonic() + claim.wait_seconds)
            self._wake.set()

    async def run(self) -> None:
        """Until `stop`."""
        while not self._stopping:
            self._wake.clear()
            if time.monotonic() >= self._tidy_at:
                await self._tidy()
            if self._capacity() > 0:
                now = time.monotonic()
                for provider_id in [id for id, due in self._due.items() if due <= now]:
                    if not self._stopping:
                        await self._claim(provider_id)
            if not self._stopping:
                await self._sleep()

    async def stop(self, running: asyncio.Task[None]) -> None:
        """A claim that is under way may have leased requests: it is awaited, so that they are run or given back."""
        self._stopping = True
        self._wake.set()
        await asyncio.wait({running}, timeout=_LAST_CLAIM_SECONDS)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    def _wake_all(self, snapshot: Snapshot) -> None:
        """Limits may have been edited."""
        for provider in snapshot.providers:
            self._due[provider.id] = 0.0
        self._wake.set()

    async def _look_everywhere(self) -> None:
        """At the start, and after a time in which notifications may have been missed."""
        async with self._database.connection() as connection:
            for provider_id in await repository.providers_with_work(connection):
                self._due[provider_id] = 0.0
        self._wake.set()

    async def _sleep(self) -> None:
        """Until woken, or until the first provider is due; while every place is taken, until one comes free."""
        until = self._tidy_at
        if self._due and self._capacity() > 0:
            until = min(until, *self._due.values())
        seconds = max(0.0, until - time.monotonic())
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return

    async def _tidy(self) -> None:
        """Ends what a process left behind that is gone, though nothing else is to be claimed there.

        Once a lease, since nobody is told of an end that does not come.
        """
        self._tidy_at = time.monotonic() + self._lease_seconds
        try:
            async with self._database.connection() as connection:
                for provider_id in await repository.providers_to_tidy(connection):
                    await repository.claim_requests(
                        connection,
                        provider_id,
                        worker_id=self._worker_id,
                        capacity=0,
                        lease_seconds=self._lease_seconds,
                        owner_id=self._owner_id,
                        expectation=self._clock.expectation(),
                    )
        except DATABASE_TROUBLE as error:
            _log.warning("tidying_failed", error=str(error), retry_seconds=self._lease_seconds)

    async def _claim(self, provider_id: str) -> None:
        capacity = min(MAX_CLAIM, self._capacity())
        if capacity <= 0:
            return
        claimed_at = time.monotonic()
        # Before the claim, so that a notification that comes while it runs makes the provider due again.
        self._due.pop(provider_id, None)
        try:
            async with self._database.connection() as connection:
                claim = await repository.claim_requests(
                    connection,
                    provider_id,
                    worker_id=self._worker_id,
                    capacity=capacity,
                    lease_seconds=self._lease_seconds,
                    owner_id=self._owner_id,
                    expectation=self._clock.expectation(),
                )
        except DATABASE_TROUBLE as error:
            _log.warning("claim_failed", provider_id=provider_id, error=str(error), retry_seconds=_RETRY_SECONDS)
            self._set_due(provider_id, time.monotonic() + _RETRY_SECONDS)
            return
        if claim is None:
            return
        self._take(claim, provider_id, claimed_at)
        if len(claim.requests) == capacity:
            self._set_due(provider_id, 0.0)
        elif claim.wait_seconds is not None:
            self._set_due(provider_id, time.monotonic() + claim.wait_seconds)

    def _set_due(self, provider_id: str, due: float) -> None:
        self._due[provider_id] = min(due, self._due.get(provider_id, due))

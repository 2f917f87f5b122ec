"""Writes results in groups: while one transaction commits, what ends meanwhile gathers for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import asyncpg
import structlog

from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.execution.clock import SteadyClock
from app.requests import repository
from app.requests.records import AttemptError, AttemptResult, ModelRequestStatus, Outcome

MAX_GROUP: Final = 500
_RETRY_SECONDS: Final = 0.2
_MAX_RETRY_SECONDS: Final = 5.0
_REFUSAL: Final = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    ValueError,
)
"""Of the trouble, what comes back with the same write."""

_log = structlog.get_logger(__name__)

_Waiting = tuple[AttemptResult, asyncio.Future[ModelRequestStatus | None]]


class Finisher:
    """One writer per process. A result is written once, or, where its lease was lost, not at all."""

    def __init__(self, database: Database, clock: SteadyClock) -> None:
        self._database = database
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._write_groups(), name="finisher")

    async def stop(self) -> None:
        """To be called when nothing is waiting any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def finish(self, result: AttemptResult) -> ModelRequestStatus | None:
        """The request's new status once it is committed; None where the lease was no longer held.

        Waits as long as the database is away: the lease fences what comes too late.
        """
        future: asyncio.Future[ModelRequestStatus | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((result, future))
        self._wake.set()
        return await future

    async def _write_groups(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                group, self._waiting = self._waiting[:MAX_GROUP], self._waiting[MAX_GROUP:]
                await self._write_until_done(group)

    async def _write_until_done(self, group: list[_Waiting]) -> None:
        delay = _RETRY_SECONDS
        lesser = iter((_without_answer, _without_usage))
        is_repeated = False
        while True:
            try:
                await self._write(group, is_repeated=is_repeated)
            except Exception as error:  # noqa: BLE001 - no result, whatever is in it, may end the writer of all others
                if isinstance(error, DATABASE_TROUBLE) and not isinstance(error, _REFUSAL):
                    _log.warning("finish_failed", requests=len(group), error=str(error), retry_seconds=delay)
                    await asyncio.sleep(delay)
                    delay = min(delay * 2, _MAX_RETRY_SECONDS)
                    is_repeated = True
                    continue
                if len(group) > 1:
                    for one in group:
                        await self._write_until_done([one])
                    return
                result, future = group[0]
                _log.error(
                    "result_not_storable", request_id=result.request_id, error=f"{type(error).__name__}: {error}"
                )
                strip = next(lesser, None)
                if strip is None:
                    # Its lease runs out, and the request is taken back.
                    future.set_result(None)
                    return
                group = [(strip(result, error), future)]
            else:
                return

    async def _write(self, group: Sequence[_Waiting], *, is_repeated: bool) -> None:
        results = [result for result, _ in group]
        # One statement is a transaction, in one round trip.
        async with self._database.connection() as connection:
            statuses = await repository.finish_requests(connection, results, expectation=self._clock.expectation())
            if is_repeated:
                # The first time may have been done, and only its answer lost.
                missing = [result for result in results if result.request_id not in statuses]
                statuses |= await repository.finished_before(connection, missing)
            # Told before the connection is given back, which takes turns of the event loop.
            for result, future in group:
                if not future.done():
                    future.set_result(statuses.get(result.request_id))


def _without_answer(result: AttemptResult, error: Exception) -> AttemptResult:
    """The request must not stay open because its answer cannot be written; what it cost still can."""
    return replace(
        result,
        outcome=Outcome.FAILED,
        output=None,
        output_text=None,
        response_model=None,
        provider_request_id=None,
        finish_reason=None,
        error=AttemptError("INVALID_RESPONSE", f"the answer cannot be stored: {type(error).__name__}", retryable=False),
    )


def _without_usage(result: AttemptResult, error: Exception) -> AttemptResult:
    """Counts that no column holds: the reservation stands for them."""
    return replace(_without_answer(result, error), usage=None, cost=None, settled_tokens=None)

"""The chunks of streamed answers while they run: written in groups, and read by subscribers in any process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from app.db.pool import Database
from app.db.trouble import DATABASE_TROUBLE
from app.execution.attempt import ChunkSink
from app.limits.records import ClaimedRequest
from app.providers.operations import Chunk
from app.requests import repository
from app.requests.records import ChunkGroup

_log = structlog.get_logger(__name__)


class ChunkLog:
    """One writer per process. A chunk that cannot be written is lost to followers only: the answer itself is not."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: dict[tuple[str, str], list[Chunk]] = {}
        self._sequences: dict[tuple[str, str], int] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._write_groups(), name="chunks")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def sink(self, claim: ClaimedRequest) -> ChunkSink:
        """For the chunks of one lease."""
        key = (claim.request_id, claim.lease_id)

        async def take(chunks: Sequence[Chunk]) -> None:
            self._waiting.setdefault(key, []).extend(chunks)
            self._wake.set()

        return take

    def forget(self, claim: ClaimedRequest) -> None:
        """The call has ended: its row tells the rest."""
        key = (claim.request_id, claim.lease_id)
        self._waiting.pop(key, None)
        self._sequences.pop(key, None)

    async def _write_groups(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            waiting, self._waiting = self._waiting, {}
            groups = []
            for (request_id, lease_id), chunks in waiting.items():
                sequence = self._sequences.get((request_id, lease_id), 0)
                self._sequences[request_id, lease_id] = sequence + 1
                groups.append(ChunkGroup(request_id, lease_id, sequence, tuple(chunks)))
            try:
                async with self._database.connection() as connection:
                    await repository.append_chunks(connection, groups)
            except DATABASE_TROUBLE as error:
                _log.warning("chunks_not_written", requests=len(groups), error=str(error))

"""Chunks on their way to one client, in the task of the call itself: who reads slowly makes the provider's connection
wait, and no one else.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from app.providers.operations import Chunk

Deliver = Callable[[Sequence[Chunk]], Awaitable[None]]
"""Writes chunks to the client. Waits while the client is behind; raises nothing."""


class ChunkStream:
    def __init__(self) -> None:
        self._deliver: Deliver | None = None
        self.has_delivered = False

    def deliver_by(self, deliver: Deliver) -> None:
        """To be called before the call can start."""
        self._deliver = deliver

    async def put(self, chunks: Sequence[Chunk]) -> None:
        self.has_delivered = True
        if self._deliver is not None:
            await self._deliver(chunks)

    def discard(self) -> None:
        """The reader has gone: what comes from now on is dropped."""
        self._deliver = None

"""Chunks on their way to one client: a slow reader makes the provider's connection wait, and no one else."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import Final

from app.providers.operations import Chunk

_GROUPS_AHEAD: Final = 64


class ChunkStream:
    """One writer, one reader."""

    def __init__(self) -> None:
        self._groups: deque[Sequence[Chunk]] = deque()
        self._is_closed = False
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._is_discarded = False
        self.has_delivered = False

    async def put(self, chunks: Sequence[Chunk]) -> None:
        """Waits while the reader is far behind."""
        await self._writable.wait()
        self.has_delivered = True
        if self._is_discarded:
            return
        self._groups.append(chunks)
        self._readable.set()
        if len(self._groups) >= _GROUPS_AHEAD:
            self._writable.clear()

    def discard(self) -> None:
        """The reader has gone: what is there and what comes is dropped, and the writer waits no more."""
        self._is_discarded = True
        self._groups.clear()
        self._writable.set()

    def close(self) -> None:
        """No more will come; what is there can still be read."""
        self._is_closed = True
        self._readable.set()

    async def groups(self) -> AsyncIterator[Sequence[Chunk]]:
        """Each group as it comes, until the end."""
        while True:
            while self._groups:
                group = self._groups.popleft()
                self._writable.set()
                yield group
            if self._is_closed:
                return
            self._readable.clear()
            await self._readable.wait()

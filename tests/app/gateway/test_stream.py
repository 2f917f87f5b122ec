"""Chunks on their way to one client."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from app.gateway.stream import ChunkStream
from app.providers.operations import Chunk, TextDelta


class Client:
    """Reads only while it is `reading`."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.texts: list[str] = []

    async def deliver(self, chunks: Sequence[Chunk]) -> None:
        await self.reading.wait()
        self.texts += [chunk.text for chunk in chunks if isinstance(chunk, TextDelta)]


async def test_a_client_gets_what_comes_in_order() -> None:
    stream, client = ChunkStream(), Client()
    stream.deliver_by(client.deliver)
    client.reading.set()
    assert not stream.has_delivered
    for number in range(200):
        await stream.put([TextDelta(str(number))])
    assert client.texts == [str(number) for number in range(200)]
    assert stream.has_delivered


async def test_the_call_waits_for_a_client_that_does_not_read() -> None:
    stream, client = ChunkStream(), Client()
    stream.deliver_by(client.deliver)
    putting = asyncio.create_task(stream.put([TextDelta("x")]))
    done, _ = await asyncio.wait({putting}, timeout=0.05)
    assert not done
    client.reading.set()
    await putting
    assert client.texts == ["x"]


async def test_the_call_does_not_wait_for_a_client_that_has_gone() -> None:
    stream, client = ChunkStream(), Client()
    stream.deliver_by(client.deliver)
    stream.discard()
    await stream.put([TextDelta("x")])
    assert client.texts == []
    assert stream.has_delivered

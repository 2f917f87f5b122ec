"""Chunks on their way to one client."""

from __future__ import annotations

import asyncio

from app.gateway.stream import ChunkStream
from app.providers.operations import TextDelta


async def drained(stream: ChunkStream) -> list[str]:
    return [chunk.text async for group in stream.groups() for chunk in group if isinstance(chunk, TextDelta)]


async def test_a_reader_gets_what_comes_in_order_until_the_end() -> None:
    stream = ChunkStream()
    reading = asyncio.create_task(drained(stream))
    for number in range(200):
        await stream.put([TextDelta(str(number))])
    stream.close()
    assert await reading == [str(number) for number in range(200)]
    assert stream.has_delivered


async def fill(stream: ChunkStream) -> asyncio.Task[None]:
    """Puts until the writer waits for the reader; answers the put that waits."""
    while True:
        putting = asyncio.create_task(stream.put([TextDelta("x")]))
        done, _ = await asyncio.wait({putting}, timeout=0.05)
        if not done:
            return putting


async def test_a_writer_waits_for_a_reader_that_is_far_behind() -> None:
    stream = ChunkStream()
    putting = await fill(stream)
    reading = asyncio.create_task(drained(stream))
    await putting
    stream.close()
    assert len(await reading) > 1


async def test_a_writer_does_not_wait_for_a_reader_that_has_gone() -> None:
    stream = ChunkStream()
    putting = await fill(stream)
    stream.discard()
    await putting
    for _ in range(1000):
        await stream.put([TextDelta("x")])
    stream.close()
    assert await drained(stream) == []


async def test_what_was_there_at_the_end_can_still_be_read() -> None:
    stream = ChunkStream()
    await stream.put([TextDelta("last")])
    stream.close()
    assert await drained(stream) == ["last"]

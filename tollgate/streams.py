"""Streamed answers, to be iterated over; the call begins with the first chunk that is asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from types import TracebackType
from typing import Self

from tollgate.chat import ChatStream
from tollgate.records import Answer, Chunk, Usage
from tollgate.steps import Call
from tollgate.transport import Transport


class Stream:
    """Leaving it before its end, by `close` or by the end of a `with`, cancels the call."""

    def __init__(self, transport: Transport, call: Call) -> None:
        self._transport = transport
        self._state = ChatStream()
        self._chunks = _read(transport, call, self._state)

    @property
    def request_id(self) -> str | None:
        """Known from the first chunk on."""
        return self._state.request_id

    @property
    def usage(self) -> Usage | None:
        """Known at the end."""
        return self._state.usage

    def answer(self) -> Answer:
        """Reads what is left, and answers the whole with what it cost."""
        for _ in self._chunks:
            pass
        return self._transport.run(self._state.answer())

    def close(self) -> None:
        self._chunks.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        return next(self._chunks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.close()


class AsyncStream:
    """As Stream, for `async for`."""

    def __init__(self, transport: Transport, call: Call) -> None:
        self._transport = transport
        self._state = ChatStream()
        self._chunks = _read_async(transport, call, self._state)

    @property
    def request_id(self) -> str | None:
        """Known from the first chunk on."""
        return self._state.request_id

    @property
    def usage(self) -> Usage | None:
        """Known at the end."""
        return self._state.usage

    async def answer(self) -> Answer:
        """Reads what is left, and answers the whole with what it cost."""
        async for _ in self._chunks:
            pass
        return await self._transport.run_async(self._state.answer())

    async def aclose(self) -> None:
        await self._chunks.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        return await anext(self._chunks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        await self.aclose()


def _read(transport: Transport, call: Call, state: ChatStream) -> Generator[Chunk, None, None]:
    with transport.stream(call) as response:
        state.begin(response.headers)
        for data in response.iter_bytes():
            yield from state.feed(data)
    state.end()


async def _read_async(transport: Transport, call: Call, state: ChatStream) -> AsyncGenerator[Chunk, None]:
    async with transport.stream_async(call) as response:
        state.begin(response.headers)
        async for data in response.aiter_bytes():
            for chunk in state.feed(data):
                yield chunk
    state.end()

"""The listener hears what is announced, and says when it may have missed something."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.db.listen import CATALOG, WORK, Listener

DEADLINE_SECONDS = 10


class Ear:
    """A listener, and what it has heard and how often it has connected, as queues to wait on."""

    def __init__(self, dsn: str) -> None:
        self.listener = Listener(dsn)
        self.heard: asyncio.Queue[str] = asyncio.Queue()
        self.connects: asyncio.Queue[bool] = asyncio.Queue()
        self.listener.subscribe(CATALOG, self.heard.put_nowait)
        self.listener.on_connect(self._note_connect)

    async def _note_connect(self) -> None:
        self.connects.put_nowait(True)

    async def next(self) -> str:
        return await asyncio.wait_for(self.heard.get(), DEADLINE_SECONDS)

    async def next_connect(self) -> None:
        await asyncio.wait_for(self.connects.get(), DEADLINE_SECONDS)


@pytest.fixture
async def ear(database_dsn: str) -> AsyncIterator[Ear]:
    ear = Ear(database_dsn)
    await ear.listener.start()
    await ear.next_connect()
    yield ear
    await ear.listener.stop()


@pytest.fixture
async def speaker(database_dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database_dsn)
    yield connection
    await connection.close()


async def say(speaker: asyncpg.Connection[asyncpg.Record], channel: str, payload: str) -> None:
    await speaker.execute("SELECT pg_notify($1, $2)", channel, payload)


async def kill_listener(speaker: asyncpg.Connection[asyncpg.Record]) -> None:
    killed = await speaker.fetch(
        "SELECT pg_terminate_backend(pid, 5000) AS gone FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'tollgate listener'"
    )
    assert [row["gone"] for row in killed] == [True]


async def test_hears_its_channels_in_order_and_no_others(ear: Ear, speaker: asyncpg.Connection[asyncpg.Record]) -> None:
    await say(speaker, WORK, "not for us")
    for number in range(3):
        await say(speaker, CATALOG, str(number))
    assert [await ear.next() for _ in range(3)] == ["0", "1", "2"]


async def test_all_callbacks_of_a_channel_are_called(
    database_dsn: str, speaker: asyncpg.Connection[asyncpg.Record]
) -> None:
    ear = Ear(database_dsn)
    ear.listener.subscribe(CATALOG, lambda payload: ear.heard.put_nowait(payload + " again"))
    await ear.listener.start()
    await say(speaker, CATALOG, "1")
    assert {await ear.next(), await ear.next()} == {"1", "1 again"}
    await ear.listener.stop()


async def test_killed_connection_comes_back_and_says_so(ear: Ear, speaker: asyncpg.Connection[asyncpg.Record]) -> None:
    for payload in ("first", "second"):
        await kill_listener(speaker)
        await ear.next_connect()
        await say(speaker, CATALOG, payload)
        assert await ear.next() == payload
        assert ear.listener.is_connected


async def test_on_connect_that_fails_is_tried_again(
    database_dsn: str, speaker: asyncpg.Connection[asyncpg.Record]
) -> None:
    ear = Ear(database_dsn)
    failures = [False, True, True, False]

    async def refresh() -> None:
        if failures.pop(0):
            raise asyncpg.InterfaceError("the pool is still broken")

    ear.listener.on_connect(refresh)
    await ear.listener.start()
    await ear.next_connect()
    await kill_listener(speaker)
    for _ in range(3):
        await ear.next_connect()
    await say(speaker, CATALOG, "heard")
    assert await ear.next() == "heard"
    assert failures == []
    await ear.listener.stop()


async def test_bug_in_a_callback_does_not_deafen_the_listener(
    database_dsn: str, speaker: asyncpg.Connection[asyncpg.Record]
) -> None:
    ear = Ear(database_dsn)
    refreshes: asyncio.Queue[bool] = asyncio.Queue()

    async def refresh() -> None:
        refreshes.put_nowait(True)
        if refreshes.qsize() == 2:
            raise KeyError("a bug")

    ear.listener.on_connect(refresh)
    await ear.listener.start()
    await kill_listener(speaker)
    for _ in range(3):
        await ear.next_connect()
    await say(speaker, CATALOG, "heard")
    assert await ear.next() == "heard"
    await ear.listener.stop()


async def test_first_connect_raises_where_nothing_answers() -> None:
    with pytest.raises(OSError):
        await Listener("postgresql://postgres@127.0.0.1:1/nothing").start()


async def test_stopped_listener_leaves_no_connection(ear: Ear, speaker: asyncpg.Connection[asyncpg.Record]) -> None:
    await ear.listener.stop()
    assert not ear.listener.is_connected
    count = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'tollgate listener'"
    )
    async with asyncio.timeout(DEADLINE_SECONDS):
        while await speaker.fetchval(count):
            pass

"""The embedded PostgreSQL is shared, and recovers from the death of any of its processes."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from app.db.embedded import cluster, embedded_postgres
from app.db.embedded.locks import acquire, give
from app.db.embedded.place import SOCKET_NAME, find_place
from app.errors import DatabaseUnavailable
from tests.app.db.embedded.users import (
    User,
    everything_stopped,
    note,
    notes,
    parent_of,
    restarted,
    server_pid,
    started_at,
)


async def test_six_processes_that_race_a_cold_start_share_one_server(cold_data_dir: Path) -> None:
    users = [await User.start(cold_data_dir) for _ in range(6)]
    dsns = [await user.dsn() for user in users]
    assert len(set(dsns)) == 1
    assert len({await started_at(dsn) for dsn in dsns}) == 1
    await asyncio.gather(*(user.leave() for user in users))


async def test_server_stays_for_the_second_user_when_the_first_leaves(data_dir: Path) -> None:
    first = await User.start(data_dir)
    before = await started_at(await first.dsn())
    async with embedded_postgres(data_dir) as dsn:
        await first.leave()
        assert await started_at(dsn) == before


async def test_last_user_to_leave_finds_the_server_stopped_and_the_data_kept(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as dsn:
        await note(dsn, "kept")
        pid = server_pid(dsn)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    async with embedded_postgres(data_dir) as dsn:
        assert await notes(dsn) == ["kept"]


async def test_server_stops_by_itself_when_its_only_user_is_killed(data_dir: Path) -> None:
    user = await User.start(data_dir)
    await note(await user.dsn(), "acknowledged")
    await user.kill()
    await everything_stopped(data_dir)
    async with embedded_postgres(data_dir) as dsn:
        assert await notes(dsn) == ["acknowledged"]


async def test_start_while_the_server_stops_waits_and_starts_it_anew(data_dir: Path) -> None:
    user = await User.start(data_dir)
    await note(await user.dsn(), "acknowledged")
    await user.kill()
    async with embedded_postgres(data_dir) as dsn:
        assert await notes(dsn) == ["acknowledged"]


async def test_killed_server_comes_back_with_all_that_was_acknowledged(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as dsn:
        await note(dsn, "acknowledged")
        before = await started_at(dsn)
        os.kill(server_pid(dsn), signal.SIGKILL)
        await restarted(dsn, before)
        assert await notes(dsn) == ["acknowledged"]


async def test_user_that_joins_right_after_the_server_was_killed_gets_one_that_answers(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as dsn:
        before = await started_at(dsn)
        os.kill(server_pid(dsn), signal.SIGKILL)
        async with embedded_postgres(data_dir) as second_dsn:
            assert second_dsn == dsn
            assert await started_at(second_dsn) != before


async def test_killed_supervisor_is_replaced_while_users_live(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as dsn:
        await note(dsn, "acknowledged")
        before = await started_at(dsn)
        os.kill(parent_of(server_pid(dsn)), signal.SIGKILL)
        await restarted(dsn, before)
        assert await notes(dsn) == ["acknowledged"]


async def test_start_after_everything_was_killed_recovers(data_dir: Path) -> None:
    user = await User.start(data_dir)
    dsn = await user.dsn()
    await note(dsn, "acknowledged")
    server = server_pid(dsn)
    for pid in (parent_of(server), server, user.process.pid):
        os.kill(pid, signal.SIGKILL)
    await user.process.wait()
    async with embedded_postgres(data_dir) as dsn:
        assert await notes(dsn) == ["acknowledged"]


async def test_orphaned_server_is_found_by_a_connection_and_stopped(data_dir: Path) -> None:
    """As after a killed supervisor where the system does not stop its children, or did not yet."""
    async with embedded_postgres(data_dir) as dsn:
        await note(dsn, "acknowledged")
    place = find_place(data_dir / "postgres")
    lock = await acquire(place.directory / "server.lock")
    orphan = await asyncio.create_subprocess_exec(
        *cluster.command(place, {}), stderr=asyncio.subprocess.PIPE, cwd="/", pass_fds=(lock,), **place.identity()
    )
    os.close(lock)
    assert orphan.stderr is not None
    while b"ready to accept" not in await orphan.stderr.readline():
        pass
    async with embedded_postgres(data_dir) as dsn:
        assert await notes(dsn) == ["acknowledged"]
    assert await orphan.wait() == 0


async def test_interrupt_of_the_terminal_does_not_reach_the_server(data_dir: Path) -> None:
    user = await User.start(data_dir, start_new_session=True)
    async with embedded_postgres(data_dir) as dsn:
        before = await started_at(dsn)
        await user.dsn()
        os.killpg(user.process.pid, signal.SIGINT)
        await asyncio.wait_for(user.process.wait(), 30)
        assert await started_at(dsn) == before


@pytest.mark.parametrize("state", ["recycled pid", "torn"])
async def test_stale_pid_file_does_not_hinder_the_start(data_dir: Path, state: str) -> None:
    async with embedded_postgres(data_dir):
        pid_file = data_dir / "postgres/cluster/data/postmaster.pid"
        lines = pid_file.read_text().splitlines()
    place = find_place(data_dir / "postgres")
    bystander = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, **place.identity())
    left_behind = "\n".join([str(bystander.pid), *lines[1:]]) + "\n" if state == "recycled pid" else ""
    for file in (pid_file, place.sockets / f"{SOCKET_NAME}.lock"):
        file.write_text(left_behind)
        give(file, place.directory)
    async with embedded_postgres(data_dir) as dsn:
        assert await started_at(dsn)
    assert bystander.returncode is None, "the bystander was taken for the server"
    await bystander.communicate(b"")
    assert bystander.returncode == 0


async def test_start_that_was_killed_half_way_through_the_setup_is_done_anew(cold_data_dir: Path) -> None:
    half = cold_data_dir / "postgres/cluster/data.unfinished"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    async with embedded_postgres(cold_data_dir) as dsn:
        assert await started_at(dsn)
    assert not half.exists()


async def test_server_that_cannot_start_says_why(data_dir: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"did not start: [^/]*shared_buffers"):
        async with embedded_postgres(data_dir, settings={"shared_buffers": "plenty"}):
            pass

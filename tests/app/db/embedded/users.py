"""Other processes that use the embedded server, and what can be seen of it from outside."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg

from app.db.embedded.locks import acquire
from app.db.embedded.place import SOCKET_NAME, Account
from app.db.embedded.supervisor import listener_pid
from app.db.trouble import DATABASE_TROUBLE

IS_ROOT = os.geteuid() == 0


PROGRAM = """
import asyncio, signal, sys
from pathlib import Path
from app.db.embedded import embedded_postgres

# As at a terminal: what is started in the background inherits that the signal is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)

async def main():
    ended = asyncio.Event()
    async with embedded_postgres(Path(sys.argv[1])) as dsn:
        print(dsn, flush=True)
        asyncio.get_running_loop().add_reader(0, ended.set)
        await ended.wait()

asyncio.run(main())
"""


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
            except DATABASE_TROUBLE:
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

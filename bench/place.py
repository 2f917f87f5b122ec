"""Where a bench runs: databases on a durable PostgreSQL, and processes that end with it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from app.api.services import ApiServices
from app.bootstrap import open_api
from app.config import Config
from app.db.embedded import embedded_postgres
from app.db.migrate import migrate
from app.db.pool import Database

TOKEN = "tgt_bench_admin_token_0123456789"
_START_SECONDS = 30.0


@asynccontextmanager
async def open_server(data_dir: Path) -> AsyncIterator[str]:
    """DATABASE_URL's server, else an embedded one in `data_dir` with the settings that `tollgate run` gives it."""
    given = os.environ.get("DATABASE_URL")
    if given:
        yield given
    else:
        async with embedded_postgres(data_dir) as dsn:
            yield dsn


@asynccontextmanager
async def fresh_database(server: str, name: str) -> AsyncIterator[Database]:
    """A migrated database, dropped afterwards."""
    admin = await asyncpg.connect(server)
    try:
        await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        await admin.execute(f'CREATE DATABASE "{name}"')
        database = await Database.connect(urlunsplit(urlsplit(server)._replace(path=f"/{name}")))
        try:
            await migrate(database)
            # So that what is measured here does not pay for what was written before.
            await admin.execute("CHECKPOINT")
            yield database
        finally:
            await database.close()
            await admin.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
    finally:
        await admin.close()


@asynccontextmanager
async def open_services(database: Database, data_dir: Path) -> AsyncIterator[ApiServices]:
    """The services of an API process, in this one."""
    async with open_api(Config(database_url=SecretStr(database.dsn), data_dir=data_dir)) as services:
        yield services


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def process(*arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`python ARGUMENTS`, stopped when the block ends. BENCH_VERBOSE shows what it writes to stderr."""
    started = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, **(environment or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if "BENCH_VERBOSE" in os.environ else subprocess.DEVNULL,
    )
    assert started.stdin is not None
    assert started.stdout is not None
    try:
        yield started
    finally:
        started.stdin.close()
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()
        started.stdout.close()


@asynccontextmanager
async def http_process(
    *arguments: str, port: int, ready_path: str, environment: Mapping[str, str]
) -> AsyncIterator[subprocess.Popen[bytes]]:
    """As `process`, from when `ready_path` answers."""
    with process(*arguments, environment=environment) as started:
        await wait_ready(started, f"http://127.0.0.1:{port}{ready_path}")
        yield started


async def wait_ready(started: subprocess.Popen[bytes], url: str, *, seconds: float = _START_SECONDS) -> None:
    end = time.monotonic() + seconds
    while not await asyncio.to_thread(_answers, url):
        if started.poll() is not None:
            raise RuntimeError(f"{started.args!r} ended with {started.returncode} before it was ready")
        if time.monotonic() > end:
            raise RuntimeError(f"{url} was not ready within {seconds:g} s")
        await asyncio.sleep(0.01)


def api_process(
    dsn: str, port: int, data_dir: Path, environment: Mapping[str, str] | None = None
) -> AbstractAsyncContextManager[subprocess.Popen[bytes]]:
    return http_process(
        "-m",
        "app.cli",
        "serve",
        port=port,
        ready_path="/readyz",
        environment={
            "DATABASE_URL": dsn,
            "TOLLGATE_PORT": str(port),
            "TOLLGATE_ADMIN_TOKEN": TOKEN,
            "TOLLGATE_DATA_DIR": str(data_dir),
            "TOLLGATE_LOG_LEVEL": "warning",
            **(environment or {}),
        },
    )


def peer_process(dsn: str, port: int, *options: str) -> AbstractAsyncContextManager[subprocess.Popen[bytes]]:
    return http_process(
        "-m",
        "bench.peer_strawberry",
        dsn,
        str(port),
        *options,
        port=port,
        ready_path="/graphql?query=%7B__typename%7D",
        environment={},
    )


def resident_mb(pid: int) -> float:
    """The resident set of a process; Linux only."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"process {pid} has no VmRSS")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False

"""A fresh, migrated database for each test, on the server of DATABASE_URL or else on one that this run starts."""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import certifi
import pytest

from app.db.migrate import migrate
from app.db.pool import Database
from tests.postgres import Cluster

pytest_plugins = ["tests.emulator"]

# Names this run to its workers under pytest-xdist: a directory of its own for the lock and the server.
_RUN_DIRECTORY = "TOLLGATE_TEST_RUN"
_RUN_PID = "TOLLGATE_TEST_RUN_PID"
_database_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[_RUN_DIRECTORY] = tempfile.mkdtemp(prefix="tollgate-test-")
        _trust_one_authority(Path(os.environ[_RUN_DIRECTORY]))
        os.environ[_RUN_PID] = str(os.getpid())


def _trust_one_authority(directory: Path) -> None:
    """Every new HTTP client reads all the authorities that it trusts, 50 ms each time; the tests speak no TLS."""
    authorities = Path(certifi.where()).read_text()
    end = "-----END CERTIFICATE-----"
    one = directory / "authority.pem"
    one.write_text(authorities[authorities.index("-----BEGIN") : authorities.index(end) + len(end)] + "\n")
    os.environ["SSL_CERT_FILE"] = str(one)


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    directory = Path(os.environ.pop(_RUN_DIRECTORY))
    template = directory / "template"
    server_dsn = os.environ.get("DATABASE_URL")
    # On a server that stays, the run's template goes; a server of the run's own goes as a whole.
    if server_dsn and template.exists():
        asyncio.run(_administer(server_dsn, f"DROP DATABASE IF EXISTS {template.read_text()}"))
    Cluster(directory).stop()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def server_dsn() -> str:
    """A PostgreSQL for this run, as a DSN of its database `postgres` (or the one that DATABASE_URL names)."""
    dsn = os.environ.get("DATABASE_URL")
    if dsn:
        return dsn
    directory = Path(os.environ[_RUN_DIRECTORY])
    with _exclusively(directory):
        cluster = Cluster(directory)
        cluster.start(owner_pid=int(os.environ[_RUN_PID]))
    return cluster.dsn


@pytest.fixture(scope="session")
def template_database(server_dsn: str) -> str:
    """The name of a migrated database, made once per run, that each test's database is a copy of."""
    directory = Path(os.environ[_RUN_DIRECTORY])
    made = directory / "template"
    with _exclusively(directory):
        if not made.exists():
            name = "template_" + _run_name()
            _run(_administer(server_dsn, f"CREATE DATABASE {name}"))
            _run(_migrate(dsn_of(server_dsn, name)))
            made.write_text(name)
    return made.read_text()


@pytest.fixture
async def empty_database_dsn(server_dsn: str) -> AsyncIterator[str]:
    """A database with nothing in it, not even migrations."""
    async with _database(server_dsn, "template0") as dsn:
        yield dsn


@pytest.fixture
async def database_dsn(server_dsn: str, template_database: str) -> AsyncIterator[str]:
    """A migrated database of the test's own, dropped when it ends, whatever still holds connections to it."""
    async with _database(server_dsn, template_database) as dsn:
        yield dsn


@pytest.fixture
async def database(database_dsn: str) -> AsyncIterator[Database]:
    connected = await Database.connect(database_dsn)
    yield connected
    await connected.close()


def dsn_of(server_dsn: str, name: str) -> str:
    return urlsplit(server_dsn)._replace(path=f"/{name}").geturl()


@asynccontextmanager
async def _database(server_dsn: str, template: str) -> AsyncIterator[str]:
    name = f"test_{_run_name()}_{os.getpid()}_{next(_database_numbers)}"
    await _administer(server_dsn, f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield dsn_of(server_dsn, name)
    finally:
        await _administer(server_dsn, f"DROP DATABASE {name} WITH (FORCE)")


async def _administer(server_dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(server_dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def _migrate(dsn: str) -> None:
    database = await Database.connect(dsn, size=2)
    await migrate(database)
    await database.close()


def _run_name() -> str:
    """The directory's random part, in letters that a database's name may have."""
    return Path(os.environ[_RUN_DIRECTORY]).name.removeprefix("tollgate-test-").lower()


def _run(coroutine: Coroutine[Any, Any, None]) -> None:
    """In a thread: the loop of the tests, if there is one, stays as it is."""
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, coroutine).result()


@contextmanager
def _exclusively(directory: Path) -> Iterator[None]:
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield

"""Real worker processes for tests, and what is needed to submit to them and to wait for what they did."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

import asyncpg

from app.catalog.snapshots import SnapshotHolder
from app.db.listen import REQUESTS
from app.db.pool import Database
from app.providers.registry import ADAPTERS
from app.requests.preparation import Preparation
from app.requests.service import RequestService

FINAL = ("COMPLETED", "FAILED", "CANCELLED")


class WorkerProcess:
    """A `tollgate work` of its own. It is killed when the block ends, unless it has ended before."""

    def __init__(self, dsn: str, **environment: str) -> None:
        self._environment = {
            **os.environ,
            "DATABASE_URL": dsn,
            "TOLLGATE_LOG_FORMAT": "json",
            "ACME_API_KEY": "secret-key-of-acme",
            **environment,
        }
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli", "work", "--until-stdin-closes"],
            env=self._environment,
            stdin=subprocess.PIPE,
            stderr=None if "TOLLGATE_TEST_VERBOSE" in os.environ else subprocess.DEVNULL,
        )

    def kill(self) -> None:
        """SIGKILL: nothing is tidied up."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.process = self._start()

    def terminate(self, timeout_seconds: float = 20) -> int:
        """SIGTERM: drains. Answers the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_seconds)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self.kill()


@asynccontextmanager
async def request_service(database: Database) -> AsyncIterator[RequestService]:
    snapshots = SnapshotHolder(database)
    await snapshots.refresh()
    yield RequestService(database, snapshots, Preparation(adapters=ADAPTERS, default_max_output_tokens=1000))
    await snapshots.stop()


async def wait_until(dsn: str, condition: str, *arguments: object, timeout_seconds: float = 30) -> None:
    """Returns when the SQL `condition` is true, looking at it whenever requests change."""
    connection = await asyncpg.connect(dsn)
    changed = asyncio.Event()
    try:
        await connection.add_listener(REQUESTS, lambda *_: changed.set())
        async with asyncio.timeout(timeout_seconds):
            while not await connection.fetchval(f"SELECT {condition}", *arguments):
                await changed.wait()
                changed.clear()
    except TimeoutError:
        rows = await connection.fetch("SELECT status, count(*) FROM model_requests GROUP BY 1")
        raise AssertionError(
            f"waited in vain for {condition}; the requests are {[tuple(row) for row in rows]}"
        ) from None
    finally:
        await connection.close()


async def wait_finished(dsn: str, request_ids: Sequence[str], *, timeout_seconds: float = 30) -> None:
    """Returns when all of them are in a final state."""
    await wait_until(
        dsn,
        "NOT EXISTS (SELECT FROM model_requests WHERE id = ANY ($1) AND status IN ('PENDING', 'PROCESSING'))",
        list(request_ids),
        timeout_seconds=timeout_seconds,
    )

"""Memory of the API process with the whole catalog, and the time from `tollgate run` to ready."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from pathlib import Path

from app.db.pool import Database
from bench.catalog import requests_of_every_kind
from bench.load import generate
from bench.place import TOKEN, api_process, free_port, process, resident_mb, wait_ready
from bench.table import Row, at_most

_STARTS = 3


async def run_memory(database: Database, seconds: float, data_dir: Path) -> list[Row]:
    """After some thousands of requests: every page and every model by reference, answers cached and not."""
    port = free_port()
    async with api_process(database.dsn, port, data_dir) as started:
        fresh = resident_mb(started.pid)
        sent = 0
        for plan in await requests_of_every_kind(port, seconds / 2):
            sent += (await asyncio.to_thread(generate, plan)).sent
        busy = resident_mb(started.pid)
    return [
        at_most("RSS of the API with the whole catalog, at its start", fresh, 150, "MB"),
        at_most(f"RSS of the API with the whole catalog, after {sent:,} requests", busy, 150, "MB"),
    ]


async def run_start(data_dir: Path) -> list[Row]:
    """`tollgate run` on an embedded PostgreSQL of its own. The first start also makes the cluster and seeds."""
    home = data_dir / "run"
    home.mkdir(mode=0o711)
    try:
        first = await _start(home)
        later = sorted([await _start(home) for _ in range(_STARTS)])
    finally:
        shutil.rmtree(home)
    return [
        Row("`tollgate run` to ready, the very first time", f"{first:.2f} s"),
        at_most(f"`tollgate run` to ready, later (median of {_STARTS})", later[_STARTS // 2], 2, "s"),
    ]


async def _start(home: Path) -> float:
    port = free_port()
    environment = {
        "DATABASE_URL": "",
        "TOLLGATE_DATA_DIR": str(home),
        "TOLLGATE_PORT": str(port),
        "TOLLGATE_ADMIN_TOKEN": TOKEN,
        "TOLLGATE_LOG_LEVEL": "warning",
    }
    begun = time.perf_counter()
    with process("-m", "app.cli", "run", environment=environment) as started:
        await wait_ready(started, f"http://127.0.0.1:{port}/readyz")
        seconds = time.perf_counter() - begun
        started.send_signal(signal.SIGTERM)
        await asyncio.to_thread(started.wait, 30)
    return seconds

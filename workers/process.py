"""A worker process: from its signals to its drain."""

from __future__ import annotations

import asyncio
import os
import sys

import structlog

from app.bootstrap import open_execution
from app.config import Config
from app.signals import Signals
from workers.metrics import serving_metrics
from workers.worker import Worker

_log = structlog.get_logger(__name__)


async def work(config: Config, *, until_stdin_closes: bool = False) -> None:
    """Runs until SIGTERM or SIGINT, then drains. A second signal ends the drain."""
    signals = Signals.of_this_process()
    if until_stdin_closes:
        _watch_stdin(asyncio.get_running_loop(), signals.stop)
    async with open_execution(config, is_guarded=True) as execution:
        worker = Worker(
            worker_id=execution.worker_id,
            database=execution.database,
            clock=execution.clock,
            listener=execution.listener,
            snapshots=execution.snapshots,
            calls=execution.calls,
            leases=execution.leases,
            concurrency=config.worker_concurrency,
            lease_seconds=config.lease_seconds,
        )
        await execution.listener.start()
        _log.info("worker_ready", worker_id=worker.worker_id, concurrency=config.worker_concurrency)
        async with serving_metrics(config, execution.database, execution.metrics):
            await worker.run(signals.stop, drain_seconds=config.drain_seconds, hurry=signals.hurry)
    _log.info("worker_stopped", worker_id=worker.worker_id)


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), readable)

"""The clock of the database's machine is set while calls wait and run. The provider counts on a clock of its own."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.db.migrate import migrate
from app.db.pool import Database
from tests.chaos.aftermath import Trial, trial_on
from tests.chaos.test_gateway_process import serving
from tests.emulator import Emulator
from tests.postgres import Cluster

HOUR = 3600


class Clock:
    """Of a PostgreSQL that runs under libfaketime. Each of its processes reads the file whenever it asks the time."""

    def __init__(self, directory: Path) -> None:
        specification = importlib.util.find_spec("libfaketime")
        assert specification is not None
        assert specification.origin is not None
        library = Path(specification.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
        # A copy: the server's user may not be let into the installation.
        shutil.copy(library, directory)
        self._file = directory / "clock"
        self.ahead = 0.0
        self.step(0)
        self.environment = {
            "LD_PRELOAD": str(directory / library.name),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def step(self, seconds: float) -> None:
        self.ahead += seconds
        written = self._file.with_suffix(".new")
        written.write_text(f"{self.ahead:+f}\n")
        # A reader sees the old file or the new one, whole.
        written.rename(self._file)


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="tollgate-clock-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def clock(directory: Path) -> Clock:
    return Clock(directory)


@pytest.fixture
async def trial(directory: Path, clock: Clock, emulator: Emulator) -> AsyncIterator[Trial]:
    cluster = Cluster(directory, environment=clock.environment)
    await asyncio.to_thread(cluster.start, os.getpid())
    database = await Database.connect(cluster.dsn)
    await migrate(database)
    async with trial_on(database, cluster.dsn, emulator) as trial:
        yield trial
    await database.close()
    await asyncio.to_thread(cluster.stop)


async def _noticed(trial: Trial, clock: Clock) -> None:
    """Returns when a process has told of the steps. Nobody is notified of it."""
    async with asyncio.timeout(20):
        while (
            abs(await trial.work.value("SELECT behind_microseconds / 1e6::float8 FROM steady_clock") - clock.ahead) > 1
        ):
            await trial.work.execute("SELECT pg_sleep(0.05)")


@pytest.mark.parametrize("seconds", [HOUR, 1.5, 0.2, -0.2, -1.5, -HOUR])
async def test_a_step_breaks_no_limit_and_holds_nothing_up(trial: Trial, clock: Clock, seconds: float) -> None:
    trial.work.configure(latency_ms=(50, 200))
    before = await trial.work.value("SELECT clock_timestamp()")
    with trial.worker(), trial.worker():
        ids = await trial.submit(100)
        for arrivals in (10, 40, 70):
            await trial.work.seen(arrivals=arrivals)
            clock.step(seconds)
        assert await trial.check() == {"COMPLETED": 100}
    assert {attempt.status for id in ids for attempt in await trial.work.attempts(id)} == {"SUCCEEDED"}
    stepped = await trial.work.value("SELECT clock_timestamp() - $1::timestamptz", before)
    assert abs(stepped.total_seconds() - 3 * seconds) < 60


async def test_steps_end_no_lease_and_no_wait_of_a_gateway_s_client(trial: Trial, clock: Clock, tmp_path: Path) -> None:
    trial.work.configure(output_tokens=20, chunk_ms=100)
    with serving(trial, tmp_path / "data") as gateway:
        async with gateway.streaming(trial.work.ref, 3) as responses:
            for seconds in (HOUR, -2 * HOUR):
                clock.step(seconds)
                await trial.work.execute("SELECT pg_sleep(0.5)")
            texts = [(await response.aread()).decode() for response in responses]
        assert all("[DONE]" in text for text in texts)
        assert await trial.check() == {"COMPLETED": 3}


async def test_what_is_told_of_a_call_goes_by_the_clock_as_it_was_set(trial: Trial, clock: Clock) -> None:
    with trial.worker():
        await trial.submit(1)
        assert await trial.check() == {"COMPLETED": 1}
        clock.step(HOUR)
        await _noticed(trial, clock)
        submitted = await trial.work.value("SELECT clock_timestamp()")
        [id] = await trial.submit(1)
        request = await trial.work.finished(id)
        [attempt] = await trial.work.attempts(id)
        lines = await trial.work.ledger(id)
    assert request.started_at is not None
    assert request.finished_at is not None
    for told in (request.started_at, request.finished_at, attempt.started_at, attempt.finished_at, lines[0].charged_at):
        assert 0 <= (told - submitted).total_seconds() < 60


async def test_a_worker_that_dies_after_a_step_is_found_when_its_lease_has_ended(trial: Trial, clock: Clock) -> None:
    trial.work.configure(latency_ms=60_000)
    with trial.worker() as first:
        await trial.submit(1)
        await trial.work.seen(running=1)
        clock.step(-HOUR)
        await _noticed(trial, clock)
        first.process.kill()
    trial.work.configure(latency_ms=0)
    with trial.worker():
        assert await trial.check() == {"COMPLETED": 1}

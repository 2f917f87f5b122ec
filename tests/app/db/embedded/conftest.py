"""Data directories that the embedded server can use, whoever runs the tests."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from app.db.embedded import embedded_postgres
from tests.app.db.embedded.users import (
    everything_stopped,
)


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

"""A program without a server runs one of its own, which its neighbours share and which goes with the last of them."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

import tollgate
from tests.tollgate_process import environment, processes_of

PROGRAM = """
import sys
import tollgate

service = tollgate.init(embedded=True, demo=True)
answer = service("openai:gpt-4o-mini", "Hello")
summary = service.get_usage_summary("openai:gpt-4o-mini")
print(service.url, answer.data, answer.cost, summary.requests, sep="|", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """In a directory that any user may enter: as root the database runs as another one."""
    directory = Path(tempfile.mkdtemp(prefix="tollgate-embedded-"))
    directory.chmod(0o755)
    yield directory / "data"
    assert processes_of(directory) == []
    shutil.rmtree(directory)


@contextmanager
def program(data_dir: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The process, and what it printed. It ends when its stdin is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment(data_dir),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip().split("|")
    finally:
        process.kill()
        process.communicate()


def wait_for_the_end(data_dir: Path) -> None:
    """The keeper holds this lock until the server and its database have stopped."""
    with (data_dir / "embedded" / "server.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)


def test_programs_share_a_server_that_ends_with_the_last_of_them_even_if_killed(data_dir: Path) -> None:
    with ExitStack() as stack:
        first, (url, text, cost, requests) = stack.enter_context(program(data_dir))
        assert (text, requests) == ("Hello from the emulator.", "1")
        assert float(cost) > 0
        second, (same_url, *_, requests) = stack.enter_context(program(data_dir))
        assert (same_url, requests) == (url, "2")

        with pytest.raises(tollgate.ConfigurationError, match="demo=True"):
            tollgate.init(embedded=True, data_dir=data_dir)

        first.kill()
        first.wait()
        third, (same_url, *_, requests) = stack.enter_context(program(data_dir))
        assert (same_url, requests) == (url, "3")
        third.communicate("")
        second.kill()
        second.wait()
        wait_for_the_end(data_dir)

    # What was charged is still there for whoever comes next, in this process now.
    with tollgate.init(data_dir=data_dir, demo=True) as service:
        assert service.get_usage_summary().requests == 3
        assert service("openai:gpt-4o-mini", "Hello").cost
    wait_for_the_end(data_dir)
    log = (data_dir / "embedded" / "log").read_text()
    assert "Traceback" not in log
    assert (data_dir / "admin-token").read_text().strip() not in log
    assert not (data_dir / "embedded" / "address.json").exists()


def test_a_server_that_cannot_start_says_why(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOLLGATE_LEASE_SECONDS", "never")
    with pytest.raises(tollgate.ConfigurationError, match="TOLLGATE_LEASE_SECONDS"):
        tollgate.init(embedded=True, data_dir=data_dir)
    wait_for_the_end(data_dir)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(tollgate.ConfigurationError, match="cannot be written"):
        tollgate.init(embedded=True, data_dir=tmp_path / "data")

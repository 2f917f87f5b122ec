"""The `tollgate` command as a process, as a user starts it: its own data directory, its own port, nothing inherited."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

TOLLGATE = (sys.executable, "-m", "app.cli")
READY = "Tollgate is ready at "
_START_SECONDS = 120
_NOT_INHERITED = {"DATABASE_URL", "ARGS", "MFLAGS"}


def environment(data_dir: Path, **variables: str) -> dict[str, str]:
    """The caller's, without what configures a Tollgate or comes from `make test`, and with `variables`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TOLLGATE_", "MAKE")) and not name.endswith("_API_KEY") and name not in _NOT_INHERITED
    }
    return {**kept, "TOLLGATE_DATA_DIR": str(data_dir), "COLUMNS": "100", "NO_COLOR": "1", **variables}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_command(*arguments: str, data_dir: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(
        [*TOLLGATE, *arguments],
        env=environment(data_dir, **variables),
        cwd=data_dir.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
    )


class TollgateProcess:
    """Leader of a session of its own, as in a terminal: `interrupt` reaches all that are in its foreground."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], cwd: Path) -> None:
        self.output = ""
        self._has_ended = False
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.output += line
                self._changed.notify_all()
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def wait_for(self, text: str, timeout_seconds: float = _START_SECONDS) -> Self:
        """Until the output holds `text`."""
        with self._changed:
            self._changed.wait_for(lambda: text in self.output or self._has_ended, timeout_seconds)
        assert text in self.output, f"no {text!r} in:\n{self.output}"
        return self

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def end(self, timeout_seconds: float = 60) -> int:
        """Waits for the end and answers the exit code."""
        code = self.process.wait(timeout_seconds)
        self._reader.join(timeout_seconds)
        return code


@contextmanager
def tollgate(
    *arguments: str, data_dir: Path, command: Sequence[str] = TOLLGATE, **variables: str
) -> Iterator[TollgateProcess]:
    """Stopped when the block ends, if it has not ended before."""
    process = TollgateProcess([*command, *arguments], environment(data_dir, **variables), data_dir.parent)
    try:
        yield process
    finally:
        if process.process.poll() is None:
            process.interrupt()
            try:
                process.end()
            except subprocess.TimeoutExpired:
                process.kill()


@dataclass(frozen=True, slots=True)
class Running:
    pid: int
    command: str


def processes_of(data_dir: Path) -> list[Running]:
    """The processes that were started for this data directory. Linux only."""
    mark = os.fsencode(data_dir)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if mark in command or mark in (entry / "environ").read_bytes():
                    found.append(Running(int(entry.name), command.replace(b"\0", b" ").decode(errors="replace")))
    return found

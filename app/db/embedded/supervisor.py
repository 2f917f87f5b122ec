"""The process that owns the embedded server: starts it, restarts it when it dies, stops it after its last user.

Run as `python -m app.db.embedded.supervisor HOME LISTENER USER SETTINGS`, where LISTENER and USER are inherited
descriptors: the socket that users connect to, and the connection of the user that started it. It answers each user
with one line of JSON once the server accepts connections: {"dsn", "notice"}, or {"error", "code"}.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import socket
import struct
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from app.db.embedded import cluster
from app.db.embedded.locks import acquire
from app.db.embedded.place import SOCKET_NAME, Place, find_place
from app.errors import DatabaseUnavailable, TollgateError

_PROBE_SECONDS = 0.01
_LONGEST_PROBE_SECONDS = 0.25
_START_ATTEMPTS = 3
_TAKE_OVER_SECONDS = 60.0
_STOP_SECONDS = 60.0
_STABLE_SECONDS = 10.0


class Supervisor:
    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self._home = home
        self._settings = settings
        self._users: set[asyncio.StreamWriter] = set()
        self._deserted = asyncio.Event()
        self._ready = asyncio.Event()
        self._answer = b""
        self._last_user: asyncio.StreamWriter | None = None
        self._place: Place | None = None
        self._server: Process | None = None

    async def run(self, listener: socket.socket, first_user: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=first_user)
        starter = asyncio.create_task(self._serve(reader, writer))
        door = await asyncio.start_unix_server(self._serve, sock=listener)
        keeper = asyncio.create_task(self._keep_running())
        deserted = asyncio.create_task(self._deserted.wait())
        await asyncio.wait({keeper, deserted}, return_when=asyncio.FIRST_COMPLETED)
        door.close()  # whoever comes from here on is turned away, and starts anew once the locks are free
        keeper.cancel()
        await asyncio.wait({keeper})
        await self._stop()
        starter.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Stands for one user, who is there as long as the connection is."""
        if self._deserted.is_set():  # too late: the stop has begun
            writer.close()
            return
        self._users.add(writer)
        gone = asyncio.create_task(_ended(reader))
        ready = asyncio.create_task(self._wait_until_ready())
        await asyncio.wait({gone, ready}, return_when=asyncio.FIRST_COMPLETED)
        if not gone.done():
            writer.write(self._answer)
            await gone
        ready.cancel()
        self._users.discard(writer)
        if self._users:
            writer.close()
        else:  # the last one's connection stays open until this process ends, for it to see that all has stopped
            self._last_user = writer
            self._deserted.set()

    async def _wait_until_ready(self) -> None:
        """A real connection decides: the server may just have died, or restart by itself after one backend crashed."""
        await self._ready.wait()
        while not (self._place and await accepts_connections(self._place.sockets)):
            await asyncio.sleep(_PROBE_SECONDS)
            await self._ready.wait()

    async def _keep_running(self) -> None:
        try:
            self._place = place = find_place(self._home)
            delay = 0.0
            while True:
                started = time.monotonic()
                log_end = _size(self._log_path)
                attempt = 1
                while not await self._start(place):
                    assert self._server is not None
                    was_killed = (self._server.returncode or 0) < 0  # by somebody else: it did not fail by itself
                    if not was_killed or attempt == _START_ATTEMPTS:
                        raise DatabaseUnavailable(f"the embedded PostgreSQL did not start: {self._reason(log_end)}")
                    attempt += 1
                self._answer = _line(dsn=cluster.dsn(place), notice=place.notice)
                self._ready.set()
                assert self._server is not None
                status = await self._server.wait()
                self._ready.clear()
                _log(f"PostgreSQL ended with status {status}; starting it again")
                await asyncio.sleep(delay)
                delay = 1.0 if time.monotonic() - started < _STABLE_SECONDS else 0.0
        except TollgateError as error:
            await self._give_up(error.message, error.code)
        except Exception as error:  # noqa: BLE001 - whatever it is, those who wait must hear of it
            await self._give_up(f"the embedded PostgreSQL failed: {type(error).__name__}: {error}", "")

    async def _give_up(self, message: str, code: str) -> None:
        _log(message)
        for user in self._users:
            user.write(_line(error=message, code=code))
            with suppress(OSError):
                await user.drain()

    async def _start(self, place: Place) -> bool:
        """Whether it came to accept connections; if not, it has ended."""
        lock = await self._take_server_lock(place)
        try:
            await cluster.ensure(place, lock)
            self._server = await asyncio.create_subprocess_exec(
                *cluster.command(place, self._settings),
                stdin=asyncio.subprocess.DEVNULL,
                cwd="/",
                env=cluster.ENVIRONMENT,
                pass_fds=(lock,),
                preexec_fn=_die_with(os.getpid()),
                **place.identity(),
            )
        finally:
            os.close(lock)
        pause = _PROBE_SECONDS
        ended = asyncio.create_task(self._server.wait())
        while not await accepts_connections(place.sockets):
            await asyncio.wait({ended}, timeout=pause)
            if ended.done():
                return False
            pause = min(pause * 1.2, _LONGEST_PROBE_SECONDS)  # recovery may take long, and each attempt leaves a line
        return True

    async def _take_server_lock(self, place: Place) -> int:
        """Waits until no process of a former server lives. Linux stops those of a supervisor that was killed."""
        path = place.directory / "server.lock"
        orphan = listener_pid(place.sockets / SOCKET_NAME)
        if orphan is not None and (self._server is None or orphan != self._server.pid):
            _log(f"stopping the orphaned PostgreSQL, process {orphan}")
            os.kill(orphan, signal.SIGINT)
        try:
            return await acquire(path, timeout_seconds=_TAKE_OVER_SECONDS)
        except TimeoutError:
            raise DatabaseUnavailable(f"another PostgreSQL still uses {place.directory} and does not stop") from None

    async def _stop(self) -> None:
        """Fast, then without a checkpoint, then by force: the write-ahead log covers each."""
        if self._server is None or self._server.returncode is not None:
            return
        for step in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            self._server.send_signal(step)
            try:
                await asyncio.wait_for(self._server.wait(), _STOP_SECONDS)
                break
            except TimeoutError:
                _log(f"PostgreSQL has not stopped {_STOP_SECONDS:g} s after {step.name}")

    @property
    def _log_path(self) -> Path:
        return self._home / "log"

    def _reason(self, log_end: int) -> str:
        with self._log_path.open("rb") as file:
            file.seek(log_end)
            lines = file.read().decode(errors="replace").splitlines()
        severe = [line.partition(mark)[2].strip() for line in lines for mark in ("FATAL:", "PANIC:") if mark in line]
        own = [
            line for line in severe if not line.startswith("the database system is")
        ]  # that is what clients are told
        return f"{' / '.join(own[-2:] or lines[-1:]) or 'it said nothing'} (see {self._log_path})"


async def accepts_connections(sockets: Path) -> bool:
    """Whether a server asks a new connection for its password, which it does once it is ready."""
    try:
        reader, writer = await asyncio.open_unix_connection(sockets / SOCKET_NAME)
    except OSError:
        return False
    parameters = b"user\0tollgate\0database\0tollgate\0\0"
    writer.write(struct.pack("!ii", 8 + len(parameters), 3 << 16) + parameters)
    try:
        return await reader.read(1) == b"R"
    except OSError:
        return False
    finally:
        writer.close()


def listener_pid(path: Path) -> int | None:
    """The process that listens on a socket, as the kernel knows it; null where nobody does or it cannot be known."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(os.fspath(path))
            if sys.platform == "linux":
                return int(struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]) or None
            return probe.getsockopt(0, 0x002) or None  # SOL_LOCAL, LOCAL_PEERPID of macOS
        except OSError:
            return None


def _die_with(parent: int) -> Callable[[], None] | None:
    """Has Linux stop the server, fast and clean, when this process is killed."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def ask() -> None:
        prctl(1, signal.SIGINT, 0, 0, 0)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return ask


async def _ended(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        await reader.read()


def _line(**answer: str | None) -> bytes:
    return json.dumps(answer).encode() + b"\n"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _log(message: str) -> None:
    sys.stderr.write(f"{time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())} supervisor: {message}\n")
    sys.stderr.flush()


def main() -> None:
    home, listener, user, settings = sys.argv[1:]
    if os.fork():  # leaves the starter's family, so that nobody has to collect it
        os._exit(0)
    # It ends with its last user: a signal to everybody, say a service manager's, must not overtake their drain.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    supervisor = Supervisor(Path(home), json.loads(settings))
    asyncio.run(supervisor.run(socket.socket(fileno=int(listener)), socket.socket(fileno=int(user))))


if __name__ == "__main__":
    main()

"""The side of a process that uses the embedded server."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from app.db.embedded.locks import acquire, give, open_private
from app.db.embedded.place import prepare_home, socket_directory
from app.errors import ConfigurationError, DatabaseUnavailable

_logger = logging.getLogger(__name__)
_START_SECONDS = 300.0  # recovery after a crash under load can take a while, and must not be begun over and over
_START_ATTEMPTS = 3
_STOP_SECONDS = 90.0
_LOG_BYTES = 4 * 1024 * 1024

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def embedded_postgres(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Holds a PostgreSQL in `data_dir`, shared with every process that does the same, and yields its DSN.

    The last to leave stops it and waits until it has stopped. `settings` are server settings in addition to those of
    `cluster.SETTINGS`; they count for whoever starts it. Raises ConfigurationError and DatabaseUnavailable.
    """
    if sys.platform == "win32":
        raise ConfigurationError("the embedded PostgreSQL needs Linux or macOS; set DATABASE_URL")
    hold = _Hold(prepare_home(data_dir), dict(settings or {}))
    try:
        dsn = await hold.join()
    except BaseException:
        hold.drop()
        raise
    keeper = asyncio.create_task(hold.keep())
    try:
        yield dsn
    finally:
        keeper.cancel()
        await asyncio.wait({keeper})
        await hold.leave()


class _Hold:
    def __init__(self, home: Path, settings: Mapping[str, str]) -> None:
        self._home = home
        self._settings = settings
        self._door = socket_directory(home, "control") / "control"
        self._stream: Stream | None = None

    async def join(self) -> str:
        """Connects to the supervisor, starting one where there is none, and waits until the server is ready."""
        try:
            async with asyncio.timeout(_START_SECONDS):
                attempts = _START_ATTEMPTS
                while attempts:
                    stream, is_ours = await self._connect_or_start()
                    self._stream = stream
                    line = await _read_line(stream)
                    if line:
                        return self._accept(json.loads(line))
                    stream[1].close()
                    attempts -= is_ours  # another's was about to stop, which is no failure
        except TimeoutError:
            raise DatabaseUnavailable(
                f"the embedded PostgreSQL was not ready after {_START_SECONDS:g} s (see {self._home / 'log'})"
            ) from None
        raise DatabaseUnavailable(f"the embedded PostgreSQL failed to start (see {self._home / 'log'})")

    async def keep(self) -> None:
        """Replaces a supervisor that was killed, for as long as this process needs the server."""
        delay = 0.1
        while True:
            assert self._stream is not None
            with suppress(OSError):
                await self._stream[0].read()
            self._stream[1].close()
            _logger.warning("the supervisor of the embedded PostgreSQL has ended; starting another")
            try:
                await self.join()
                delay = 0.1
            except (ConfigurationError, DatabaseUnavailable) as error:
                _logger.error("%s; trying again in %g s", error.message, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 5.0)

    def drop(self) -> None:
        """As if this process had died: a supervisor without users stops by itself."""
        if self._stream is not None:
            self._stream[1].close()

    async def leave(self) -> None:
        """Says goodbye and waits for the answer, which comes at once unless this was the last user."""
        if self._stream is None:
            return
        reader, writer = self._stream
        with suppress(OSError):
            writer.write_eof()
            try:
                await asyncio.wait_for(reader.read(), _STOP_SECONDS)
            except TimeoutError:
                _logger.error("the embedded PostgreSQL has not stopped after %g s", _STOP_SECONDS)
        writer.close()

    def _accept(self, answer: Mapping[str, str | None]) -> str:
        error, dsn = answer.get("error"), answer.get("dsn")
        if error is not None:
            kind = ConfigurationError if answer.get("code") == ConfigurationError.code else DatabaseUnavailable
            raise kind(error)
        if notice := answer.get("notice"):
            _logger.warning("%s", notice)
        assert dsn is not None
        return dsn

    async def _connect_or_start(self) -> tuple[Stream, bool]:
        if stream := await self._connect():
            return stream, False
        starting = await acquire(self._home / "start.lock")
        try:
            if stream := await self._connect():
                return stream, False
            lifetime = await acquire(self._home / "supervisor.lock")
            try:
                return await self._start(lifetime), True
            finally:
                os.close(lifetime)
        finally:
            os.close(starting)

    async def _connect(self) -> Stream | None:
        try:
            return await asyncio.open_unix_connection(self._door)
        except OSError:
            return None

    async def _start(self, lifetime: int) -> Stream:
        """Starts a supervisor that inherits its lock, the socket that users connect to, and this user's connection."""
        mine, its = socket.socketpair()
        stream = await asyncio.open_unix_connection(sock=mine)
        self._stream = stream
        with its, self._open_door() as door:
            log = self._open_log()
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "app.db.embedded.supervisor"),
                    *(str(self._home), str(door.fileno()), str(its.fileno()), json.dumps(self._settings)),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    env=_environment(),
                    pass_fds=(lifetime, door.fileno(), its.fileno()),
                    start_new_session=True,  # a terminal's Ctrl-C must not reach the server before its users are done
                )
            finally:
                os.close(log)
            await process.wait()
        return stream

    def _open_door(self) -> socket.socket:
        door = socket.socket(socket.AF_UNIX)
        try:
            self._door.unlink(missing_ok=True)
            door.bind(os.fspath(self._door))
            self._door.chmod(0o600)
            if os.geteuid() == 0:
                give(self._door, self._home)
            door.listen(128)
        except OSError as error:
            door.close()
            raise ConfigurationError(f"no socket can be made at {self._door}: {error.strerror}") from None
        return door

    def _open_log(self) -> int:
        path = self._home / "log"
        if path.exists() and path.stat().st_size > _LOG_BYTES:
            path.rename(path.with_suffix(".old"))
        return open_private(path, os.O_WRONLY | os.O_APPEND)


def _environment() -> dict[str, str]:
    """What Python needs to find the same modules; nothing of the secrets that the environment may hold."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONHOME", "LD_LIBRARY_PATH") if name in os.environ}
    search = [str(Path(__file__).parents[3]), os.environ.get("PYTHONPATH", "")]
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, search))}


async def _read_line(stream: Stream) -> bytes:
    try:
        return await stream[0].readline()
    except OSError:
        return b""

"""A server on this machine for programs that have none: started by the first, shared by all, gone with the last."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tollgate import keeper
from tollgate.errors import ConfigurationError

_STARTING: Final = "starting.lock"
_LOG: Final = "log"
_START_SECONDS: Final = 300.0
_LOOK_AGAIN_SECONDS: Final = 0.02
_LAST_LINES: Final = 5
# Of another server, whose database this one's must not be.
_NOT_INHERITED: Final = frozenset(
    {"DATABASE_URL", "TOLLGATE_ADMIN_TOKEN", "TOLLGATE_HOST", "TOLLGATE_PORT", "TOLLGATE_URL", "TOLLGATE_TOKEN"}
)


class EmbeddedServer:
    """This program's share in the server of a data directory."""

    def __init__(self, url: str, token: str, lock: int) -> None:
        self.url = url
        self.token = token
        self._release = weakref.finalize(self, os.close, lock)

    def close(self) -> None:
        """The server stops when nobody uses it any more."""
        self._release()


def join(data_dir: Path, *, demo: bool) -> EmbeddedServer:
    """Starts the server where none runs yet, and waits until it is ready. Raises ConfigurationError."""
    data_dir = data_dir.resolve()
    home = data_dir / "embedded"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
        lock = os.open(home / keeper.USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"the data directory {data_dir} cannot be written: {error.strerror}") from None
    try:
        # It is not to be had while a server that nobody used stops.
        _wait(lambda: _try_lock(lock, fcntl.LOCK_SH), f"the embedded server in {data_dir} is stopping")
        arguments = ["--demo"] if demo else []
        with _exclusively(home / _STARTING):
            address = _address(home) if _is_running(home) else None
            if address is None:
                address = _start(home, data_dir, arguments)
        if address["arguments"] != arguments:
            shown = "with demo=True" if "--demo" in address["arguments"] else "without demo=True"
            raise ConfigurationError(f"another program runs the embedded server in {data_dir} {shown}", path=("demo",))
        return EmbeddedServer(address["url"], _token(data_dir), lock)
    except BaseException:
        os.close(lock)
        raise


def _start(home: Path, data_dir: Path, arguments: list[str]) -> dict[str, Any]:
    (home / keeper.ADDRESS).unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    descriptor = os.open(home / _LOG, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603 - own words
            [sys.executable, "-I", str(Path(keeper.__file__).resolve()), str(home), *arguments],
            env={**kept, "TOLLGATE_DATA_DIR": str(data_dir), "TOLLGATE_HOST": "127.0.0.1", "TOLLGATE_PORT": "0"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=descriptor,
            # A terminal's Ctrl-C is for this program, not for a server that others may use.
            start_new_session=True,
        )
    finally:
        os.close(descriptor)
    _wait(
        lambda: process.poll() is not None or (home / keeper.ADDRESS).exists(),
        f"the embedded server was not ready; see {home / _LOG}",
    )
    address = _address(home)
    if address is None:
        lines = (home / _LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ConfigurationError(
            f"the embedded server did not start; see {home / _LOG}: " + " ".join(lines[-_LAST_LINES:])
        )
    # Whenever it ends: nothing is left of it then.
    threading.Thread(target=process.wait, name="tollgate-embedded", daemon=True).start()
    return address


def _address(home: Path) -> dict[str, Any] | None:
    try:
        address: dict[str, Any] = json.loads((home / keeper.ADDRESS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return address


def _token(data_dir: Path) -> str:
    path = data_dir / "admin-token"
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        raise ConfigurationError(
            f"{path} is missing: start the server with `tollgate run`, and give its url and a token"
        ) from None


def _is_running(home: Path) -> bool:
    descriptor = os.open(home / keeper.SERVER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        return not _try_lock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _exclusively(path: Path) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _wait(lambda: _try_lock(descriptor, fcntl.LOCK_EX), "another program's start of the embedded server takes long")
        yield
    finally:
        os.close(descriptor)


def _wait(is_so: Callable[[], bool], otherwise: str) -> None:
    ends_at = time.monotonic() + _START_SECONDS
    while not is_so():
        if time.monotonic() > ends_at:
            raise ConfigurationError(f"{otherwise} (after {_START_SECONDS:g} s)")
        time.sleep(_LOOK_AGAIN_SECONDS)

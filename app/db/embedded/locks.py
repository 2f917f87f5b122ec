"""Locks on files that the kernel releases with the last process that holds them."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from pathlib import Path


def open_private(path: Path, flags: int) -> int:
    """Opens a file that only its owner may read, makes it where missing, and never follows a link.

    Where root opens it, it belongs to whom its directory belongs to, who may come back without root.
    """
    descriptor = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    if os.geteuid() == 0:
        give(descriptor, path.parent)
    return descriptor


def give(target: int | Path, like: Path) -> None:
    """Makes `target` belong to the owner of `like`."""
    owner = like.stat()
    os.chown(target, owner.st_uid, owner.st_gid)


async def acquire(path: Path, *, timeout_seconds: float | None = None) -> int:
    """Takes the exclusive lock and returns its descriptor: closing the last copy of it lets go.

    Raises TimeoutError.
    """
    descriptor = open_private(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return await _block(descriptor, timeout_seconds)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


async def _block(descriptor: int, timeout_seconds: float | None) -> int:
    """Waits in a daemon thread, since flock knows no timeout and an executor's thread would hold up the exit."""
    loop = asyncio.get_running_loop()
    taken: asyncio.Future[int] = loop.create_future()

    def deliver() -> None:
        if taken.done():
            os.close(descriptor)
        else:
            taken.set_result(descriptor)

    def wait() -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        try:
            loop.call_soon_threadsafe(deliver)
        except RuntimeError:  # the loop has closed: nobody wants the lock any more
            os.close(descriptor)

    threading.Thread(target=wait, name="tollgate-lock", daemon=True).start()
    return await asyncio.wait_for(taken, timeout_seconds)

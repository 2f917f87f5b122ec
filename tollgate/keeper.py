"""Keeps an embedded server running for as long as a program holds its lock, and says where it listens.

A process of its own, run by its path: it outlives the program that started it where others use the server too. The
kernel releases a lock with the process that holds it, so that a program that is killed is not waited for.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

READY = b"Tollgate is ready at "
USERS, SERVER, ADDRESS = "users.lock", "server.lock", "address.json"


def main(home: Path, *arguments: str) -> int:
    """`arguments` are those of `tollgate run`. Its exit code."""
    # Held until this process ends: taking it means that there is no server.
    server = os.open(home / SERVER, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(server, fcntl.LOCK_EX)
    process = subprocess.Popen(  # noqa: S603 - own words
        [sys.executable, "-m", "app.cli", "run", "--until-stdin-closes", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    # The descriptor is kept for as long as this process lives: whoever comes while the server stops waits for that.
    users = os.open(home / USERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    threading.Thread(target=_stop_when_unused, args=(users, process.stdin), daemon=True).start()
    for line in process.stdout:
        # Nothing else of it is kept: it may hold a token.
        if line.startswith(READY):
            _publish(home / ADDRESS, line.removeprefix(READY).decode().strip(), arguments)
    code = process.wait()
    (home / ADDRESS).unlink(missing_ok=True)
    return code


def _stop_when_unused(users: int, stdin: IO[bytes]) -> None:
    fcntl.flock(users, fcntl.LOCK_EX)
    stdin.close()


def _publish(path: Path, url: str, arguments: tuple[str, ...]) -> None:
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps({"url": url, "arguments": arguments}), encoding="utf-8")
    draft.replace(path)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))

"""A process beside another that kills it when it has not been heard of in time. Needs the standard library only.

Run as `python guardian.py`, by the process to be killed. Its stdin brings instants of time.monotonic(), which on one
machine is the same for all processes: each replaces the one before. When one passes, the process that started this
one is killed, and the kernel closes its connections. The end of stdin ends it: that process is gone, or needs none.
"""

from __future__ import annotations

import math
import os
import select
import signal
import struct
import sys
import time

INSTANT = struct.Struct("=d")


def main() -> None:
    guarded = os.getppid()
    stdin = sys.stdin.fileno()
    kill_at = math.inf
    data = b""
    while True:
        left = None if math.isinf(kill_at) else max(0.0, kill_at - time.monotonic())
        if select.select([stdin], [], [], left)[0]:
            piece = os.read(stdin, 65536)
            if not piece:
                return
            data += piece
            whole = len(data) // INSTANT.size * INSTANT.size
            if whole:
                (kill_at,) = INSTANT.unpack(data[whole - INSTANT.size : whole])
                data = data[whole:]
        elif time.monotonic() >= kill_at:
            # A process whose parent has gone gets another one: never kill that.
            if os.getppid() == guarded:
                os.kill(guarded, signal.SIGKILL)
                sys.stderr.write(f'{{"event": "frozen_process_killed", "level": "error", "pid": {guarded}}}\n')
            return


if __name__ == "__main__":
    main()

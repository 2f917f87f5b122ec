"""A process that follows the catalog and prints, for each revision that it holds, when it came to hold it."""

from __future__ import annotations

import asyncio
import sys
import time

from app.catalog.snapshot import Snapshot
from app.catalog.snapshots import SnapshotHolder
from app.db.listen import Listener
from app.db.pool import Database


def report(snapshot: Snapshot) -> None:
    sys.stdout.write(f"{snapshot.revision} {time.monotonic_ns()}\n")
    sys.stdout.flush()


async def follow(dsn: str) -> None:
    database = await Database.connect(dsn, size=2)
    snapshots = SnapshotHolder(database)
    snapshots.on_change(report)
    listener = Listener(dsn)
    snapshots.attach(listener)
    await listener.start()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await listener.stop()
    await snapshots.stop()
    await database.close()


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1]))

"""What processes consume: CPU time, memory, and the transactions of a server. Linux only."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from app.db.pool import Database
from bench.place import resident_mb

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Consumed:
    """`own_cpu_seconds` of a process and its children; `server_cpu_seconds` of its PostgreSQL, 0 where it has none."""

    own_cpu_seconds: float
    server_cpu_seconds: float
    transactions: int
    """That wrote something: each is a commit, and a flush of the log."""

    def since(self, before: Consumed) -> Consumed:
        return Consumed(
            self.own_cpu_seconds - before.own_cpu_seconds,
            self.server_cpu_seconds - before.server_cpu_seconds,
            self.transactions - before.transactions,
        )


async def consumed(pid: int, database: Database | None = None) -> Consumed:
    own = _cpu_seconds(_family(pid))
    if database is None:
        return Consumed(own, 0.0, 0)
    async with database.connection() as connection:
        backend = await connection.fetchval("SELECT pg_backend_pid()")
        transactions = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    return Consumed(own, _cpu_seconds(_family(_parent(backend))), transactions)


def family_mb(pid: int) -> float:
    """Resident memory of a process and its children."""
    return sum(resident_mb(member) for member in _family(pid))


def _family(pid: int) -> list[int]:
    members = [pid]
    for candidate in _pids():
        if candidate != pid and _parent(candidate) in members:
            members.append(candidate)
    return members


def _pids() -> list[int]:
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _fields(pid: int) -> list[str]:
    try:
        # The name of the program, in parentheses, may hold anything.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[1]) if fields else 0


def _cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time; of the children that have ended as well."""
    return sum(sum(map(int, fields[11:15])) for pid in pids if (fields := _fields(pid))) / _TICKS_PER_SECOND

"""`python -m bench` (or `make bench`): measures Tollgate side by side with others and prints one table."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvloop
from rich.console import Console

from app.db.pool import Database
from bench import catalog, claims, cost, gateway, pgqueuer_peer, size, streams, worker
from bench.place import fresh_database, open_server
from bench.table import Row, as_markdown, print_table
from seed.service import seed_genai_prices, seed_reference

_QUIET_LOAD = 0.5


@dataclass(frozen=True, slots=True)
class Bench:
    """Where a part runs: the server's DSN, a directory for data, and how long each measurement lasts."""

    server: str
    data_dir: Path
    seconds: float


async def _catalog(bench: Bench) -> list[Row]:
    async with fresh_database(bench.server, "bench_six") as six:
        await seed_reference(six)
        rows = await catalog.run_six(six, bench.seconds, bench.data_dir)
    async with _whole_catalog(bench) as whole:
        return rows + await catalog.run_all(whole, bench.seconds, bench.data_dir)


async def _claims(bench: Bench) -> list[Row]:
    peer = await pgqueuer_peer.drain_rate(bench.server, bench.seconds)
    async with fresh_database(bench.server, "bench_claims") as database:
        return await claims.run(database, bench.seconds, bench.data_dir, peer)


async def _worker(bench: Bench) -> list[Row]:
    async with fresh_database(bench.server, "bench_worker") as database:
        return await worker.run(database, bench.seconds, bench.data_dir)


async def _size(bench: Bench) -> list[Row]:
    async with _whole_catalog(bench) as whole:
        rows = await size.run_memory(whole, bench.seconds, bench.data_dir)
    return rows + await size.run_start(bench.data_dir)


async def _cost(bench: Bench) -> list[Row]:
    async with fresh_database(bench.server, "bench_cost") as database:
        return await cost.run(database, bench.seconds)


async def _gateway(bench: Bench) -> list[Row]:
    async with fresh_database(bench.server, "bench_gateway") as database:
        return await gateway.run(database, bench.seconds, bench.data_dir)


async def _streams(bench: Bench) -> list[Row]:
    async with fresh_database(bench.server, "bench_streams") as database:
        rows = await streams.run(database, bench.data_dir)
    async with fresh_database(bench.server, "bench_waiting") as database:
        return rows + await streams.run_waiting(database, bench.data_dir)


_PARTS: dict[str, Callable[[Bench], Awaitable[list[Row]]]] = {
    "catalog": _catalog,
    "claims": _claims,
    "worker": _worker,
    "size": _size,
    "cost": _cost,
    "gateway": _gateway,
    "streams": _streams,
}


@asynccontextmanager
async def _whole_catalog(bench: Bench) -> AsyncIterator[Database]:
    async with fresh_database(bench.server, "bench_all") as database:
        await seed_genai_prices(database)
        yield database


async def _run(names: list[str], seconds: float, data_dir: Path, console: Console) -> tuple[list[Row], list[str]]:
    """The rows, and what failed to run."""
    rows: list[Row] = []
    failed: list[str] = []
    async with open_server(data_dir) as server:
        for name in names:
            console.print(f"{name} ...", style="dim")
            try:
                rows += await _PARTS[name](Bench(server, data_dir, seconds))
            except Exception as error:  # noqa: BLE001 - the other parts still run; the exit code tells
                failed.append(f"{name}: {type(error).__name__}: {error}")
                rows.append(Row(name, "failed"))
    return rows, failed


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", default=",".join(_PARTS), help=f"parts to run, separated by commas: {', '.join(_PARTS)}"
    )
    parser.add_argument("--seconds", type=float, default=3, help="how long each measurement lasts (default: 3)")
    parser.add_argument("--out", type=Path, help="write the table to this file as well, as Markdown")
    options = parser.parse_args()
    names = [name.strip() for name in options.only.split(",") if name.strip()]
    if unknown := [name for name in names if name not in _PARTS]:
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(_PARTS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    console = Console() if sys.stdout.isatty() else Console(width=200)
    begun, machine, load = time.monotonic(), _machine(), os.getloadavg()[0]
    console.print(machine, style="dim")
    if load > _QUIET_LOAD:
        console.print("other programs are at work on this machine: rates will be too low, times too long", style="red")
    with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as directory:
        data_dir = Path(directory)
        data_dir.chmod(0o711)  # as root the embedded server runs as another user, who must pass through
        rows, failed = uvloop.run(_run(names, options.seconds, data_dir, console))
    print_table(console, rows)
    console.print(f"{time.monotonic() - begun:.0f} s; a row in red has missed its target", style="dim")
    if options.out is not None:
        options.out.write_text(f"{machine}\n\n{as_markdown(rows)}", encoding="utf-8")
    for failure in failed:
        console.print(failure, style="red", markup=False)
    if failed:
        raise SystemExit(1)


def _machine() -> str:
    cores = os.cpu_count()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {cores} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"load average before the run {os.getloadavg()[0]:.1f}"
    )


if __name__ == "__main__":
    main()

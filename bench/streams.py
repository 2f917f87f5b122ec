"""Streamed completions through gateways: what each adds to the first byte, and what a stream costs. And 1,000 waiting.

50 chunks come 10 ms apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.db.pool import Database
from bench.claims import PROVIDER, prepare
from bench.consumption import consumed
from bench.gateway import DIRECT, OURS, check_accounts, emulator, opened
from bench.gateways import PORTKEY, Gateway
from bench.place import TOKEN, api_process, free_port, resident_mb
from bench.table import Row, at_most

_CONNECTIONS = 16
_STREAMS_EACH = 4
_ROUNDS = 3
_CHUNKS = 50
_CHUNK_MS = 10
_WAITING = 1_000
_PROMPT = "Which sea is the saltiest? " * 40
"""About a kilobyte."""


@dataclass(slots=True)
class Streams:
    """In seconds: until the first byte of each stream's body, and between its pieces the longest time."""

    first_byte: list[float] = field(default_factory=list)
    longest_gap: list[float] = field(default_factory=list)
    own_cpu_ms: float = 0.0
    """Of the gateway, per stream."""
    server_cpu_ms: float = 0.0
    """Of its database, per stream."""

    @property
    def cpu_ms(self) -> float:
        return self.own_cpu_ms + self.server_cpu_ms

    @property
    def effort(self) -> tuple[float, float]:
        return self.cpu_ms, self.p50(self.first_byte)

    def p50(self, of: Sequence[float]) -> float:
        return sorted(of)[len(of) // 2] * 1000


class PeerFailed(Exception):
    """It does not stream as it should; ours must."""


async def run(database: Database, data_dir: Path) -> list[Row]:
    async with (
        emulator("--chunk-ms", str(_CHUNK_MS)) as base_url,
        opened(database, base_url, data_dir) as (gateways, notes),
    ):
        failed: set[str] = set()
        measured: dict[str, Streams] = {}
        for number, gateway in itertools.product(range(_ROUNDS + 1), gateways):
            if gateway.name in failed:
                continue
            try:
                streams = await _streams(gateway, each=_STREAMS_EACH)
            except PeerFailed as error:
                failed.add(gateway.name)
                measured.pop(gateway.name, None)
                notes.append(Row(f"streams: {error}", "", gateway.name))
                continue
            # The first round warms up. Of the others the one with the least work: what it costs, undisturbed.
            if number == 1 or (number > 1 and streams.effort < measured[gateway.name].effort):
                measured[gateway.name] = streams
    await check_accounts(database)
    return _rows(measured) + notes


async def run_waiting(database: Database, data_dir: Path) -> list[Row]:
    """Clients that wait for the one permit there is, each with a request of its own."""
    await prepare(database)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE llm_providers SET max_parallel_requests = 1, updated_at = now() WHERE name = $1", PROVIDER
        )
    async with emulator("--latency-ms", "600000") as base_url:
        port = free_port()
        environment = {"TOLLGATE_EMULATOR_URL": base_url.partition("/openai")[0]}
        async with api_process(database.dsn, port, data_dir, environment) as started:
            gateway = Gateway(OURS, port, "/v1/chat/completions", f"{PROVIDER}:gpt-4o", TOKEN)
            async with _clients(gateway, 1, database):
                before = resident_mb(started.pid)
                async with _clients(gateway, _WAITING, database):
                    grown = resident_mb(started.pid) - before
    return [at_most(f"gateway: RSS grown under {_WAITING:,} waiting clients", grown, 100, "MB")]


@contextlib.asynccontextmanager
async def _clients(gateway: Gateway, count: int, database: Database) -> AsyncIterator[None]:
    """So many more calls under way, all of them in the database."""
    async with database.connection() as connection:
        there = await connection.fetchval(_UNDER_WAY)
        opened = await asyncio.gather(
            *(asyncio.open_connection("127.0.0.1", gateway.port, limit=2**18) for _ in range(count))
        )
        for _, writer in opened:
            writer.write(_request(gateway, _PROMPT, stream=False))
        async with asyncio.timeout(60):
            while True:
                if await connection.fetchval(_UNDER_WAY) >= there + count:
                    break
                await asyncio.sleep(0.05)
    try:
        yield
    finally:
        for _, writer in opened:
            writer.close()


_UNDER_WAY = "SELECT count(*) FROM model_requests WHERE status IN ('PENDING', 'PROCESSING')"


async def _streams(gateway: Gateway, *, each: int) -> Streams:
    streams = Streams()
    before = await consumed(gateway.pid, gateway.database) if gateway.pid is not None else None
    await asyncio.gather(*(_one_after_the_other(gateway, index, each, streams) for index in range(_CONNECTIONS)))
    if gateway.pid is not None and before is not None:
        cost = (await consumed(gateway.pid, gateway.database)).since(before)
        streams.own_cpu_ms = cost.own_cpu_seconds * 1000 / (_CONNECTIONS * each)
        streams.server_cpu_ms = cost.server_cpu_seconds * 1000 / (_CONNECTIONS * each)
    return streams


async def _one_after_the_other(gateway: Gateway, index: int, count: int, streams: Streams) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    # Evenly over the length of a stream, as clients come: not all at one instant.
    await asyncio.sleep(index * _CHUNKS * _CHUNK_MS / 1000 / _CONNECTIONS)
    for _ in range(count):
        begun = time.perf_counter()
        writer.write(_request(gateway, "Which sea is the saltiest?", stream=True))
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200") or b"chunked" not in head.lower():
            raise _failure(gateway, f"answered {head.splitlines()[0]!r}")
        arrivals, whole = [], b""
        while not whole.endswith(b"\r\n0\r\n\r\n"):
            piece = await reader.read(65_536)
            if not piece:
                raise _failure(gateway, "closed a stream")
            arrivals.append(time.perf_counter())
            whole += piece
        if b"[DONE]" not in whole:
            raise _failure(gateway, f"sent no whole stream: {whole[-100:]!r}")
        streams.first_byte.append(arrivals[0] - begun)
        streams.longest_gap.append(max((b - a for a, b in itertools.pairwise(arrivals)), default=0.0))
    writer.close()


def _failure(gateway: Gateway, what: str) -> Exception:
    return (RuntimeError if gateway.name in (OURS, DIRECT) else PeerFailed)(f"{gateway.name} {what}")


def _request(gateway: Gateway, question: str, *, stream: bool) -> bytes:
    asked = {"model": gateway.model, "messages": [{"role": "user", "content": question}], "max_tokens": 64}
    body = json.dumps({**asked, "stream": True} if stream else asked).encode()
    headers = {
        "host": f"127.0.0.1:{gateway.port}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        "authorization": f"Bearer {gateway.token}",
        **gateway.headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"POST {gateway.path} HTTP/1.1\r\n{lines}\r\n".encode() + body


def _rows(measured: dict[str, Streams]) -> list[Row]:
    ours, direct = measured[OURS], measured[DIRECT]
    others = {name: one for name, one in measured.items() if name not in (OURS, DIRECT)}
    what = f"streams of {_CHUNKS} chunks {_CHUNK_MS} ms apart, c={_CONNECTIONS}"
    base = direct.p50(direct.first_byte)

    def added(one: Streams) -> float:
        return one.p50(one.first_byte) - base

    def beside(values: dict[str, float]) -> str:
        return ", ".join(f"{name} {value:.1f}" for name, value in values.items())

    first = at_most(f"{what}: added time to first byte, p50", added(ours), 5, "ms")
    least = others[PORTKEY].cpu_ms if PORTKEY in others else None
    return [
        Row(
            first.what,
            first.ours,
            beside({name: added(one) for name, one in others.items()}),
            target=first.target,
            met=first.met,
        ),
        Row(
            f"{what}: longest gap in a stream, p50",
            f"{ours.p50(ours.longest_gap):.1f} ms",
            beside({name: one.p50(one.longest_gap) for name, one in measured.items() if name != OURS}),
        ),
        Row(
            f"{what}: CPU ms per stream",
            f"{ours.own_cpu_ms:.1f} + PostgreSQL {ours.server_cpu_ms:.1f}",
            beside({name: one.cpu_ms for name, one in others.items()}),
            target="" if least is None else "< Portkey's",
            met=None if least is None else ours.cpu_ms < least,
        ),
    ]

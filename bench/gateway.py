"""Chat completions through gateways, not streamed: how many a second, what each adds, and what it costs.

Ours accounts for every call in PostgreSQL, under exact limits; the others do neither. The provider answers at once.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from app.db.pool import Database
from bench.claims import prepare
from bench.consumption import Consumed, consumed, family_mb
from bench.gateways import LITELLM, MODEL, PORTKEY, Gateway, PeerMissing, peers
from bench.load import Plan, Result, generate
from bench.place import TOKEN, api_process, free_port, process
from bench.table import Row, at_most, compared

OURS = "Tollgate"
DIRECT = "direct"
_ROUNDS = 2
_WARM_UP_SECONDS = 3.0
_CONNECTIONS = (1, 16, 64)
_QUESTION = {"role": "user", "content": "Which sea is the saltiest?"}


@dataclass(frozen=True, slots=True)
class Measured:
    result: Result
    cost: Consumed

    @property
    def cpu_ms(self) -> float:
        """Per call, also those of the warm-up; the same number as seconds per 1,000 calls."""
        return (self.cost.own_cpu_seconds + self.cost.server_cpu_seconds) * 1000 / self.result.sent


async def run(database: Database, seconds: float, data_dir: Path) -> list[Row]:
    async with emulator() as base_url, opened(database, base_url, data_dir) as (gateways, notes):
        for gateway in gateways:
            # Statements are prepared at the first calls, and with some peers much is loaded.
            await asyncio.to_thread(generate, _plan(gateway, 1, _WARM_UP_SECONDS))
        table = {count: await _side_by_side(gateways, count, seconds) for count in _CONNECTIONS}
        memory = {gateway.name: family_mb(gateway.pid) for gateway in gateways if gateway.pid is not None}
    await check_accounts(database)
    rows = [row for count, measured in table.items() for row in _rows(count, measured)]
    return rows + [Row(f"gateway: RSS of {name}", f"{size:.0f} MB") for name, size in memory.items()] + notes


@asynccontextmanager
async def emulator(*options: str) -> AsyncIterator[str]:
    """A provider's base URL."""
    arguments = ("-m", "app.cli", "emulate", "--port", "0", "--latency-ms", "0", "--output-tokens", "50", *options)
    with process(*arguments, "--until-stdin-closes") as started:
        assert started.stdout is not None
        line = await asyncio.to_thread(started.stdout.readline)
        if not line:
            raise RuntimeError("the emulator did not start")
        yield f"{json.loads(line)['url']}/openai/v1"


@asynccontextmanager
async def opened(database: Database, base_url: str, data_dir: Path) -> AsyncIterator[tuple[list[Gateway], list[Row]]]:
    """The provider itself, ours and the peers; and a row for each peer: its version, or why it is missing."""
    await prepare(database)
    provider = urlsplit(base_url)
    assert provider.port is not None
    gateways = [Gateway(DIRECT, provider.port, f"{provider.path}/chat/completions", token="demo")]
    notes = []
    async with AsyncExitStack() as stack:
        environment = {"TOLLGATE_EMULATOR_URL": f"{provider.scheme}://{provider.netloc}"}
        port = free_port()
        ours = await stack.enter_async_context(api_process(database.dsn, port, data_dir, environment))
        path = "/v1/chat/completions"
        gateways.append(Gateway(OURS, port, path, f"openai:{MODEL}", TOKEN, pid=ours.pid, database=database))
        for name, open_peer in peers().items():
            try:
                peer = await stack.enter_async_context(open_peer(base_url))
            except PeerMissing as error:
                notes.append(Row(f"gateway: {name} is missing", str(error)[:60]))
            else:
                gateways.append(peer)
                notes.append(Row(f"gateway: version of {name}", "", peer.version))
        yield gateways, notes


async def _side_by_side(gateways: Sequence[Gateway], connections: int, seconds: float) -> dict[str, Measured]:
    """Each in turn, in rounds; of each the round with the highest rate."""
    best: dict[str, Measured] = {}
    for _ in range(_ROUNDS):
        for gateway in gateways:
            try:
                measured = await _measure(gateway, connections, seconds)
            except RuntimeError:
                # A peer may be too slow to answer anything in the time, and has then another round.
                if gateway.name in (OURS, DIRECT):
                    raise
                continue
            if gateway.name not in best or measured.result.rate > best[gateway.name].result.rate:
                best[gateway.name] = measured
    return best


async def _measure(gateway: Gateway, connections: int, seconds: float) -> Measured:
    before = await _consumed(gateway)
    result = await asyncio.to_thread(generate, _plan(gateway, connections, seconds))
    return Measured(result, (await _consumed(gateway)).since(before))


def _plan(gateway: Gateway, connections: int, seconds: float) -> Plan:
    return Plan(
        port=gateway.port,
        path=gateway.path,
        token=gateway.token,
        headers=gateway.headers,
        bodies=[json.dumps({"model": gateway.model, "messages": [_QUESTION], "max_tokens": 64})],
        expected=["total_tokens"],
        seconds=seconds,
        connections=connections,
    )


async def _consumed(gateway: Gateway) -> Consumed:
    return Consumed(0, 0, 0) if gateway.pid is None else await consumed(gateway.pid, gateway.database)


def _rows(connections: int, measured: Mapping[str, Measured]) -> list[Row]:
    ours, direct = measured[OURS], measured[DIRECT]
    what = f"gateway, c={connections}"
    rows = []
    for name, target in ((LITELLM, 10.0 if connections > 1 else None), (PORTKEY, None), (DIRECT, None)):
        if name in measured:
            rate = measured[name].result.rate
            rows.append(compared(f"{what}: calls against {name}", ours.result.rate, rate, target))
    for share, value in (("p50", _p50), ("p99", _p99)):
        added = {name: value(one) - value(direct) for name, one in measured.items() if name != DIRECT}
        others = ", ".join(f"{name} {time:.2f}" for name, time in added.items() if name != OURS)
        bounded = connections == 1 and share == "p50"
        row = (
            at_most(f"{what}: added {share}", added[OURS], 2, "ms")
            if bounded
            else Row(f"{what}: added {share}", f"{added[OURS]:.2f} ms")
        )
        rows.append(replace(row, peer=others))
    others = ", ".join(f"{name} {one.cpu_ms:.2f}" for name, one in measured.items() if name not in (OURS, DIRECT))
    calls = ours.result.sent
    own, server = ours.cost.own_cpu_seconds * 1000 / calls, ours.cost.server_cpu_seconds * 1000 / calls
    rows.append(Row(f"{what}: CPU s per 1,000 calls", f"{own:.2f} + PostgreSQL {server:.2f}", others))
    commits = ours.cost.transactions / calls
    rows.append(Row(f"{what}: commits per call", f"{commits:.2f}", target="<= 2", met=commits <= 2.05))
    return rows


def _p50(measured: Measured) -> float:
    return measured.result.p50_ms


def _p99(measured: Measured) -> float:
    return measured.result.p99_ms


async def check_accounts(database: Database) -> None:
    """Every call is final, and every one that ended well is charged."""
    async with database.connection() as connection:
        bad = await connection.fetch(
            """
            SELECT status, count(*) FROM model_requests r
             WHERE status NOT IN ('COMPLETED', 'CANCELLED') OR (status = 'COMPLETED' AND (cost_total IS NULL
                   OR NOT EXISTS (SELECT FROM ledger_entries l WHERE l.request_id = r.id))) GROUP BY 1
            """
        )
    if bad:
        raise RuntimeError(f"not every call was completed and charged: {[tuple(row) for row in bad]}")

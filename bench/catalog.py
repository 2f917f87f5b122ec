"""The catalog over HTTP: one API process against stock Strawberry on the same database, in turns."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from app.db.pool import Database
from bench.load import SERIAL, Plan, Result, generate
from bench.place import TOKEN, api_process, free_port, peer_process
from bench.table import Row, compared, measured

_ROUNDS = 2
_PAGE_SIZE = 50
_MUTATIONS = 50
_CACHED_METRIC = "tollgate_graphql_cached_responses_total"
_MODEL_FIELDS = (
    "id modelId displayName modelType contextWindow maxOutputTokens costInputPerMillion costOutputPerMillion "
    "status isDefault"
)
PROVIDERS = (
    f"{{ llmProviders {{ id name displayName maxParallelRequests requestsPerMinute isEnabled "
    f"models {{ {_MODEL_FIELDS} }} }} }}"
)
_PAGE = f"nodes {{ {_MODEL_FIELDS} provider {{ id name displayName }} }} pageInfo {{ hasNextPage endCursor }}"
_BY_ID = "orderBy: {field: CREATED_AT}"
"""One seed gave all models the same creation time, so that their ids order them: as the peer's primary key does."""
OUR_PAGE = f"query Page($after: String) {{ llmModels(first: 50, after: $after, {_BY_ID}) {{ {_PAGE} }} }}"
PEER_PAGE = f"query Page($after: String) {{ llmModels(first: 50, after: $after) {{ {_PAGE} }} }}"
ONE = f"query One($ref: String!) {{ llmModel(ref: $ref) {{ {_MODEL_FIELDS} provider {{ id name displayName }} }} }}"
_EVERY_MODEL = """
query All($after: String) {
  llmModels(first: 500, after: $after, orderBy: {field: CREATED_AT}) {
    edges { cursor node { id modelId ref } } pageInfo { hasNextPage endCursor }
  }
}
"""
_UPDATE = """
mutation Update($id: ID!, $name: String!) {
  updateLlmModel(id: $id, input: {displayName: $name}) { __typename ... on LlmModel { displayName } }
}
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked of a server: `bodies` in turn, each with a text that its answer must contain."""

    bodies: Sequence[str]
    expected: Sequence[str]


@dataclass(frozen=True, slots=True)
class Ports:
    ours: int
    peer: int
    cached_peer: int


async def run_six(database: Database, seconds: float, data_dir: Path) -> list[Row]:
    """The reference's six providers with all their models, live from the database."""
    async with _servers(database.dsn, data_dir) as ports, _client(ports.ours) as api, _client(ports.peer) as peer:
        ours, theirs = await _ask(api, PROVIDERS), await _ask(peer, PROVIDERS)
        _same("six providers", ours, theirs)
        work = Work([_body(PROVIDERS)], ['"gpt-4o"'])
        # A member that GraphQL over HTTP does not read makes each request one that was never answered before.
        fresh = Work([_body(PROVIDERS, serial=True)], ['"gpt-4o"'])
        our_rate, peer_rate, cached_rate = await _in_turns(ports, work, work, seconds)
        uncached = await asyncio.to_thread(_measure, ports.ours, fresh, seconds)
        what = "six providers, all models"
        return [
            compared(what, our_rate.rate, peer_rate.rate, 40, note=_times(our_rate)),
            compared(f"{what}: peer with parser and validation caches", our_rate.rate, cached_rate.rate),
            compared(f"{what}: no answer used twice", uncached.rate, peer_rate.rate, note=_times(uncached)),
            await _mutations(api),
        ]


async def run_all(database: Database, seconds: float, data_dir: Path) -> list[Row]:
    """Some 2,330 models: pages of 50 that are never asked for twice, and one model by reference."""
    async with _servers(database.dsn, data_dir) as ports, _client(ports.ours) as api, _client(ports.peer) as peer:
        models = await _every_model(api)
        order = _shuffled_pages(models)
        for index in order[:5]:
            ours = await _ask(api, OUR_PAGE, after=models[index]["cursor"])
            theirs = await _ask(peer, PEER_PAGE, after=models[index]["id"])
            _same("a page of models", ours, theirs)
        # A serial number in the variables makes the request a new one where a page comes up again.
        our_pages = _pages(OUR_PAGE, "cursor", models, order)
        peer_pages = _pages(PEER_PAGE, "id", models, order)
        hits = await _cached_answers(api)
        page, peer_page, cached_page = await _in_turns(ports, our_pages, peer_pages, seconds)
        if (used := await _cached_answers(api) - hits) != 0:
            raise RuntimeError(f"{used:g} of the pages came out of the response cache")
        by_ref = _by_ref(models)
        one, peer_one, cached_one = await _in_turns(ports, by_ref, by_ref, seconds)
        pages = f"pages of 50 of {len(models):,} models, each another"
        return [
            compared(pages, page.rate, peer_page.rate, 4, note=_times(page)),
            compared(f"{pages}: peer with caches", page.rate, cached_page.rate),
            compared("one model by ref, refs in turn", one.rate, peer_one.rate, 40, note=_times(one)),
            compared("one model by ref: peer with caches", one.rate, cached_one.rate),
        ]


async def requests_of_every_kind(port: int, seconds: float) -> list[Plan]:
    """Loads for an API process with the whole catalog: pages that no cache answers, and models by reference."""
    async with _client(port) as api:
        models = await _every_model(api)
    works = (_pages(OUR_PAGE, "cursor", models, _shuffled_pages(models)), _by_ref(models))
    return [_plan(port, work, seconds) for work in works]


def _shuffled_pages(models: Sequence[dict[str, str]]) -> list[int]:
    """Indexes of models behind which there is a whole page."""
    count = len(models) - _PAGE_SIZE
    return random.Random(7).sample(range(count), count)


def _pages(query: str, cursor: str, models: Sequence[dict[str, str]], order: Sequence[int]) -> Work:
    """Each page is expected to hold the model after its cursor."""
    return Work(
        [_body(query, serial=True, after=models[index][cursor]) for index in order],
        [json.dumps(models[index + 1]["id"]) for index in order],
    )


def _by_ref(models: Sequence[dict[str, str]]) -> Work:
    order = random.Random(11).sample(models, len(models))
    return Work([_body(ONE, ref=model["ref"]) for model in order], [json.dumps(model["id"]) for model in order])


@asynccontextmanager
async def _servers(dsn: str, data_dir: Path) -> AsyncIterator[Ports]:
    """Ours and both peers, side by side on one database; those that wait for their turn are idle."""
    ports = Ports(free_port(), free_port(), free_port())
    async with (
        api_process(dsn, ports.ours, data_dir),
        peer_process(dsn, ports.peer),
        peer_process(dsn, ports.cached_peer, "--cached"),
    ):
        yield ports


def _client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{port}", headers={"authorization": f"Bearer {TOKEN}"}, timeout=30
    )


async def _ask(client: httpx.AsyncClient, query: str, **variables: object) -> dict[str, Any]:
    response = await client.post("/graphql", json={"query": query, "variables": variables})
    body: dict[str, Any] = response.json()
    if "errors" in body or "data" not in body:
        raise RuntimeError(f"{query[:60]!r}: {body}")
    data: dict[str, Any] = body["data"]
    return data


def _body(query: str, *, serial: bool = False, **variables: object) -> str:
    return json.dumps({"query": query, "variables": {**variables, **({"serial": SERIAL} if serial else {})}})


def _same(what: str, ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Both answer the same, but for cursors and for how a Decimal is printed."""
    if _comparable(ours) != _comparable(theirs):
        raise RuntimeError(f"{what}: ours and the peer's are not the same:\n{ours}\n{theirs}")


def _comparable(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: Decimal(item) if name.startswith("cost") and item is not None else _comparable(item)
            for name, item in value.items()
            if name != "endCursor"
        }
    return [_comparable(item) for item in value] if isinstance(value, list) else value


async def _every_model(api: httpx.AsyncClient) -> list[dict[str, str]]:
    models: list[dict[str, str]] = []
    after = None
    while True:
        page = (await _ask(api, _EVERY_MODEL, after=after))["llmModels"]
        models += [{"cursor": edge["cursor"], **edge["node"]} for edge in page["edges"]]
        if not page["pageInfo"]["hasNextPage"]:
            return models
        after = page["pageInfo"]["endCursor"]


async def _in_turns(ports: Ports, ours: Work, theirs: Work, seconds: float) -> tuple[Result, Result, Result]:
    """Ours, the peer and the peer with caches, in rounds, so that a slow moment of the machine meets them all."""
    turns = ((ports.ours, ours), (ports.peer, theirs), (ports.cached_peer, theirs))
    results: list[list[Result]] = [[], [], []]
    for _ in range(_ROUNDS):
        for place, (port, work) in zip(results, turns, strict=True):
            sent = sum(result.sent for result in place)
            place.append(await asyncio.to_thread(_measure, port, work, seconds / _ROUNDS, sent))
    first, second, third = map(together, results)
    return first, second, third


def _measure(port: int, work: Work, seconds: float, sent: int = 0) -> Result:
    return generate(_plan(port, work, seconds, sent))


def _plan(port: int, work: Work, seconds: float, sent: int = 0) -> Plan:
    """`sent`: the requests of former rounds; this one goes on where they ended."""
    offset = sent % len(work.bodies)
    return Plan(
        port=port,
        bodies=[*work.bodies[offset:], *work.bodies[:offset]],
        expected=[*work.expected[offset:], *work.expected[:offset]],
        seconds=seconds,
        first_serial=sent,
        token=TOKEN,
    )


def together(results: Sequence[Result]) -> Result:
    return Result(
        answers=sum(result.answers for result in results),
        seconds=sum(result.seconds for result in results),
        sent=sum(result.sent for result in results),
        p50_ms=max(result.p50_ms for result in results),
        p99_ms=max(result.p99_ms for result in results),
    )


async def _cached_answers(api: httpx.AsyncClient) -> float:
    """How many answers the API process has taken out of its response cache so far."""
    text = (await api.get("/metrics")).text
    for line in text.splitlines():
        name, _, value = line.rpartition(" ")
        if name == _CACHED_METRIC:
            return float(value)
    raise RuntimeError(f"no {_CACHED_METRIC} in /metrics")


async def _mutations(api: httpx.AsyncClient) -> Row:
    """Each mutation is seen by the very next read, which the response cache would otherwise have answered."""
    model = (await _ask(api, ONE, ref="openai:gpt-4o"))["llmModel"]
    seconds = []
    for number in range(_MUTATIONS):
        name = f"GPT-4o, edition {number}"
        started = time.perf_counter()
        changed = (await _ask(api, _UPDATE, id=model["id"], name=name))["updateLlmModel"]
        seconds.append(time.perf_counter() - started)
        for _ in range(2):
            shown = (await _ask(api, ONE, ref="openai:gpt-4o"))["llmModel"]["displayName"]
            if changed.get("displayName") != name or shown != name:
                raise RuntimeError(f"a read after the mutation to {name!r} answered {shown!r}")
    await _ask(api, _UPDATE, id=model["id"], name=model["displayName"])
    median = sorted(seconds)[len(seconds) // 2] * 1000
    return measured(f"mutation, seen by the next read {_MUTATIONS} times of {_MUTATIONS}", median, "ms")


def _times(result: Result) -> str:
    return f" (p50 {result.p50_ms:.2f} ms, p99 {result.p99_ms:.2f} ms)"

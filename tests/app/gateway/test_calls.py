"""Calls whose clients wait at a process that has few places for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from app.db.pool import Database
from tests.catalog_rows import insert_model
from tests.emulator import Emulator
from tests.gateway_server import told
from tests.serving import Api, serve_api

SUBMIT = """
    mutation { submitRequest(input: {model: "acme:chat-1", messages: [{role: USER, content: "Hello"}]}) { __typename } }
"""


@pytest.fixture
async def narrow_api(
    database: Database, database_dsn: str, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    """One place for all calls, of two providers with permits to spare."""
    async with database.transaction() as connection:
        for provider in ("acme", "other"):
            monkeypatch.setenv(f"{provider.upper()}_API_KEY", f"secret-key-of-{provider}")
            await insert_model(connection, provider=provider, base_url=emulator.url(provider))
    async with serve_api(database_dsn, tmp_path, gateway_concurrency=1) as api:
        yield api


def call(api: Api, provider: str, text: str, **headers: str) -> asyncio.Task[httpx.Response]:
    body = {"model": f"{provider}:chat-1", "messages": [{"role": "user", "content": text}]}
    return asyncio.create_task(api.http.post("/v1/chat/completions", json=body, headers=headers))


async def test_what_found_no_place_starts_when_one_comes_free_whichever_providers_it_is(
    narrow_api: Api, emulator: Emulator
) -> None:
    calls = [call(narrow_api, provider, told(latency_ms=20)) for provider in ("acme", "other") * 10]
    async with asyncio.timeout(20):
        answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    assert emulator.record("acme")["peak_parallel"] == emulator.record("other")["peak_parallel"] == 1


async def test_a_place_taken_by_one_provider_is_waited_for_by_another(narrow_api: Api, emulator: Emulator) -> None:
    holder = call(narrow_api, "acme", told(fault="hang"))
    await asyncio.to_thread(lambda: emulator.wait("acme", running=1))
    late = await call(narrow_api, "other", "Hello", **{"x-tollgate-wait-seconds": "0.1"})
    assert late.status_code == 429
    waiter = call(narrow_api, "other", "Hello")
    holder.cancel()
    async with asyncio.timeout(10):
        assert (await waiter).status_code == 200


async def test_a_failed_call_is_tried_again_as_soon_as_its_pause_is_over(narrow_api: Api, emulator: Emulator) -> None:
    async with asyncio.timeout(10):
        answer = await call(narrow_api, "acme", told(error=503, retry_after=0.05, errors_first=2))
    assert answer.status_code == 200
    assert emulator.record("acme")["arrivals"] == 3


async def test_who_waited_in_vain_is_told_when_the_window_has_a_place_again(
    database: Database, database_dsn: str, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", "secret-key-of-acme")
    async with database.transaction() as connection:
        await insert_model(connection, base_url=emulator.url("acme"), requests_per_minute=1)
    async with serve_api(database_dsn, tmp_path) as api:
        assert (await call(api, "acme", "Hello")).status_code == 200
        late = await call(api, "acme", "Hello", **{"x-tollgate-wait-seconds": "0.1"})
    assert late.status_code == 429
    # The window of a minute, and the time that a call may take to arrive.
    assert 50 <= int(late.headers["retry-after"]) <= 61


async def test_those_who_wait_ahead_are_counted_in_what_is_told(
    database: Database, database_dsn: str, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACME_API_KEY", "secret-key-of-acme")
    async with database.transaction() as connection:
        await insert_model(connection, base_url=emulator.url("acme"), requests_per_minute=1)
    async with serve_api(database_dsn, tmp_path) as api:
        assert (await call(api, "acme", "Hello")).status_code == 200
        for _ in range(2):
            await api.data(SUBMIT)
        late = await call(api, "acme", "Hello", **{"x-tollgate-wait-seconds": "0.1"})
    assert 170 <= int(late.headers["retry-after"]) <= 182


async def test_what_came_in_one_piece_with_an_error_is_not_delivered_and_the_call_is_tried_again(
    narrow_api: Api, emulator: Emulator
) -> None:
    text = told(fault="error_midway", errors_first=1, reply="One two three four five six.")
    body = {"model": "acme:chat-1", "messages": [{"role": "user", "content": text}], "stream": True}
    async with asyncio.timeout(10):
        answer = await narrow_api.http.post("/v1/chat/completions", json=body)
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")]
    texts = [choice["delta"].get("content") or "" for event in events for choice in event["choices"]]
    assert "".join(texts) == "One two three four five six."
    assert emulator.record("acme")["arrivals"] == 2

"""Errors that nobody foresaw: the client is told an id that the log has too, in its dialect's form, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx
import pytest
import structlog
from starlette.types import ASGIApp

from app.db.pool import Database
from app.gateway.http import GatewayEndpoint
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.dialect import Answered, ClientCall, Dialect, StreamWriter
from app.providers.openai.chat_dialect import OpenAIChatDialect
from tests.catalog_rows import insert_model
from tests.emulator import Emulator
from tests.serving import ADMIN_TOKEN, Api, serve_api

BODY = {"model": "acme:chat-1", "messages": [{"role": "user", "content": "Hello"}]}
SECRET = "a detail that is nobody's business"


class Flawed(OpenAIChatDialect):
    """A dialect with a defect where `place` says."""

    def __init__(self, place: str) -> None:
        self.place = place

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        self._break("decode")
        return super().decode(body, headers)

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        self._break("encode")
        return super().encode(call, response, usage, answered)

    def stream_writer(self, call: ClientCall, answered: Answered) -> StreamWriter:
        self._break("writer")
        return super().stream_writer(call, answered)

    def _break(self, place: str) -> None:
        if self.place == place:
            raise RuntimeError(SECRET)


@pytest.fixture
async def api(
    database: Database, database_dsn: str, tmp_path: Path, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Api]:
    monkeypatch.setenv("ACME_API_KEY", "secret-key-of-acme")
    async with database.transaction() as connection:
        await insert_model(connection, base_url=emulator.url("acme"))
    async with serve_api(database_dsn, tmp_path) as api:
        yield api


def endpoint(api: Api, dialect: Dialect) -> ASGIApp:
    services = api.services
    return GatewayEndpoint(
        dialect,
        config=services.config,
        authenticator=services.authenticator,
        snapshots=services.snapshots,
        preparation=services.preparation,
        calls=services.gateway,
    )


@pytest.mark.parametrize("place", ["decode", "encode", "writer"])
async def test_a_defect_is_masked_with_an_id_that_the_log_has(api: Api, place: str) -> None:
    transport = httpx.ASGITransport(endpoint(api, Flawed(place)))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        with structlog.testing.capture_logs() as logs:
            answer = await http.post(
                "/", json={**BODY, "stream": place == "writer"}, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}
            )
    assert answer.status_code == 500
    assert SECRET not in answer.text
    message = answer.json()["error"]["message"]
    (logged,) = [entry for entry in logs if entry["event"] == "internal_error"]
    assert message == f"internal error {logged['error_id']}"


async def test_a_call_whose_answer_cannot_be_written_is_accounted_all_the_same(api: Api, database: Database) -> None:
    transport = httpx.ASGITransport(endpoint(api, Flawed("encode")))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        answer = await http.post("/", json=BODY, headers={"authorization": f"Bearer {ADMIN_TOKEN}"})
    async with database.connection() as connection:
        row = await connection.fetchrow(
            "SELECT status, cost_total FROM model_requests WHERE id = $1", answer.headers["x-tollgate-request-id"]
        )
    assert row is not None
    assert row["status"] == "COMPLETED"
    assert row["cost_total"] > 0

"""Sums over the ledger are exact, bounded by time and model, and read by whoever may read requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from app.access.records import AccessRole
from app.db.pool import Database
from tests.catalog_rows import insert_model
from tests.serving import Api, serve_api

NOON = datetime(2026, 1, 15, 12, tzinfo=UTC)
QUERY = """
query($model: String, $from: DateTime, $to: DateTime) {
  usageSummary(model: $model, from: $from, to: $to) {
    requests calls estimatedCalls unpricedCalls total currency lines { unit quantity amount }
  }
}"""


async def charge(
    database: Database,
    request: str,
    *,
    lease: str = "lease-1",
    model: str = "acme:chat-1",
    unit: str = "INPUT_TOKENS",
    quantity: int = 100,
    amount: str | None = "0.000000000000000001",
    is_estimated: bool = False,
    at: datetime = NOON,
    workspace: str = "default",
) -> None:
    async with database.connection() as connection:
        await connection.execute(
            """
            INSERT INTO ledger_entries (workspace_id, request_id, lease_id, model_ref, unit, quantity, amount, currency,
                                        is_estimated, charged_at)
            VALUES ($1, $2, $3, $4, $5, $6, $7, 'USD', $8, $9)
            """,
            workspace,
            request,
            lease,
            model,
            unit,
            quantity,
            None if amount is None else Decimal(amount),
            is_estimated,
            at,
        )


@pytest.fixture
async def api(database: Database, database_dsn: str, tmp_path: Path) -> AsyncIterator[Api]:
    async with database.transaction() as connection:
        await insert_model(connection)
    async with serve_api(database_dsn, tmp_path) as api:
        yield api


async def test_lines_are_summed_to_the_last_decimal(api: Api, database: Database) -> None:
    await charge(database, "r1")
    await charge(database, "r1", unit="OUTPUT_TOKENS", quantity=3, amount="123456789012.3")
    await charge(database, "r1", lease="lease-2", amount="0.5", is_estimated=True)
    await charge(database, "r2", amount=None)
    await charge(database, "r3", workspace="other")
    assert (await api.data(QUERY))["usageSummary"] == {
        "requests": 2,
        "calls": 3,
        "estimatedCalls": 1,
        "unpricedCalls": 1,
        "total": "123456789012.800000000000000001",
        "currency": "USD",
        "lines": [
            {"unit": "INPUT_TOKENS", "quantity": "300", "amount": "0.500000000000000001"},
            {"unit": "OUTPUT_TOKENS", "quantity": "3", "amount": "123456789012.3"},
        ],
    }


async def test_a_time_counts_from_its_first_moment_to_before_its_last(api: Api, database: Database) -> None:
    await charge(database, "r1", at=NOON)
    await charge(database, "r2", at=NOON + timedelta(hours=1))

    async def requests(**bounds: datetime) -> int:
        shown = {name: moment.isoformat() for name, moment in bounds.items()}
        return int((await api.data(QUERY, shown))["usageSummary"]["requests"])

    later = NOON + timedelta(hours=1)
    assert await requests() == 2
    assert await requests(**{"from": NOON, "to": later}) == 1
    assert await requests(**{"from": later}) == 1
    assert await requests(to=NOON) == 0
    refused = await api.post(QUERY, {"from": later.isoformat(), "to": NOON.isoformat()})
    assert refused["errors"][0]["extensions"] == {"code": "VALIDATION", "path": ["to"]}


async def test_a_model_is_named_by_reference_or_id_and_known_after_it_is_deleted(api: Api, database: Database) -> None:
    await charge(database, "r1")
    await charge(database, "r2", model="gone:chat-1")
    model_id = (await api.data('{ llmModel(ref: "acme:chat-1") { id } }'))["llmModel"]["id"]
    for name in ("acme:chat-1", "#/Model/acme/chat-1", model_id, "gone:chat-1", "#/Model/gone/chat-1"):
        assert (await api.data(QUERY, {"model": name}))["usageSummary"]["requests"] == 1
    for name in ("acme:none", "none"):
        refused = await api.post(QUERY, {"model": name})
        assert refused["errors"][0]["extensions"] == {"code": "NOT_FOUND", "path": ["model"]}


async def test_nothing_used_is_nothing_charged(api: Api) -> None:
    summary = (await api.data(QUERY, {"model": "acme:chat-1"}))["usageSummary"]
    assert (summary["requests"], summary["total"], summary["lines"]) == (0, "0", [])


@pytest.mark.parametrize("role", AccessRole)
async def test_every_role_may_read_it(api: Api, role: AccessRole) -> None:
    assert await api.data(QUERY, token=await api.token(role))

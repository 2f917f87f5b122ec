"""Real worker processes against the emulator: from submission to ledger."""

from __future__ import annotations

from decimal import Decimal

from app.db.pool import Database
from app.requests.records import SubmitRequest
from tests.catalog_rows import insert_model
from tests.emulator import Emulator
from tests.worker_process import WorkerProcess, request_service, wait_finished

HELLO = [{"role": "user", "content": "Hello"}]


async def test_a_submitted_request_is_run_and_its_cost_is_exact(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    emulator.configure("acme", input_tokens=1234, output_tokens=567, reply="Good day")
    async with database.connection() as connection:
        row = await insert_model(connection, base_url=emulator.url("acme"), cost_input=Decimal("0.00875"))
    with WorkerProcess(database_dsn):
        async with request_service(database) as service:
            submitted = await service.submit(SubmitRequest(model=row.ref, messages=HELLO), workspace_id="default")
            await wait_finished(database_dsn, [submitted.id])
            request = await service.get(submitted.id, workspace_id="default")
            entries = (await service.ledger_entries_of([submitted.id]))[submitted.id]
            attempts = (await service.attempts_of([submitted.id]))[submitted.id]
    assert request is not None
    assert (request.status, request.error) == ("COMPLETED", None)
    assert (request.input_tokens, request.output_tokens, request.usage_estimated) == (1234, 567, False)
    expected = Decimal(1234) * Decimal("0.00875") / 1_000_000 + Decimal(567) * Decimal(10) / 1_000_000
    assert request.cost_total == expected
    assert sum((entry.amount or Decimal(0) for entry in entries), Decimal(0)) == expected
    assert {(str(entry.unit), int(entry.quantity)) for entry in entries} == {
        ("INPUT_TOKENS", 1234),
        ("OUTPUT_TOKENS", 567),
    }
    assert all(entry.price_id for entry in entries)
    assert [attempt.status for attempt in attempts] == ["SUCCEEDED"]
    assert emulator.record("acme")["arrivals"] == 1

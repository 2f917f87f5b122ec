"""Metrics and spans of real calls, run by a real worker process; no prompt text in any of them unless switched on."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from app.access.records import AccessRole
from app.access.service import AccessService
from app.db.pool import Database
from app.requests.records import SubmitRequest
from tests.app.observability.collector import attributes, span_collector
from tests.catalog_rows import insert_model
from tests.emulator import Emulator
from tests.tollgate_process import free_port
from tests.worker_process import WorkerProcess, request_service, wait_finished

SECRET_PROMPT = "a prompt that stays among us"
SECRET_ANSWER = "an answer that stays among us"


async def _run_one(database: Database, dsn: str, emulator: Emulator, *, model: str = "chat-1") -> str:
    emulator.configure("acme", input_tokens=11, output_tokens=7, reply=SECRET_ANSWER)
    async with database.connection() as connection:
        row = await insert_model(connection, base_url=emulator.url("acme"), model=model)
    async with request_service(database) as service:
        submission = SubmitRequest(model=row.ref, messages=[{"role": "user", "content": SECRET_PROMPT}], stream=True)
        request = await service.submit(submission, workspace_id="default")
        await wait_finished(dsn, [request.id])
    return request.id


async def test_a_worker_serves_metrics_of_its_calls_to_whoever_has_a_token(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    token = (await AccessService(database).create("prometheus", AccessRole.READER)).token
    port = free_port()
    with WorkerProcess(database_dsn, TOLLGATE_WORKER_METRICS_PORT=str(port)):
        await _run_one(database, database_dsn, emulator)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            refused = await client.get("/metrics")
            shown = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert refused.status_code == 401
    names = 'model="chat-1",provider="acme"'
    assert f'tollgate_tokens_total{{kind="input",{names}}} 11.0' in shown.text
    assert f'tollgate_tokens_total{{kind="output",{names}}} 7.0' in shown.text
    assert 'outcome="COMPLETED",provider="acme"} 1.0' in shown.text
    for histogram in ("queue", "call", "first_chunk", "settle"):
        assert f"tollgate_{histogram}_seconds_count{{{names}}} 1.0" in shown.text
    assert SECRET_PROMPT not in shown.text
    assert SECRET_ANSWER not in shown.text


@pytest.mark.parametrize("record_content", [False, True])
async def test_a_call_becomes_spans_with_the_genai_conventions(
    record_content: bool, database: Database, database_dsn: str, emulator: Emulator
) -> None:
    with span_collector() as collector:
        variables = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "TOLLGATE_RECORD_CONTENT": "true" if record_content else "false",
        }
        with WorkerProcess(database_dsn, **variables):
            request_id = await _run_one(database, database_dsn, emulator)
            call = await asyncio.to_thread(collector.wait_for, "chat chat-1")
            whole = await asyncio.to_thread(collector.wait_for, "tollgate.attempt")
    values = attributes(call)
    assert values["gen_ai.operation.name"] == "chat"
    assert values["gen_ai.provider.name"] == "acme"
    assert values["gen_ai.request.model"] == "chat-1"
    assert (values["gen_ai.usage.input_tokens"], values["gen_ai.usage.output_tokens"]) == (11, 7)
    assert values["gen_ai.response.finish_reasons"] == ("stop",)
    assert attributes(whole)["tollgate.request.id"] == request_id
    parts = {span.name: span for span in collector.spans if span.parent_span_id == whole.span_id}
    assert set(parts) == {"tollgate.queue", "chat chat-1", "tollgate.settle"}
    assert parts["tollgate.queue"].end_time_unix_nano == parts["chat chat-1"].start_time_unix_nano
    assert parts["chat chat-1"].end_time_unix_nano == parts["tollgate.settle"].start_time_unix_nano
    assert (SECRET_PROMPT.encode() in collector.raw) is record_content
    assert (SECRET_ANSWER.encode() in collector.raw) is record_content


async def test_a_failed_call_is_counted_by_its_code(database: Database, database_dsn: str, emulator: Emulator) -> None:
    emulator.configure("acme", error=400)
    token = (await AccessService(database).create("prometheus", AccessRole.READER)).token
    port = free_port()
    with WorkerProcess(database_dsn, TOLLGATE_WORKER_METRICS_PORT=str(port)):
        await _run_one(database, database_dsn, emulator)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            shown = await client.get("/metrics", headers={"Authorization": f"Bearer {token}"})
    assert 'code="INVALID_REQUEST",model="chat-1",operation="chat",outcome="FAILED",provider="acme"} 1.0' in shown.text

"""How attempts end, with a real worker process: retried, failed, estimated, cancelled, timed out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from tests.slow_tls import slow_tls
from tests.worker_process import WorkerProcess
from tests.workers.work import Work


async def test_a_retry_waits_as_long_as_the_provider_asks(work: Work) -> None:
    work.configure(error=429, errors_first=1, retry_after=0.4)
    with WorkerProcess(work.dsn):
        request = await work.run()
    first, second = await work.attempts(request.id)
    assert (request.status, request.attempt_count) == ("COMPLETED", 2)
    assert [(first.number, first.status, first.http_status), (second.number, second.status)] == [
        (1, "FAILED", 429),
        (2, "SUCCEEDED"),
    ]
    assert first.error is not None
    assert first.error["code"] == "RATE_LIMITED"
    # 0.4 s, and a tenth of the backoff of half a second to a second.
    assert timedelta(seconds=0.45) <= second.started_at - first.finished_at < timedelta(seconds=2)


@pytest.mark.parametrize(
    ("status", "code"), [(400, "INVALID_REQUEST"), (401, "AUTHENTICATION_FAILED"), (404, "MODEL_NOT_FOUND")]
)
async def test_what_another_attempt_would_meet_again_fails_at_once(work: Work, status: int, code: str) -> None:
    work.configure(error=status)
    with WorkerProcess(work.dsn):
        request = await work.run()
    assert request.status == "FAILED"
    assert (request.error["code"], request.error["retryable"], request.error["httpStatus"]) == (code, False, status)
    assert work.record()["arrivals"] == 1
    assert await work.ledger(request.id) == []
    # Refused: no tokens were used, and none stay reserved.
    assert await work.value("SELECT window_tokens FROM limit_states") == 0


async def test_a_request_fails_when_its_attempts_are_spent(work: Work) -> None:
    work.configure(error=503, retry_after=0)
    with WorkerProcess(work.dsn):
        request = await work.run()
    assert (request.status, request.attempt_count) == ("FAILED", 3)
    assert "all 3 attempts failed" in request.error["message"]
    assert [attempt.status for attempt in await work.attempts(request.id)] == ["FAILED"] * 3
    assert work.record()["arrivals"] == 3


@pytest.mark.parametrize("fault", ["disconnect", "invalid_json"])
async def test_a_broken_answer_is_tried_again(work: Work, fault: str) -> None:
    work.configure(fault=fault, errors_first=1)
    with WorkerProcess(work.dsn):
        request = await work.run()
    assert (request.status, request.attempt_count) == ("COMPLETED", 2)


async def test_usage_that_the_provider_left_out_is_estimated_and_flagged(work: Work) -> None:
    work.configure(missing_usage=True, reply="Good day to you")
    with WorkerProcess(work.dsn):
        request = await work.run()
    assert (request.status, request.usage_estimated) == ("COMPLETED", True)
    assert request.input_tokens
    assert request.output_tokens
    assert request.cost_total is not None
    assert request.cost_total > 0
    assert all(entry.is_estimated for entry in await work.ledger(request.id))
    reserved, settled = await work.value("SELECT ROW(reserved_tokens, settled_tokens) FROM provider_starts")
    assert reserved > 0
    assert settled is None


async def test_a_call_whose_price_is_not_known_has_no_cost_and_not_zero(work: Work) -> None:
    await work.execute("UPDATE llm_models SET cost_output_per_million = NULL")
    with WorkerProcess(work.dsn):
        request = await work.run()
    assert (request.status, request.cost_total) == ("COMPLETED", None)
    amounts = {entry.unit.value: entry.amount for entry in await work.ledger(request.id)}
    assert amounts["INPUT_TOKENS"] is not None
    assert amounts["OUTPUT_TOKENS"] is None


async def test_cached_tokens_are_billed_once(work: Work) -> None:
    work.configure(input_tokens=1000, cached_tokens=800, output_tokens=0)
    with WorkerProcess(work.dsn):
        request = await work.run()
    assert (request.input_tokens, request.cache_read_tokens) == (1000, 800)
    assert request.cost_total == Decimal("0.0025")


async def test_a_cancelled_call_leaves_the_provider(work: Work) -> None:
    work.configure(fault="hang")
    with WorkerProcess(work.dsn):
        request_id = await work.submit()
        await work.seen(running=1)
        assert (await work.service.cancel(request_id, workspace_id="default")).status == "PROCESSING"
        request = await work.finished(request_id)
        await work.seen(ended=1)
    assert request.status == "CANCELLED"
    assert [attempt.status for attempt in await work.attempts(request_id)] == ["CANCELLED"]
    assert work.record()["calls"][0]["outcome"] == "abandoned"


async def test_a_deadline_ends_a_running_call(work: Work) -> None:
    with WorkerProcess(work.dsn):
        await work.run()  # the worker is up
        work.configure(fault="hang")
        request = await work.run(deadline=datetime.now(UTC) + timedelta(seconds=0.8))
        await work.seen(ended=2)
    assert (request.status, request.error["code"]) == ("FAILED", "TIMEOUT")
    assert "deadline" in request.error["message"]
    assert work.record()["arrivals"] == 2


async def test_a_missing_key_is_named_by_its_variable_and_nothing_is_sent(work: Work) -> None:
    with WorkerProcess(work.dsn, ACME_API_KEY=""):
        request = await work.run()
    assert (request.status, request.error["code"]) == ("FAILED", "AUTHENTICATION_FAILED")
    assert "ACME_API_KEY" in request.error["message"]
    assert work.record()["arrivals"] == 0


async def test_a_key_that_the_provider_echoes_is_stored_nowhere(work: Work) -> None:
    work.configure(error=400, error_message="the key secret-key-of-acme is bad")
    with WorkerProcess(work.dsn):
        request = await work.run()
    assert "*** is bad" in request.error["message"]
    rows = await work.value("SELECT string_agg(r::text || a::text, ' ') FROM model_requests r, request_attempts a")
    assert "secret-key" not in rows


async def test_a_handshake_that_outlasts_the_permit_costs_one_start_and_no_attempt(work: Work, tmp_path: Path) -> None:
    async with slow_tls(work.emulator.url("acme"), tmp_path, handshake_seconds=0.8) as provider:
        await work.execute("UPDATE llm_providers SET base_url = $1", provider.url)
        with WorkerProcess(work.dsn, SSL_CERT_FILE=str(provider.authority)):
            request = await work.run()
            assert (await work.run()).status == "COMPLETED"
        assert provider.handshakes == 1
    assert (request.status, request.attempt_count) == ("COMPLETED", 1)
    assert [attempt.status for attempt in await work.attempts(request.id)] == ["RELEASED", "SUCCEEDED"]
    assert work.record()["arrivals"] == 2
    assert await work.value("SELECT count(*) FROM provider_starts") == 3

"""One attempt against the emulator: what it comes to, and that no key is left in it."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from msgspec import structs

from app.catalog.snapshots import SnapshotHolder
from app.credentials.environment import EnvironmentCredentials
from app.db.pool import Database
from app.execution.attempt import Attempt, Timeouts
from app.execution.executor import Executor, Interruption
from app.execution.steps import CatalogEndpoints
from app.limits.records import ClaimedRequest, LeaseId
from app.prices.records import Usage
from app.providers.messages import Message, Role, Text
from app.providers.operations import ChatRequest, VideoRequest
from app.providers.registry import ADAPTERS
from app.providers.transport import Transport
from app.requests.records import AttemptResult, Outcome
from tests.catalog_rows import CatalogRow, insert_model
from tests.emulator import Emulator

KEY = "secret-key-of-acme"


class Attempts:
    def __init__(self, executor: Executor, row: CatalogRow) -> None:
        self.executor = executor
        self.row = row
        self.interruption: Interruption | None = None

    def attempt(self, *, held_seconds: float = 10, **changes: Any) -> Attempt:
        fields: dict[str, Any] = {
            "request_id": "request-1",
            "lease_id": LeaseId("lease-1"),
            "provider_id": self.row.provider_id,
            "workspace_id": "default",
            "model_id": self.row.model_id,
            "model_ref": self.row.ref,
            "attempt": 1,
            "max_attempts": 3,
            "deadline": None,
            "started_at": datetime.now(UTC),
            "reserved_tokens": 100,
        }
        names = {field.name for field in dataclasses.fields(ClaimedRequest)}
        plain: dict[str, Any] = {"payload": {}, "parameters": {}, "is_streamed": False, "has_fallback": False}
        claim = ClaimedRequest(**{name: value for name, value in (plain | fields).items() if name in names} | changes)
        now = time.monotonic()
        request = ChatRequest([Message(Role.USER, [Text("Hello")])])
        return Attempt(claim, request=request, parameters={}, send_by=now + held_seconds, started=now)

    async def execute(self, **changes: Any) -> AttemptResult | None:
        return await self.executor.execute(
            self.attempt(**changes), catalog_revision=1, interruption=lambda: self.interruption
        )

    async def result(self, **changes: Any) -> AttemptResult:
        result = await self.execute(**changes)
        assert result is not None
        return result

    async def make_video(self, **parameters: Any) -> AttemptResult:
        """Of which the caller wants to hear within a second."""
        chat = self.attempt(deadline=datetime.now(UTC) + timedelta(seconds=1))
        attempt = structs.replace(chat, request=VideoRequest("A cat"), parameters=parameters)
        result = await self.executor.execute(attempt, catalog_revision=1, interruption=lambda: self.interruption)
        assert result is not None
        return result


@pytest.fixture
async def attempts(database: Database, emulator: Emulator) -> AsyncIterator[Attempts]:
    async with database.connection() as connection:
        row = await insert_model(connection, base_url=emulator.url("acme"))
    snapshots = SnapshotHolder(database)
    await snapshots.refresh()
    async with Transport(max_connections=4) as transport:
        yield Attempts(
            Executor(
                snapshots,
                transport,
                adapters=ADAPTERS,
                credentials=EnvironmentCredentials({"ACME_API_KEY": KEY}),
                endpoints=CatalogEndpoints(),
                timeouts=Timeouts(connect=5, read=5, total=5),
                jitter=lambda: 0.0,
            ),
            row,
        )
    await snapshots.stop()


async def test_a_call_is_priced_at_the_price_in_force_when_it_started(
    attempts: Attempts, emulator: Emulator, database: Database
) -> None:
    emulator.configure("acme", input_tokens=10, output_tokens=1)
    before = datetime.now(UTC)
    async with database.connection() as connection:
        await connection.execute("UPDATE llm_models SET cost_input_per_million = 100")
        revision = await connection.fetchval("SELECT number FROM revisions WHERE subject = 'catalog'")
    # The executor's snapshot is older than the claim's revision: it catches up first.
    result = await attempts.executor.execute(attempts.attempt(), catalog_revision=revision, interruption=lambda: None)
    assert result is not None
    assert result.cost is not None
    assert result.cost.total == Decimal("0.00101")
    earlier = (await attempts.result(started_at=before)).cost
    assert earlier is not None
    assert earlier.total == Decimal("0.000035")


async def test_a_call_with_no_known_price_is_completed_with_no_known_cost(
    attempts: Attempts, emulator: Emulator
) -> None:
    result = await attempts.result(started_at=datetime(2000, 1, 1, tzinfo=UTC))
    assert result.outcome is Outcome.COMPLETED
    assert result.cost is not None
    assert result.cost.total is None


async def test_usage_that_is_left_out_is_estimated_and_settles_nothing(attempts: Attempts, emulator: Emulator) -> None:
    emulator.configure("acme", missing_usage=True, reply="x" * 400)
    result = await attempts.result()
    assert result.usage is not None
    assert (result.usage.estimated, result.usage.output_tokens) == (True, 100)
    assert result.settled_tokens is None


@pytest.mark.parametrize(("status", "settled"), [(400, 0), (429, 0), (408, None), (500, None)])
async def test_a_refused_call_used_no_tokens_and_of_others_it_is_not_known(
    attempts: Attempts, emulator: Emulator, status: int, settled: int | None
) -> None:
    emulator.configure("acme", error=status)
    assert (await attempts.result()).settled_tokens == settled


async def test_a_call_that_comes_too_late_for_its_permit_is_released(attempts: Attempts, emulator: Emulator) -> None:
    result = await attempts.result(held_seconds=-1)
    assert (result.outcome, result.settled_tokens) == (Outcome.RELEASED, 0)
    assert emulator.record("acme")["arrivals"] == 0


async def test_a_deleted_model_fails_its_request(attempts: Attempts) -> None:
    result = await attempts.result(model_id=None)
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert (result.error.code, result.error.retryable) == ("MODEL_NOT_FOUND", False)


async def test_a_deadline_that_passed_before_the_call_fails_the_request(attempts: Attempts, emulator: Emulator) -> None:
    result = await attempts.result(deadline=datetime.now(UTC) - timedelta(seconds=1))
    assert result.outcome is Outcome.FAILED
    assert result.error is not None
    assert "deadline" in result.error.message
    assert emulator.record("acme")["arrivals"] == 0


async def test_a_message_that_echoes_the_key_is_stored_without_it(attempts: Attempts, emulator: Emulator) -> None:
    emulator.configure("acme", error=400, error_message=f"{KEY} is not {KEY}")
    result = await attempts.result()
    assert result.error is not None
    assert result.error.message == "the provider answered 400: *** is not ***"


@pytest.mark.parametrize("length", range(460, 500, 3))
async def test_a_key_that_a_cut_message_ends_in_is_masked_too(
    attempts: Attempts, emulator: Emulator, length: int
) -> None:
    emulator.configure("acme", error=400, error_message="x" * length + KEY)
    result = await attempts.result()
    assert result.error is not None
    assert KEY[:5] not in result.error.message


@pytest.mark.parametrize(
    ("why", "attempt", "outcome"),
    [
        (Interruption.CANCELLED, 1, Outcome.CANCELLED),
        (Interruption.DRAINED, 1, Outcome.RETRY),
        (Interruption.DRAINED, 3, Outcome.FAILED),
        (Interruption.LEASE_LOST, 1, None),
    ],
)
async def test_a_stopped_call_leaves_the_provider_and_ends_as_it_was_stopped(
    attempts: Attempts, emulator: Emulator, why: Interruption, attempt: int, outcome: Outcome | None
) -> None:
    emulator.configure("acme", fault="hang")
    task = asyncio.create_task(attempts.execute(attempt=attempt))
    await asyncio.to_thread(emulator.wait, "acme", running=1)
    attempts.interruption = why
    task.cancel()
    result = await task
    assert (None if result is None else result.outcome) is outcome
    await asyncio.to_thread(emulator.wait, "acme", ended=1)
    assert emulator.record("acme")["calls"][0]["outcome"] == "abandoned"


async def test_a_cancellation_that_nobody_asked_for_goes_on(attempts: Attempts, emulator: Emulator) -> None:
    emulator.configure("acme", fault="hang")
    task = asyncio.create_task(attempts.execute())
    await asyncio.to_thread(emulator.wait, "acme", running=1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("settings", "code"), [({"job_polls": 1000}, "TIMEOUT"), ({"lookup_error": 404}, "MODEL_NOT_FOUND")]
)
async def test_work_that_is_given_up_after_it_was_accepted_is_charged_by_estimate(
    attempts: Attempts, emulator: Emulator, settings: dict[str, Any], code: str
) -> None:
    emulator.configure("acme", **settings)
    result = await attempts.make_video(seconds="8")
    assert result.error is not None
    assert result.error.code == code
    # The provider makes it, and bills it, whether anybody asks after it or not.
    assert result.usage == Usage(seconds=Decimal(8), estimated=True)
    assert emulator.record("acme")["billed"]["seconds"] == 8


async def test_work_that_failed_at_the_provider_is_not_charged(attempts: Attempts, emulator: Emulator) -> None:
    emulator.configure("acme", job_polls=1, job_fails=True)
    result = await attempts.make_video(seconds="8")
    assert result.error is not None
    assert result.error.code == "INVALID_REQUEST"
    assert (result.usage, result.cost) == (None, None)

"""Models that take over from an exhausted one, with real workers and providers at the emulator."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from app.db.pool import Database
from tests.catalog_rows import CatalogRow, insert_model
from tests.emulator import Emulator
from tests.worker_process import WorkerProcess, request_service
from tests.workers.work import Work

KEYS = {"OTHER_API_KEY": "secret-key-of-other", "THIRD_API_KEY": "secret-key-of-third"}


class Candidates(Work):
    """acme:chat-1 is asked first, then other:chat-1, then third:chat-1."""

    rows: dict[str, CatalogRow]

    @property
    def refs(self) -> tuple[str, ...]:
        return tuple(row.ref for name, row in self.rows.items() if name != "acme")

    def arrivals(self, provider: str) -> int:
        return int(self.emulator.record(provider)["arrivals"])


@pytest.fixture
async def work(database: Database, database_dsn: str, emulator: Emulator) -> AsyncIterator[Candidates]:
    async with database.connection() as connection:
        rows = {
            name: await insert_model(connection, provider=name, base_url=emulator.url(name))
            for name in ("acme", "other", "third")
        }
    async with request_service(database) as service:
        work = Candidates(database, database_dsn, emulator, service, rows["acme"].ref)
        work.rows = rows
        yield work


async def test_the_next_model_takes_over_when_the_attempts_of_one_are_spent(work: Candidates) -> None:
    work.configure(error=503, retry_after=0)
    work.emulator.configure("other", input_tokens=10, output_tokens=5)
    with WorkerProcess(work.dsn, **KEYS):
        request = await work.run(fallbacks=work.refs)
    assert (request.status, request.model_ref) == ("COMPLETED", "other:chat-1")
    attempts = [(attempt.number, attempt.model_ref, attempt.status) for attempt in await work.attempts(request.id)]
    assert attempts == [
        (1, "acme:chat-1", "FAILED"),
        (2, "acme:chat-1", "FAILED"),
        (3, "acme:chat-1", "FAILED"),
        (4, "other:chat-1", "SUCCEEDED"),
    ]
    assert {entry.model_ref for entry in await work.ledger(request.id)} == {"other:chat-1"}
    assert work.arrivals("third") == 0
    # Each provider's own start log has its own starts.
    starts = await work.value(
        "SELECT count(*) FROM provider_starts WHERE provider_id = $1", work.rows["acme"].provider_id
    )
    assert starts == 3


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_the_next_model_takes_over_at_once_from_one_that_cannot_be_called(work: Candidates, status: int) -> None:
    work.configure(error=status)
    with WorkerProcess(work.dsn, **KEYS):
        request = await work.run(fallbacks=work.refs)
    assert [attempt.model_ref for attempt in await work.attempts(request.id)] == ["acme:chat-1", "other:chat-1"]
    assert request.status == "COMPLETED"


async def test_what_every_model_would_refuse_is_refused_once(work: Candidates) -> None:
    work.configure(error=400)
    with WorkerProcess(work.dsn, **KEYS):
        request = await work.run(fallbacks=work.refs)
    assert (request.status, request.error["code"]) == ("FAILED", "INVALID_REQUEST")
    assert work.arrivals("other") == 0


async def test_candidates_that_cannot_be_used_any_more_are_passed_over(work: Candidates) -> None:
    work.configure(error=401)
    request_id = await work.submit(fallbacks=work.refs)
    await work.execute("UPDATE llm_providers SET is_enabled = false WHERE name = 'other'")
    with WorkerProcess(work.dsn, **KEYS):
        request = await work.finished(request_id)
    assert (request.status, request.model_ref) == ("COMPLETED", "third:chat-1")
    assert work.arrivals("other") == 0


async def test_a_request_whose_every_model_is_exhausted_is_kept_with_all_their_errors(work: Candidates) -> None:
    work.configure(error=503, retry_after=0)
    work.emulator.configure("other", error=401)
    work.emulator.configure("third", fault="invalid_json")
    with WorkerProcess(work.dsn, **KEYS):
        request = await work.run(fallbacks=work.refs)
    assert (request.status, request.error["code"]) == ("FAILED", "INVALID_RESPONSE")
    errors = [
        (attempt.model_ref, attempt.error and attempt.error["code"]) for attempt in await work.attempts(request.id)
    ]
    assert errors == [
        *[("acme:chat-1", "PROVIDER_UNAVAILABLE")] * 3,
        ("other:chat-1", "AUTHENTICATION_FAILED"),
        *[("third:chat-1", "INVALID_RESPONSE")] * 3,
    ]


async def test_another_model_is_tried_where_the_deadline_leaves_no_time_to_wait(work: Candidates) -> None:
    work.configure(error=429, retry_after=60)
    with WorkerProcess(work.dsn, **KEYS):
        request = await work.run(fallbacks=work.refs, deadline=datetime.now(UTC) + timedelta(seconds=30))
    assert [attempt.model_ref for attempt in await work.attempts(request.id)] == ["acme:chat-1", "other:chat-1"]
    assert request.status == "COMPLETED"


async def test_waiting_requests_move_on_when_their_provider_s_circuit_opens(work: Candidates) -> None:
    work.configure(error=503, retry_after=0)
    await work.execute("UPDATE llm_providers SET max_parallel_requests = 1 WHERE name = 'acme'")
    ids = [await work.submit(fallbacks=work.refs) for _ in range(8)]
    with WorkerProcess(work.dsn, **KEYS):
        await work.finished(*ids)
    assert {(await work.get(id)).model_ref for id in ids} == {"other:chat-1"}
    # The fifth fault opened it: nobody spends three attempts of his own on a provider that is known to be down.
    assert work.arrivals("acme") == 5

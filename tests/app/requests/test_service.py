"""Submitting, cancelling and reading requests, against a real database."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.db.pool import Connection, Database
from app.errors import Conflict, ModelUnavailable, NotFound, TollgateError, ValidationError
from app.limits.repository import claim_requests
from app.requests import repository
from app.requests.records import AttemptResult, ModelRequest, ModelRequestStatus, Outcome, RequestFilter, SubmitRequest
from app.requests.service import RequestService
from tests.catalog_rows import CatalogRow, insert_model
from tests.worker_process import request_service

HELLO = [{"role": "user", "content": "Hello"}]
SUBMISSION = SubmitRequest(model="acme:chat-1", messages=HELLO)
KEYED = replace(SUBMISSION, idempotency_key="order-1")


@dataclass
class Requests:
    service: RequestService
    connection: Connection
    row: CatalogRow

    async def submit(self, submission: SubmitRequest = SUBMISSION) -> ModelRequest:
        return await self.service.submit(submission, workspace_id="default")

    async def count(self) -> int:
        number: int = await self.connection.fetchval("SELECT count(*) FROM model_requests")
        return number

    async def finish(self, outcome: Outcome, **values: Any) -> None:
        claim = await claim_requests(
            self.connection, self.row.provider_id, worker_id="w", capacity=100, lease_seconds=60
        )
        assert claim is not None
        results = [
            AttemptResult(request_id=one.request_id, lease_id=one.lease_id, outcome=outcome, **values)
            for one in claim.requests
        ]
        await repository.finish_requests(self.connection, results)


@pytest.fixture
async def requests(database: Database) -> AsyncIterator[Requests]:
    async with database.connection() as connection:
        row = await insert_model(connection, base_url="http://localhost/v1")
        async with request_service(database) as service:
            yield Requests(service, connection, row)


async def test_a_submission_becomes_a_waiting_request(requests: Requests) -> None:
    deadline = datetime.now(UTC) + timedelta(hours=1)
    request = await requests.submit(
        replace(SUBMISSION, parameters={"max_tokens": 7}, priority=3, deadline=deadline, metadata={"order": [1, "é"]})
    )
    assert (request.status, request.model_ref, request.model_id) == ("PENDING", "acme:chat-1", requests.row.model_id)
    assert request.payload["messages"] == [{"role": "user", "parts": [{"type": "text", "text": "Hello"}]}]
    assert request.parameters == {"max_tokens": 7}
    assert (request.priority, request.deadline, request.metadata) == (3, deadline, {"order": [1, "é"]})
    assert request.attempt_count == 0


@pytest.mark.parametrize("name", ["acme:chat-1", "#/Model/acme/chat-1", None])
async def test_a_model_is_named_by_ref_or_by_id(requests: Requests, name: str | None) -> None:
    request = await requests.submit(replace(SUBMISSION, model=name or requests.row.model_id))
    assert request.model_id == requests.row.model_id


# Idempotency ----------------------------------------------------------------


async def test_a_repeated_submission_answers_the_first_request(requests: Requests) -> None:
    first = await requests.submit(KEYED)
    assert await requests.submit(KEYED) == first
    assert await requests.submit(replace(KEYED, model=requests.row.model_id)) == first
    assert await requests.count() == 1


async def test_a_repeated_submission_answers_also_what_has_finished(requests: Requests) -> None:
    first = await requests.submit(KEYED)
    await requests.finish(Outcome.COMPLETED, output_text="Hi")
    again = await requests.submit(KEYED)
    assert (again.id, again.status, again.output_text) == (first.id, "COMPLETED", "Hi")


@pytest.mark.parametrize(
    "changes",
    [{"messages": [{"role": "user", "content": "Bye"}]}, {"parameters": {"temperature": 1}}, {"metadata": {"a": 1}}],
)
async def test_another_submission_under_the_same_key_conflicts(requests: Requests, changes: dict[str, Any]) -> None:
    first = await requests.submit(KEYED)
    with pytest.raises(Conflict, match=first.id) as caught:
        await requests.submit(replace(KEYED, **changes))
    assert caught.value.path == ("idempotencyKey",)
    assert await requests.count() == 1


async def test_the_order_of_an_object_s_keys_makes_no_difference(requests: Requests) -> None:
    first = await requests.submit(replace(KEYED, metadata={"a": 1, "b": 2}))
    assert (await requests.submit(replace(KEYED, metadata={"b": 2, "a": 1}))).id == first.id


async def test_twenty_submitters_at_once_under_one_key_make_one_request(requests: Requests) -> None:
    submitted = await asyncio.gather(*(requests.submit(KEYED) for _ in range(20)))
    assert len({request.id for request in submitted}) == 1
    assert await requests.count() == 1


async def test_duplicates_inside_a_batch_are_one_request(requests: Requests) -> None:
    batch = [KEYED, SUBMISSION, KEYED]
    first, other, again = await requests.service.submit_many(batch, workspace_id="default")
    assert first.id == again.id != other.id
    assert await requests.count() == 2


async def test_contradicting_duplicates_inside_a_batch_write_nothing(requests: Requests) -> None:
    batch = [SUBMISSION, KEYED, replace(KEYED, metadata={"a": 1})]
    with pytest.raises(Conflict):
        await requests.service.submit_many(batch, workspace_id="default")
    assert await requests.count() == 0


async def test_batches_that_share_keys_in_opposite_orders_all_come_through(requests: Requests) -> None:
    batch = [replace(SUBMISSION, idempotency_key=f"key-{number}") for number in range(200)]
    answers = await asyncio.gather(
        *(
            requests.service.enqueue(order, workspace_id="default")
            for order in (batch, list(reversed(batch)), batch[100:] + batch[:100])
        )
    )
    assert await requests.count() == 200
    assert answers[0] == list(reversed(answers[1])) == answers[2][100:] + answers[2][:100]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE llm_models SET status = 'DEPRECATED'",
        "UPDATE llm_providers SET is_enabled = false",
        "UPDATE llm_models SET max_output_tokens = 5",
        "DELETE FROM llm_models",
    ],
)
async def test_a_repeat_answers_the_first_request_whatever_became_of_its_model(
    requests: Requests, database: Database, change: str
) -> None:
    keyed = replace(KEYED, parameters={"max_tokens": 10})
    first = await requests.submit(keyed)
    await requests.connection.execute(change)
    async with request_service(database) as service:
        assert (await service.submit(keyed, workspace_id="default")).id == first.id
        batch = [keyed, replace(keyed, model="#/Model/acme/chat-1")]
        assert await service.enqueue(batch, workspace_id="default") == [first.id] * 2
        with pytest.raises(Conflict, match=first.id):
            await service.submit(replace(keyed, metadata={"a": 1}), workspace_id="default")
        with pytest.raises(TollgateError) as refused:
            await service.submit(replace(keyed, idempotency_key="another"), workspace_id="default")
        assert not isinstance(refused.value, Conflict)
        with pytest.raises(TollgateError):
            await service.submit(keyed, workspace_id="other")
    assert await requests.count() == 1


async def test_a_repeat_answers_the_first_request_after_its_deadline(requests: Requests) -> None:
    first = await requests.submit(replace(KEYED, deadline=datetime.now(UTC) + timedelta(hours=1)))
    late = replace(KEYED, deadline=datetime.now(UTC) - timedelta(hours=1))
    assert (await requests.submit(late)).id == first.id
    with pytest.raises(ValidationError, match="deadline"):
        await requests.submit(replace(late, idempotency_key="another"))


async def test_a_batch_of_new_requests_and_repeats_that_are_refused_now_keeps_its_order(requests: Requests) -> None:
    first = await requests.submit(KEYED)
    late = replace(KEYED, deadline=datetime.now(UTC) - timedelta(hours=1))
    before, repeat, after = await requests.service.enqueue([SUBMISSION, late, KEYED], workspace_id="default")
    assert repeat == after == first.id != before
    with pytest.raises(ValidationError) as refused:
        await requests.service.enqueue(
            [SUBMISSION, late, replace(late, idempotency_key="another")], workspace_id="default"
        )
    assert refused.value.path == ("inputs", "2", "deadline")
    assert await requests.count() == 2


# What cannot be submitted ---------------------------------------------------


@pytest.mark.parametrize(
    ("table", "change", "reason"),
    [
        ("llm_models", "status = 'DEPRECATED'", "deprecated"),
        ("llm_models", "status = 'INACTIVE'", "inactive"),
        ("llm_providers", "is_enabled = false", "disabled"),
        ("llm_providers", "adapter = 'carrier-pigeon'", "protocol"),
        ("llm_providers", "base_url = NULL", "no base URL"),
    ],
)
async def test_an_unusable_model_is_refused_with_what_to_use_instead(
    database: Database, table: str, change: str, reason: str
) -> None:
    async with database.connection() as connection:
        row = await insert_model(connection, base_url="http://localhost/v1")
        await insert_model(connection, provider="globex", base_url="http://localhost/v1")
        await connection.execute(f"UPDATE {table} SET {change} WHERE id IN ($1, $2)", row.model_id, row.provider_id)
        async with request_service(database) as service:
            with pytest.raises(ModelUnavailable, match=reason) as caught:
                await service.submit(SUBMISSION, workspace_id="default")
        assert "globex:chat-1" in caught.value.alternatives
        assert "globex:chat-1" in caught.value.message
        assert caught.value.path == ("model",)
        assert await connection.fetchval("SELECT count(*) FROM model_requests") == 0


@pytest.mark.parametrize("model", ["acme:none", "none:chat-1", "none", "", "#/Model/acme/none", "\0", "a:\0"])
async def test_a_model_that_is_not_there_is_not_found(requests: Requests, model: str) -> None:
    with pytest.raises((NotFound, ValidationError)):
        await requests.submit(replace(SUBMISSION, model=model))
    assert await requests.count() == 0


async def test_another_workspace_s_model_is_not_found(requests: Requests) -> None:
    for model in (requests.row.model_id, requests.row.ref):
        with pytest.raises(NotFound):
            await requests.service.submit(replace(SUBMISSION, model=model), workspace_id="other")


async def test_a_batch_is_written_whole_or_not_at_all(requests: Requests) -> None:
    for bad in (replace(SUBMISSION, model="acme:none"), replace(SUBMISSION, priority=10**9)):
        with pytest.raises(TollgateError):
            await requests.service.submit_many([SUBMISSION, bad, SUBMISSION], workspace_id="default")
    assert await requests.count() == 0


@pytest.mark.parametrize("count", [0, 10_001])
async def test_a_batch_has_a_size(requests: Requests, count: int) -> None:
    with pytest.raises(ValidationError):
        await requests.service.enqueue([SUBMISSION] * count, workspace_id="default")


async def test_a_request_that_can_never_fit_its_provider_s_tokens_is_refused(database: Database) -> None:
    async with database.connection() as connection:
        await insert_model(connection, base_url="http://localhost/v1", tokens_per_minute=1000)
    async with request_service(database) as service:
        with pytest.raises(ValidationError, match="1000 per minute") as caught:
            await service.submit(replace(SUBMISSION, parameters={"max_tokens": 1000}), workspace_id="default")
        assert caught.value.field == "parameters.max_tokens"
        # "Hello" is estimated at 3 tokens and 8 for each message and the answer.
        fits = replace(SUBMISSION, parameters={"max_tokens": 1000 - 19})
        assert (await service.submit(fits, workspace_id="default")).reserved_tokens == 1000


async def test_a_model_that_was_deleted_since_the_snapshot_is_not_found(requests: Requests) -> None:
    await requests.connection.execute("DELETE FROM llm_models WHERE id = $1", requests.row.model_id)
    with pytest.raises(NotFound):
        await requests.submit()
    assert await requests.count() == 0


async def test_a_request_outlives_its_model(requests: Requests) -> None:
    request = await requests.submit()
    await requests.finish(Outcome.COMPLETED)
    await requests.connection.execute("DELETE FROM llm_models WHERE id = $1", requests.row.model_id)
    found = await requests.service.get(request.id, workspace_id="default")
    assert found is not None
    assert (found.model_id, found.model_ref, found.status) == (None, "acme:chat-1", "COMPLETED")


# Cancelling -----------------------------------------------------------------


async def test_a_waiting_request_is_cancelled_at_once(requests: Requests) -> None:
    request = await requests.submit()
    cancelled = await requests.service.cancel(request.id, workspace_id="default")
    assert cancelled.status == "CANCELLED"
    assert cancelled.finished_at is not None
    assert (await requests.service.cancel(request.id, workspace_id="default")) == cancelled


async def test_a_running_request_is_asked_to_stop(requests: Requests) -> None:
    request = await requests.submit()
    await claim_requests(requests.connection, requests.row.provider_id, worker_id="w", capacity=1, lease_seconds=60)
    asked = await requests.service.cancel(request.id, workspace_id="default")
    assert (asked.status, asked.finished_at) == ("PROCESSING", None)
    assert asked.cancel_requested_at is not None
    again = await requests.service.cancel(request.id, workspace_id="default")
    assert again.cancel_requested_at == asked.cancel_requested_at


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.FAILED])
async def test_a_finished_request_cannot_be_cancelled(requests: Requests, outcome: Outcome) -> None:
    request = await requests.submit()
    await requests.finish(outcome)
    with pytest.raises(Conflict, match=outcome):
        await requests.service.cancel(request.id, workspace_id="default")


@pytest.mark.parametrize(("request_id", "workspace"), [("none", "default"), ("a\0", "default"), (None, "other")])
async def test_what_is_not_there_cannot_be_cancelled(
    requests: Requests, request_id: str | None, workspace: str
) -> None:
    request = await requests.submit()
    with pytest.raises(NotFound):
        await requests.service.cancel(request_id or request.id, workspace_id=workspace)
    assert (await requests.submit()).status == "PENDING"


# Reading --------------------------------------------------------------------


async def test_pages_lead_through_all_requests_newest_first(requests: Requests) -> None:
    ids = await requests.service.enqueue([SUBMISSION] * 7, workspace_id="default")
    seen: list[str] = []
    before, more = None, True
    while more:
        rows, more = await requests.service.page(RequestFilter(), workspace_id="default", first=3, before_id=before)
        seen += [row.id for row in rows]
        before = seen[-1]
    assert seen == sorted(ids, reverse=True)
    assert await requests.service.count(RequestFilter(), workspace_id="default") == 7


async def test_a_page_holds_what_its_filter_lets_through(requests: Requests) -> None:
    first, second = await requests.service.enqueue([SUBMISSION] * 2, workspace_id="default")
    await requests.service.cancel(first, workspace_id="default")
    now = datetime.now(UTC)

    async def ids(**where: Any) -> set[str]:
        chosen = RequestFilter(**where)
        rows, _ = await requests.service.page(chosen, workspace_id="default", first=10)
        assert await requests.service.count(chosen, workspace_id="default") == len(rows)
        return {row.id for row in rows}

    assert await ids(status=ModelRequestStatus.CANCELLED) == {first}
    assert await ids(status=ModelRequestStatus.PENDING, provider_id=requests.row.provider_id) == {second}
    assert await ids(provider_id="other") == set()
    assert await ids(ids=[second, "none"]) == {second}
    assert await ids(ids=[]) == set()
    assert await ids(ids=[first, second], status=ModelRequestStatus.PENDING) == {second}
    assert await ids(model_id=requests.row.model_id) == {first, second}
    assert await ids(created_after=now + timedelta(minutes=1)) == set()
    assert await ids(created_before=now + timedelta(minutes=1)) == {first, second}


@pytest.mark.parametrize("text", ["a\0", "\ud800"])
async def test_a_filter_or_cursor_that_no_database_can_hold_is_refused(requests: Requests, text: str) -> None:
    for where, field in (
        (RequestFilter(provider_id=text), "filter.providerId"),
        (RequestFilter(model_id=text), "filter.modelId"),
        (RequestFilter(ids=["none", text]), "filter.ids"),
    ):
        with pytest.raises(ValidationError, match=field):
            await requests.service.page(where, workspace_id="default", first=1)
        with pytest.raises(ValidationError, match=field):
            await requests.service.count(where, workspace_id="default")
    with pytest.raises(ValidationError, match="after"):
        await requests.service.page(RequestFilter(), workspace_id="default", first=1, before_id=text)
    assert await requests.service.progress(text, workspace_id="default") is None


async def test_another_workspace_sees_nothing(requests: Requests) -> None:
    request = await requests.submit()
    assert await requests.service.get(request.id, workspace_id="other") is None
    assert await requests.service.page(RequestFilter(), workspace_id="other", first=10) == ([], False)


async def test_an_id_that_no_database_can_hold_is_simply_not_there(requests: Requests) -> None:
    request = await requests.submit()
    found = await requests.service.get_many([request.id, "a\0", "\ud800"], workspace_id="default")
    assert list(found) == [request.id]

"""Calls in the queue: submitted, waited for, cancelled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import tollgate
from tests.gateway_server import GatewayServer, told
from tollgate import Service
from tollgate.queue import PER_OPERATION, get_request, submission, submit_one
from tollgate.steps import Call, Pause, Reply

CHAT = "oai:chat-1"


def test_a_submitted_request_is_run_by_a_worker_and_has_its_receipt(service: Service) -> None:
    request = service.submit(
        CHAT, told(reply="Done", input_tokens=100, output_tokens=20), metadata={"job": 1}, max_tokens=50
    )
    assert not request.is_finished
    finished = service.wait(request, timeout_seconds=30)
    assert (finished.status, finished.data, finished.metadata) == ("COMPLETED", "Done", {"job": 1})
    assert finished.usage == tollgate.Usage(input_tokens=100, output_tokens=20)
    assert finished.cost == Decimal("0.00045")
    assert [(line.unit, line.amount) for line in finished.lines] == [
        ("INPUT_TOKENS", Decimal("0.00025")),
        ("OUTPUT_TOKENS", Decimal("0.0002")),
    ]
    assert finished.finished_at is not None
    assert finished.finished_at > finished.created_at
    finished.raise_for_error()


def test_a_batch_larger_than_an_operation_keeps_its_order(service: Service) -> None:
    prompts = [told(reply=str(number)) for number in range(2 * PER_OPERATION + 3)]
    submitted = service.submit_many(CHAT, prompts)
    finished = service.wait_many(submitted, timeout_seconds=60)
    assert [request.id for request in finished] == [request.id for request in submitted]
    assert [request.data for request in finished] == [str(number) for number in range(len(prompts))]


async def test_the_queue_is_there_for_asyncio_too(service: Service) -> None:
    first = await service.submit_async(CHAT, [{"role": "user", "content": told(reply="one")}])
    others = await service.submit_many_async(CHAT, [told(reply="two")])
    finished = await service.wait_many_async([first, *others], timeout_seconds=30)
    assert [request.data for request in finished] == ["one", "two"]
    await service.aclose()


def test_models_of_other_kinds_take_what_they_take(service: Service) -> None:
    embedded = service.wait(service.submit("oai:embed-1", ["one", "two"]), timeout_seconds=30)
    assert embedded.status == "COMPLETED", embedded.error
    ranked = service.submit("coh:rerank-1", {"query": "q", "documents": ["a", "b"]})
    assert service.wait(ranked, timeout_seconds=30).cost == Decimal("0.002")


def test_an_idempotency_key_is_answered_with_the_first_request(service: Service) -> None:
    first = service.submit(CHAT, "Hello", idempotency_key="once")
    assert service.submit(CHAT, "Hello", idempotency_key="once").id == first.id
    with pytest.raises(tollgate.Conflict):
        service.submit(CHAT, "Other", idempotency_key="once")


def test_a_request_that_takes_longer_than_waited_for_goes_on(service: Service, server: GatewayServer) -> None:
    request = service.submit(CHAT, told(fault="hang"))
    with pytest.raises(tollgate.StillWaiting) as caught:
        service.wait(request, timeout_seconds=0.2)
    assert caught.value.request_id == request.id
    assert service.get_request(request.id).status in ("PENDING", "PROCESSING")
    service.cancel(request.id)
    assert service.wait(request, timeout_seconds=30).status == "CANCELLED"


def test_what_cannot_be_submitted_is_refused_by_name(service: Service) -> None:
    with pytest.raises(tollgate.ValidationError, match="time zone") as caught:
        service.submit(CHAT, "Hello", deadline=datetime(2030, 1, 1))  # noqa: DTZ001 - what is refused here
    assert caught.value.field == "deadline"
    service.submit(CHAT, "Hello", deadline=datetime.now(UTC) + timedelta(hours=1))
    image = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
    with pytest.raises(tollgate.ValidationError, match=r"messages\[0\]"):
        service.submit(CHAT, image)
    with pytest.raises(tollgate.NotFound):
        service.get_request("none")
    with pytest.raises(tollgate.NotFound):
        asyncio.run(service.get_request_async("none"))


def test_a_submission_is_sent_again_as_it_was_when_the_server_starts_anew() -> None:
    item = submission(CHAT, "Hello", parameters={}, priority=0, idempotency_key=None, deadline=None, metadata=None)
    steps = submit_one(item)
    first = next(steps)
    assert isinstance(first, Call)
    assert first.body["variables"]["i0"]["idempotencyKey"]
    assert isinstance(steps.throw(tollgate.ServerUnreachable("gone")), Pause)
    assert steps.send(None) == first
    starting = b'{"errors": [{"message": "the process is starting", "extensions": {"code": "DATABASE_UNAVAILABLE"}}]}'
    assert isinstance(steps.send(Reply(503, {}, starting)), Pause)
    assert steps.send(None) == first


def test_a_server_that_stays_away_is_unreachable_after_some_patience() -> None:
    steps = get_request("any")
    next(steps)
    pauses = 0
    with pytest.raises(tollgate.ServerUnreachable):
        while True:
            assert isinstance(steps.throw(tollgate.ServerUnreachable("gone")), Pause)
            pauses += 1
            steps.send(None)
    assert pauses == 4

"""Calls in the queue: submitted, waited for, cancelled."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

import tollgate
from tests.gateway_server import GatewayServer, told
from tollgate import Service, queue
from tollgate.queue import get_request, submission, submit_one
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


def test_many_are_submitted_waited_for_and_read_in_their_order(service: Service) -> None:
    prompts = [told(reply=str(number)) for number in range(queue.READ_SIZE + 3)]
    submitted = service.submit_many(CHAT, prompts, metadata={"job": "many"})
    assert [request.metadata for request in submitted] == [{"job": "many"}] * len(prompts)
    finished = service.wait_many(submitted, timeout_seconds=60)
    assert [request.id for request in finished] == [request.id for request in submitted]
    assert [request.data for request in finished] == [str(number) for number in range(len(prompts))]


def test_nothing_is_submitted_for_no_prompts(service: Service) -> None:
    assert service.submit_many(CHAT, []) == []
    assert service.wait_many([]) == []


def test_the_first_prompt_that_is_refused_is_named_and_the_batches_before_are_submitted(
    service: Service, server: GatewayServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BATCH_SIZE", 4)
    prompts = ["Hello"] * 6 + [{"unknown": "input"}] + ["Hello"] * 3
    with pytest.raises(tollgate.ValidationError, match=r"^prompts\[6\]: ") as caught:
        service.submit_many(CHAT, prompts, metadata={"job": "a bad one"})
    assert caught.value.path[:2] == ("prompts", "6")
    submitted = server.rows("SELECT id FROM model_requests WHERE metadata ->> 'job' = 'a bad one'")
    assert len(submitted) == 4
    with pytest.raises(tollgate.ValidationError, match=r"^prompts\[1\]: messages\[0\]\.role") as caught:
        service.submit_many(CHAT, ["Hello", [{"role": "nobody", "content": "Hello"}]])
    assert caught.value.path == ("prompts", "1", "messages")


def test_a_batch_ends_before_it_is_too_large() -> None:
    def sizes(*lengths: int) -> list[int]:
        return [len(batch) for batch in queue._batches([{"input": "x" * length} for length in lengths])]

    half = queue.BATCH_BYTES // 2
    assert sizes() == []
    assert sizes(half, half, 1, 1) == [1, 3]
    assert sizes(1, 3 * half, 1) == [1, 1, 1]
    assert sizes(*[1] * (2 * queue.BATCH_SIZE + 1)) == [queue.BATCH_SIZE, queue.BATCH_SIZE, 1]


def test_what_is_too_large_for_the_server_is_submitted_in_parts_and_named_where_it_is_too_large_alone(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "BATCH_BYTES", 1 << 30)
    large = "x" * (4 * 1024 * 1024)
    submitted = service.submit_many(CHAT, [large, large, large, "Hello"])
    assert len({request.id for request in submitted}) == 4
    with pytest.raises(tollgate.errors.LimitExceeded, match=r"^prompts\[1\]: ") as caught:
        service.submit_many(CHAT, ["Hello", large * 3])
    assert caught.value.path == ("prompts", "1")


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
    assert first.body["variables"]["input"]["idempotencyKey"]
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

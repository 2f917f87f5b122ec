"""Calls through a running server: answers, threads, event loops, streams."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from threading import Barrier

import pytest

import tollgate
from tests.gateway_server import GatewayServer, told
from tests.worker_process import wait_until
from tollgate import Service

CHAT = "oai:chat-1"


def test_a_prompt_is_answered_with_text_usage_and_the_cost_of_the_ledger(
    service: Service, server: GatewayServer
) -> None:
    answer = service(CHAT, told(reply="Bonjour", input_tokens=100, output_tokens=20, cached_tokens=40))
    assert answer.data == str(answer) == "Bonjour"
    assert answer.usage == tollgate.Usage(input_tokens=100, output_tokens=20, cache_read_tokens=40)
    assert answer.usage.total_tokens == 120
    # 60 x 2.5 + 40 x 1.25 + 20 x 10, per million.
    assert (answer.cost, answer.currency) == (Decimal("0.0004"), "USD")
    (row,) = server.rows("SELECT sum(amount) AS amount FROM ledger_entries WHERE request_id = $1", answer.request_id)
    assert row["amount"] == answer.cost
    assert answer.finish_reason == "stop"
    assert answer.output["content"] == "Bonjour"
    assert answer.response["object"] == "chat.completion"
    assert answer.wait_seconds is not None


def test_parameters_and_messages_go_to_the_model(service: Service, server: GatewayServer) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": told(output_tokens=50)}]
    answer = service.invoke_model("ant:chat-1", messages, max_tokens=7, temperature=0.5)
    assert answer.finish_reason == "length"
    assert answer.usage.output_tokens == 7
    (row,) = server.rows("SELECT parameters FROM model_requests WHERE id = $1", answer.request_id)
    assert '"temperature": 0.5' in row["parameters"]


def test_a_tool_call_is_an_answer_without_text(service: Service) -> None:
    tool = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}
    prompt = told(tool_call={"name": "look_up", "arguments": {"word": "x"}})
    answer = service(CHAT, prompt, tools=[tool])
    assert answer.data == ""
    assert [call["function"]["name"] for call in answer.tool_calls] == ["look_up"]
    stream = service.stream(CHAT, prompt, tools=[tool])
    (streamed,) = stream.answer().tool_calls
    assert streamed["function"] == answer.tool_calls[0]["function"]


def test_priority_waiting_and_fallbacks_are_told_to_the_server(service: Service, server: GatewayServer) -> None:
    answer = service(CHAT, "Hello", priority=7, wait_seconds=5, fallbacks=["ant:chat-1"], max_tokens=10)
    (row,) = server.rows(
        "SELECT priority, cardinality(fallback_model_ids) AS fallbacks FROM model_requests WHERE id = $1",
        answer.request_id,
    )
    assert (row["priority"], row["fallbacks"]) == (7, 1)


def test_many_threads_share_one_service(service: Service, server: GatewayServer) -> None:
    threads, each = 32, 8
    together = Barrier(threads)

    def call(number: int) -> list[tollgate.Answer]:
        together.wait()
        return [service(CHAT, told(reply=f"{number}.{turn}")) for turn in range(each)]

    with ThreadPoolExecutor(threads) as executor:
        answers = list(executor.map(call, range(threads)))
    assert [[answer.data for answer in of_thread] for of_thread in answers] == [
        [f"{number}.{turn}" for turn in range(each)] for number in range(threads)
    ]
    ids = {answer.request_id for of_thread in answers for answer in of_thread}
    assert len(ids) == threads * each
    (row,) = server.rows("SELECT sum(amount) AS amount FROM ledger_entries WHERE request_id = ANY ($1)", list(ids))
    assert row["amount"] == sum(answer.cost or 0 for of_thread in answers for answer in of_thread)


def test_one_service_serves_several_event_loops_and_plain_code(service: Service) -> None:
    async def together() -> list[str]:
        answers = await asyncio.gather(*(service.invoke_model_async(CHAT, told(reply=str(n))) for n in range(10)))
        return [answer.data for answer in answers]

    expected = [str(n) for n in range(10)]
    assert asyncio.run(together()) == expected
    assert service(CHAT, told(reply="plain")).data == "plain"
    with ThreadPoolExecutor(2) as executor:
        assert list(executor.map(asyncio.run, [together(), together()])) == [expected, expected]


def test_a_forked_process_has_connections_of_its_own(service: Service) -> None:
    assert service(CHAT, "Hello").data
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sending.send(service(CHAT, told(reply="from the child")).data))
    child.start()
    answers = [service(CHAT, told(reply="from the parent")).data for _ in range(5)]
    assert receiving.poll(30)
    assert receiving.recv() == "from the child"
    child.join()
    assert set(answers) == {"from the parent"}


async def test_a_call_whose_task_is_cancelled_is_cancelled(service: Service, server: GatewayServer) -> None:
    metadata = {"test": "cancelled task"}
    call = asyncio.create_task(service.invoke_model_async("ant:chat-1", told(fault="hang"), metadata=metadata))
    running = "EXISTS (SELECT FROM model_requests WHERE metadata ->> 'test' = 'cancelled task' AND status = $1)"
    await wait_until(server.dsn, running, "PROCESSING")
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    await wait_until(server.dsn, running, "CANCELLED")
    await service.aclose()


def test_a_model_is_a_callable_that_knows_what_the_catalog_says(service: Service) -> None:
    model = service.get_model(CHAT)
    assert (model.id, model.info.provider, model.info.model_type) == (CHAT, "oai", "TEXT")
    assert model.info.cost_input_per_million == Decimal("2.5")
    assert model(told(reply="direct")).data == "direct"
    assert next(chunk.data for chunk in model.stream(told(reply="direct")) if chunk.data)
    assert asyncio.run(_ask(model)) == "later"


async def _ask(model: tollgate.Model) -> str:
    return (await model.invoke_async(told(reply="later"))).data


def test_a_stream_comes_in_chunks_and_ends_with_its_cost(service: Service, server: GatewayServer) -> None:
    text = "One line,\u2028\u0085and\nanother: é漢😀."
    stream = service.stream(CHAT, told(reply=text, input_tokens=1000, output_tokens=100))
    chunks = list(stream)
    assert "".join(chunk.data for chunk in chunks) == text
    assert len([chunk for chunk in chunks if chunk.data]) > 2
    assert chunks[-1].finish_reason == "stop"
    assert stream.usage == tollgate.Usage(input_tokens=1000, output_tokens=100)
    answer = stream.answer()
    assert (answer.data, answer.usage, answer.cost) == (text, stream.usage, Decimal("0.0035"))
    assert answer.finish_reason == "stop"
    (row,) = server.rows("SELECT cost_total, status FROM model_requests WHERE id = $1", stream.request_id)
    assert (row["cost_total"], row["status"]) == (answer.cost, "COMPLETED")


async def test_a_stream_can_be_awaited(service: Service) -> None:
    async with service.stream_async("ant:chat-1", told(reply="Bit by bit."), max_tokens=100) as stream:
        assert "".join([chunk.data async for chunk in stream]) == "Bit by bit."
        answer = await stream.answer()
    assert answer.data == "Bit by bit."
    assert answer.cost
    await service.aclose()


def test_chunks_are_handed_on_while_the_call_goes_on(service: Service, server: GatewayServer) -> None:
    with service.stream(CHAT, told(fault="hang_midway", reply="A reply of several words.")) as stream:
        assert next(stream).data
        assert stream.usage is None
    # Leaving the stream has cancelled the call, and its worker is told so.
    assert stream.request_id is not None
    request = service.wait(stream.request_id, timeout_seconds=30)
    assert request.status == "CANCELLED"
    with pytest.raises(tollgate.errors.CallCancelled):
        request.raise_for_error()


async def test_an_asynchronous_stream_that_is_left_is_cancelled(service: Service) -> None:
    async with service.stream_async(CHAT, told(fault="hang_midway", reply="A reply of several words.")) as stream:
        await anext(stream)
    assert stream.request_id is not None
    assert (await service.wait_async(stream.request_id, timeout_seconds=30)).status == "CANCELLED"
    await service.aclose()


def test_a_stream_that_has_not_ended_has_no_answer_yet(service: Service) -> None:
    stream = service.stream(CHAT, told(fault="hang_midway", reply="A reply of several words."))
    next(stream)
    stream.close()
    with pytest.raises(tollgate.TollgateError, match="has not been read to its end"):
        stream.answer()


def test_a_stream_that_fails_midway_raises_what_happened(service: Service) -> None:
    reply = "A reply of several words, " * 20
    stream = service.stream("goo:chat-1", told(fault="disconnect_midway", chunk_ms=10, reply=reply))
    chunks: list[tollgate.Chunk] = []
    with pytest.raises(tollgate.ProviderError) as caught:
        chunks.extend(stream)
    assert 0 < len("".join(chunk.data for chunk in chunks)) < len(reply)
    assert caught.value.request_id == stream.request_id

"""How the gateway waits, counts, refuses and ends: over plain HTTP, for what no SDK shows."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import openai
import pytest
from openai import OpenAI

from tests.gateway_server import GatewayServer, gateway_server, told
from tests.worker_process import wait_until

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def gateway(
    server_dsn: str, template_database: str, emulator_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[GatewayServer]:
    data_dir: Path = tmp_path_factory.mktemp("gateway") / "data"
    with gateway_server(
        server_dsn,
        template_database,
        emulator_url,
        data_dir,
        TOLLGATE_GATEWAY_MAX_BODY_BYTES="200000",
        TOLLGATE_LEASE_SECONDS="4",
    ) as server:
        yield server


def body(model: str = "oai:chat-1", text: str = "Hello", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}], **more}


async def row_of(gateway: GatewayServer, request_id: str) -> Any:
    return (await asyncio.to_thread(gateway.rows, "SELECT * FROM model_requests WHERE id = $1", request_id))[0]


async def running(gateway: GatewayServer, provider: str, count: int = 1) -> None:
    await asyncio.to_thread(lambda: gateway.emulator.wait(provider, running=count))


async def waiting(gateway: GatewayServer, provider: str, count: int) -> None:
    """Until so many calls of the provider wait. No notification tells of a call that only its owner may claim."""
    statement = (
        "SELECT count(*) FROM model_requests r JOIN llm_providers p ON p.id = r.provider_id "
        " WHERE r.status = 'PENDING' AND p.name = $1"
    )
    connection = await asyncpg.connect(gateway.dsn)
    try:
        async with asyncio.timeout(20):
            while await connection.fetchval(statement, provider) != count:
                await connection.execute("SELECT pg_sleep(0.01)")
    finally:
        await connection.close()


def hang(http: httpx.AsyncClient, provider: str = "narrow", **more: Any) -> asyncio.Task[httpx.Response]:
    """A call that holds the provider's one permit until it is cancelled."""
    return asyncio.create_task(http.post(CHAT, json=body(f"{provider}:chat-1", told(fault="hang"), **more)))


async def leave(*calls: asyncio.Task[httpx.Response]) -> None:
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


async def idle(gateway: GatewayServer) -> None:
    await wait_until(gateway.dsn, "NOT EXISTS (SELECT FROM model_requests WHERE status IN ('PENDING', 'PROCESSING'))")


async def test_what_waits_too_long_is_told_when_to_come_again(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        gateway.emulator.reset("narrow")
        holder = hang(http)
        await running(gateway, "narrow")
        answer = await http.post(CHAT, json=body("narrow:chat-1"), headers={"x-tollgate-wait-seconds": "0.2"})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "0.2 s" in answer.json()["error"]["message"]
        row = await row_of(gateway, answer.headers["x-tollgate-request-id"])
        assert (row["status"], row["attempt_count"], row["cost_total"]) == ("CANCELLED", 0, None)
        with (
            OpenAI(base_url=gateway.openai_url, api_key=gateway.token, max_retries=0) as client,
            pytest.raises(openai.RateLimitError),
        ):
            await asyncio.to_thread(
                lambda: client.chat.completions.create(
                    model="narrow:chat-1",
                    messages=[{"role": "user", "content": "Hi"}],
                    extra_headers={"x-tollgate-wait-seconds": "0"},
                )
            )
        await leave(holder)
        await idle(gateway)


async def test_a_wait_of_zero_seconds_still_takes_a_free_permit(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        answer = await http.post(CHAT, json=body("narrow:chat-1"), headers={"x-tollgate-wait-seconds": "0"})
        assert answer.status_code == 200, answer.text
        assert int(answer.headers["x-tollgate-permits-left"]) == 0
        assert Decimal(answer.headers["x-tollgate-wait-ms"]) >= 0


async def test_calls_start_in_the_order_of_the_one_queue(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        gateway.emulator.reset("narrow")
        holder = hang(http)
        await running(gateway, "narrow")
        calls = []
        for number, (key, priority) in enumerate((("old", 0), ("young", 0), ("urgent", 5)), start=1):
            headers = {"x-tollgate-priority": str(priority)}
            calls.append(
                asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1", key), headers=headers), name=key)
            )
            await waiting(gateway, "narrow", number)
        await leave(holder)
        answers = {call.get_name(): await call for call in calls}
        keys = {answer.headers["x-tollgate-request-id"]: name for name, answer in answers.items()}
        gateway.emulator.wait("narrow")
        seen = [keys[call["key"]] for call in gateway.emulator.record("narrow")["calls"] if call["key"] in keys]
        assert seen == ["urgent", "old", "young"]


async def test_permits_of_queued_requests_further_ahead_are_left_to_them(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        # No worker runs here that could take it.
        submission = {"model": "narrow:chat-1", "messages": [{"role": "USER", "content": "Hello"}]}
        submit = (
            "mutation ($input: SubmitRequestInput!) { submitRequest(input: $input) { ... on ModelRequest { id } } }"
        )
        queued = await http.post("/graphql", json={"query": submit, "variables": {"input": submission}})
        queued_id = queued.json()["data"]["submitRequest"]["id"]
        behind = await http.post(CHAT, json=body("narrow:chat-1"), headers={"x-tollgate-wait-seconds": "0.2"})
        assert behind.status_code == 429
        before = await http.post(CHAT, json=body("narrow:chat-1"), headers={"x-tollgate-priority": "1"})
        assert before.status_code == 200
        waiter = asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1")))
        await waiting(gateway, "narrow", 2)
        cancel = "mutation ($id: ID!) { cancelRequest(id: $id) { __typename } }"
        await http.post("/graphql", json={"query": cancel, "variables": {"id": queued_id}})
        async with asyncio.timeout(10):
            assert (await waiter).status_code == 200


async def test_a_client_that_leaves_a_stream_cancels_it_and_pays_for_what_came(gateway: GatewayServer) -> None:
    text = told(reply="word " * 200, chunk_tokens=1, chunk_ms=20, input_tokens=50)
    async with gateway.http() as http:
        async with http.stream("POST", CHAT, json=body("ant:chat-1", text, stream=True, max_tokens=5000)) as answer:
            request_id = answer.headers["x-tollgate-request-id"]
            async for line in answer.aiter_lines():
                if '"content":"' in line:
                    break
        await idle(gateway)
        row = await row_of(gateway, request_id)
        assert (row["status"], row["usage_estimated"]) == ("CANCELLED", True)
        # The provider had told the input; the output is an estimate of what had come.
        assert row["input_tokens"] == 50
        assert 0 < row["output_tokens"] < 200
        lines = await asyncio.to_thread(gateway.rows, "SELECT * FROM ledger_entries WHERE request_id = $1", request_id)
        assert all(line["is_estimated"] for line in lines)
        assert sum(line["amount"] for line in lines) == row["cost_total"] > 0


async def test_a_client_that_leaves_a_whole_answer_pays_for_what_it_had_sent(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        gateway.emulator.reset("oai")
        call = hang(http, "oai")
        await running(gateway, "oai")
        await leave(call)
        await idle(gateway)
    (served,) = gateway.emulator.record("oai")["calls"]
    row = await row_of(gateway, served["key"])
    assert (row["status"], row["usage_estimated"], row["output_tokens"]) == ("CANCELLED", True, 0)
    assert row["input_tokens"] > 0
    assert row["cost_total"] > 0


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_leave_a_call_to_go_on(gateway: GatewayServer, stream: bool) -> None:
    text = told(reply="word " * 300, chunk_tokens=1, latency_ms=200, chunk_ms=1, first_byte_ms=1)
    async with gateway.http(headers={"x-tollgate-on-disconnect": "detach"}) as http:
        gateway.emulator.reset("oai")
        call = asyncio.create_task(http.post(CHAT, json=body(text=text, stream=stream)))
        await running(gateway, "oai")
        await leave(call)
        await idle(gateway)
    (served,) = gateway.emulator.record("oai")["calls"]
    row = await row_of(gateway, served["key"])
    assert (row["status"], row["usage_estimated"]) == ("COMPLETED", False)
    assert (row["input_tokens"], row["output_tokens"]) == (served["input_tokens"], served["output_tokens"])
    assert row["output_text"] == "word " * 300


async def test_a_client_that_leaves_while_it_waits_frees_its_place(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        gateway.emulator.reset("narrow")
        holder = hang(http)
        await running(gateway, "narrow")
        call = asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1")))
        await waiting(gateway, "narrow", 1)
        await leave(call)
        await waiting(gateway, "narrow", 0)
        await leave(holder)
        await idle(gateway)


async def test_a_request_that_is_cancelled_over_graphql_ends_its_clients_wait(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        gateway.emulator.reset("narrow")
        holder = hang(http)
        await running(gateway, "narrow")
        call = asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1")))
        await waiting(gateway, "narrow", 1)
        (row,) = await asyncio.to_thread(gateway.rows, "SELECT id FROM model_requests WHERE status = 'PENDING'")
        query = "mutation ($id: ID!) { cancelRequest(id: $id) { __typename } }"
        await http.post("/graphql", json={"query": query, "variables": {"id": row["id"]}})
        answer = await call
        assert answer.status_code == 499
        await leave(holder)
        await idle(gateway)


async def test_a_slow_reader_does_not_hold_others(gateway: GatewayServer) -> None:
    huge = told(output_tokens=60_000, chunk_tokens=1)
    async with gateway.http() as http:
        async with http.stream("POST", CHAT, json=body(text=huge, stream=True)) as slow:
            assert slow.status_code == 200  # and is read no further
            answers = await asyncio.gather(*(http.post(CHAT, json=body(text=told(reply="Hi."))) for _ in range(20)))
            assert all(answer.status_code == 200 for answer in answers)
            total = 0
            async for piece in slow.aiter_bytes():
                total += len(piece)
            assert total > 2_000_000
        await idle(gateway)


async def test_a_client_that_does_not_read_and_leaves_holds_its_call_no_longer(gateway: GatewayServer) -> None:
    huge = told(output_tokens=60_000, chunk_tokens=1)
    headers = {"x-tollgate-on-disconnect": "detach"}
    async with gateway.http(headers=headers) as http:
        async with http.stream("POST", CHAT, json=body(text=huge, stream=True)) as slow:
            request_id = slow.headers["x-tollgate-request-id"]
            # So long the provider has more to send than the connections hold.
            assert (await row_of(gateway, request_id))["status"] == "PROCESSING"
        await idle(gateway)
        row = await row_of(gateway, request_id)
    assert (row["status"], row["output_tokens"], row["usage_estimated"]) == ("COMPLETED", 60_000, False)


@pytest.mark.parametrize(("model", "last"), [("oai:chat-1", "data: [DONE]"), ("ant:chat-1", "event: message_stop")])
async def test_a_stream_tells_its_cost_in_a_comment_just_before_its_end(
    gateway: GatewayServer, model: str, last: str
) -> None:
    path = CHAT if model.startswith("oai") else "/v1/messages"
    async with gateway.http() as http:
        answer = await http.post(path, json=body(model, told(reply="Hi."), stream=True, max_tokens=100))
    cost = (await row_of(gateway, answer.headers["x-tollgate-request-id"]))["cost_total"]
    blocks = answer.text.rstrip().split("\n\n")
    (at,) = [index for index, block in enumerate(blocks) if block.startswith(":")]
    name, amount, currency = blocks[at].removeprefix(": ").split()
    assert (name, Decimal(amount), currency) == ("x-tollgate-cost", cost, "USD")
    assert cost > 0
    assert blocks[-1].startswith(last)
    assert any('"Hi' in block for block in blocks[:at])
    assert not any('"Hi' in block for block in blocks[at:])


@pytest.mark.parametrize("size", [300_000, 30_000_000])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_a_huge_body_is_refused_in_the_clients_dialect(gateway: GatewayServer, path: str, size: int) -> None:
    async with gateway.http() as http:
        answer = await http.post(path, json=body(text="x" * size, max_tokens=10))
        assert answer.status_code == 413
        assert "200000" in answer.json()["error"]["message"]
        assert (answer.json().get("type") == "error") == (path == "/v1/messages")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("priority", "high"),
        ("wait-seconds", "-1"),
        ("wait-seconds", "nan"),
        ("on-disconnect", "explode"),
        ("fallbacks", "oai:nothing"),
        ("nonsense", "1"),
    ],
)
async def test_an_option_that_cannot_be_followed_is_refused(gateway: GatewayServer, name: str, value: str) -> None:
    async with gateway.http() as http:
        answer = await http.post(CHAT, json=body(), headers={f"x-tollgate-{name}": value})
        assert answer.status_code in (400, 404)
        assert "oai:nothing" in answer.text or f"x-tollgate-{name}" in answer.text


async def test_another_model_goes_on_where_the_first_is_exhausted(gateway: GatewayServer) -> None:
    gateway.emulator.configure("goo", reply="From the other.")
    async with gateway.http() as http:
        # A directive in the text would make the other one fail too.
        gateway.emulator.configure("ant", error=401)
        answer = await http.post(CHAT, json=body("ant:chat-1"), headers={"x-tollgate-fallbacks": "goo:chat-1"})
        gateway.emulator.configure("ant", error=None)
        gateway.emulator.configure("goo", reply=None)
    assert answer.status_code == 200, answer.text
    assert answer.json()["choices"][0]["message"]["content"] == "From the other."
    attempts = await asyncio.to_thread(
        gateway.rows,
        "SELECT model_ref, status FROM request_attempts WHERE request_id = $1 ORDER BY number",
        answer.headers["x-tollgate-request-id"],
    )
    assert [(attempt["model_ref"], attempt["status"]) for attempt in attempts] == [
        ("ant:chat-1", "FAILED"),
        ("goo:chat-1", "SUCCEEDED"),
    ]


async def test_a_failure_that_may_pass_is_tried_again_before_the_client_hears_of_it(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        text = told(reply="At last.", error=500, errors_first=1, errors_first_per="key")
        answer = await http.post(CHAT, json=body(text=text))
        assert answer.status_code == 200, answer.text
        row = await row_of(gateway, answer.headers["x-tollgate-request-id"])
        assert row["attempt_count"] == 2


async def test_documents_are_ranked_and_billed_by_searches(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        documents = ["one", "two", "three"]
        answer = await http.post(
            "/v1/rerank", json={"model": "coh:rerank-1", "query": "two", "documents": documents, "top_n": 2}
        )
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["results"]) == 2
        assert Decimal(answer.headers["x-tollgate-cost"]) == Decimal("0.002")


async def test_what_is_not_there_is_not_found(gateway: GatewayServer) -> None:
    async with gateway.http() as http:
        answer = await http.post("/v1/nothing", json={})
        assert answer.status_code == 404
        assert "POST /v1/nothing" in answer.json()["error"]["message"]
        answer = await http.get("/v1/messages", headers={"anthropic-version": "2023-06-01"})
        assert (answer.status_code, answer.json()["type"]) == (404, "error")


# --- the end of the process -------------------------------------------------------------------------------------------


@pytest.fixture
def own_gateway(server_dsn: str, template_database: str, emulator_url: str, tmp_path: Path) -> Iterator[GatewayServer]:
    variables = {"TOLLGATE_LEASE_SECONDS": "4", "TOLLGATE_DRAIN_SECONDS": "20", "TOLLGATE_GATEWAY_MAX_WAITING": "2"}
    with gateway_server(server_dsn, template_database, emulator_url, tmp_path / "data", **variables) as server:
        yield server


async def test_beyond_the_bound_of_waiting_clients_the_answer_is_503_at_once(own_gateway: GatewayServer) -> None:
    async with own_gateway.http() as http:
        holder = hang(http)
        await running(own_gateway, "narrow")
        waiters = [asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1"))) for _ in range(2)]
        await waiting(own_gateway, "narrow", 2)
        answer = await http.post(CHAT, json=body("narrow:chat-1"))
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        await leave(holder, *waiters)


async def test_a_stop_lets_running_calls_end_and_turns_waiting_ones_away(own_gateway: GatewayServer) -> None:
    async with own_gateway.http() as http:
        slow = told(reply="word " * 20, chunk_tokens=1, chunk_ms=100, latency_ms=1500, first_byte_ms=1)
        whole = asyncio.create_task(http.post(CHAT, json=body(text=slow)))
        streamed = asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1", slow, stream=True)))
        await running(own_gateway, "oai")
        await running(own_gateway, "narrow")
        waiter = asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1")))
        await waiting(own_gateway, "narrow", 1)
        os.kill(own_gateway.process.process.pid, signal.SIGTERM)
        assert (await waiter).status_code == 503
        assert (await whole).json()["choices"][0]["message"]["content"] == "word " * 20
        assert (await streamed).text.endswith("data: [DONE]\n\n")
        assert await asyncio.to_thread(own_gateway.process.end) == 0
    rows = await asyncio.to_thread(own_gateway.rows, "SELECT status FROM model_requests ORDER BY sequence")
    assert sorted(row["status"] for row in rows) == ["CANCELLED", "COMPLETED", "COMPLETED"]


async def test_what_a_killed_process_left_ends_as_failed(own_gateway: GatewayServer) -> None:
    async with own_gateway.http() as http:
        holder = hang(http)
        await running(own_gateway, "narrow")
        waiter = asyncio.create_task(http.post(CHAT, json=body("narrow:chat-1")))
        await waiting(own_gateway, "narrow", 1)
        own_gateway.process.kill()
        await asyncio.gather(holder, waiter, return_exceptions=True)
    # Anybody's claim ends them, once the lease and the owner have run out.
    ended = "NOT EXISTS (SELECT FROM model_requests WHERE status IN ('PENDING', 'PROCESSING'))"
    claim = (
        "SELECT c.wait_seconds FROM llm_providers p, LATERAL claim_requests(p.id, 'a worker', 1, 30) c "
        "WHERE p.name = 'narrow' AND c.request_id IS NULL"
    )
    expired = (
        "SELECT pg_sleep(greatest(0, extract(epoch FROM max(t) - clock_timestamp()) + 0.05)) FROM ("
        "SELECT max(lease_expires_at) AS t FROM model_requests UNION ALL SELECT max(expires_at) FROM owner_processes) x"
    )
    await asyncio.to_thread(own_gateway.rows, expired)
    await asyncio.to_thread(own_gateway.rows, claim)
    await wait_until(own_gateway.dsn, ended)
    rows = await asyncio.to_thread(
        own_gateway.rows, "SELECT status, error ->> 'code' AS code FROM model_requests ORDER BY sequence"
    )
    assert [(row["status"], row["code"]) for row in rows] == [("FAILED", "LEASE_LOST")] * 2

"""requestOutput over the websocket, while real worker processes run the calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from app.access.records import AccessRole
from app.db.pool import Database
from tests.app.api.test_websocket import PROTOCOL, initialise, receive, send
from tests.emulator import Emulator
from tests.serving import Api
from tests.worker_process import WorkerProcess, wait_until
from tests.workers.work import Work, work_for

REPLY = "".join(f"word{number} " for number in range(40))
SUBSCRIBE = """
subscription($id: ID!) {
  requestOutput(id: $id) {
    sequence attempt isRestart text reasoning finishReason isFinal chunks
    toolCalls { index id name arguments }
    request { id status outputText output isStreamed attempts { number status firstChunkAt modelRef } }
  }
}"""


class Follower:
    """What a subscriber puts together of the parts that it gets."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.parts: list[dict[str, Any]] = []
        self.text = ""
        self.reasoning = ""
        self.arguments: dict[int, str] = {}
        self.names: dict[int, str] = {}

    async def next(self) -> dict[str, Any]:
        message = await receive(self._socket)
        assert message["type"] == "next", message
        assert "errors" not in message["payload"], message
        part: dict[str, Any] = message["payload"]["data"]["requestOutput"]
        assert part["sequence"] == len(self.parts)
        self.parts.append(part)
        if part["isRestart"]:
            self.text = self.reasoning = ""
            self.arguments, self.names = {}, {}
        self.text += part["text"]
        self.reasoning += part["reasoning"]
        for call in part["toolCalls"]:
            self.arguments[call["index"]] = self.arguments.get(call["index"], "") + call["arguments"]
            self.names |= {call["index"]: call["name"]} if call["name"] else {}
        return part

    async def until_text(self) -> None:
        while not self.text:
            assert not (await self.next())["isFinal"]

    async def request(self) -> dict[str, Any]:
        """Reads to the end: the finished request, after which nothing comes."""
        while not self.parts or not self.parts[-1]["isFinal"]:
            await self.next()
        assert (await receive(self._socket))["type"] == "complete"
        assert [part["isFinal"] for part in self.parts[:-1]] == [False] * (len(self.parts) - 1)
        finished: dict[str, Any] = self.parts[-1]["request"]
        return finished

    @property
    def restarts(self) -> int:
        return sum(part["isRestart"] for part in self.parts)


@asynccontextmanager
async def following(api: Api, request_id: str) -> AsyncIterator[Follower]:
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket)
        await send(socket, id="1", type="subscribe", payload={"query": SUBSCRIBE, "variables": {"id": request_id}})
        yield Follower(socket)


@pytest.fixture
async def work(api: Api, database: Database, database_dsn: str, emulator: Emulator) -> AsyncIterator[Work]:
    async with work_for(database, database_dsn, emulator) as work:
        await api.services.snapshots.refresh()
        work.configure(reply=REPLY)
        yield work


async def submit(api: Api, work: Work, **fields: Any) -> str:
    variables = {"model": work.ref, "messages": [{"role": "USER", "content": "Hello"}], "stream": True, **fields}
    data = await api.data(
        """mutation($input: SubmitRequestInput!) { submitRequest(input: $input) {
             __typename ... on ModelRequest { id isStreamed operation } ... on Error { message } } }""",
        {"input": variables},
    )
    assert data["submitRequest"]["__typename"] == "ModelRequest", data
    return str(data["submitRequest"]["id"])


async def test_text_comes_before_the_request_has_finished(api: Api, work: Work) -> None:
    work.configure(chunk_ms=50)
    request_id = await submit(api, work)
    async with following(api, request_id) as follower:
        with WorkerProcess(work.dsn):
            await follower.until_text()
            assert (await work.get(request_id)).status == "PROCESSING"
            assert follower.text != REPLY
            request = await follower.request()
    assert (request["status"], request["outputText"], request["isStreamed"]) == ("COMPLETED", REPLY, True)
    assert (follower.text, follower.restarts) == (REPLY, 0)
    assert len([part for part in follower.parts if part["text"]]) > 3
    assert [part["finishReason"] for part in follower.parts if part["finishReason"]] == ["STOP"]
    assert request["attempts"][0]["firstChunkAt"] is not None
    assert request["attempts"][0]["modelRef"] == work.ref
    assert await work.value("SELECT count(*) FROM request_chunks") == 0


async def test_who_joins_late_gets_what_came_before(api: Api, work: Work) -> None:
    work.configure(fault="hang_midway")
    request_id = await submit(api, work)
    with WorkerProcess(work.dsn):
        await wait_until(work.dsn, "(SELECT sum(jsonb_array_length(chunks)) FROM request_chunks) > 20")
        async with following(api, request_id) as late, following(api, request_id) as later:
            for follower in (late, later):
                while len(follower.text) < 50:
                    await follower.next()
                assert follower.text == REPLY[: len(follower.text)]
            await work.service.cancel(request_id, workspace_id="default")
            for follower in (late, later):
                assert (await follower.request())["status"] == "CANCELLED"
                assert follower.restarts == 0


async def test_another_attempt_is_a_restart_and_its_text_is_whole(api: Api, work: Work) -> None:
    work.configure(fault="hang_midway", errors_first=1)
    request_id = await submit(api, work)
    async with following(api, request_id) as follower:
        with WorkerProcess(work.dsn, TOLLGATE_LEASE_SECONDS="1") as worker:
            await follower.until_text()
            assert follower.parts[-1]["attempt"] == 1
            work.configure(reply="Another " + REPLY)
            worker.restart()
            request = await follower.request()
    assert (request["status"], request["outputText"]) == ("COMPLETED", "Another " + REPLY)
    assert (follower.text, follower.restarts) == ("Another " + REPLY, 1)
    assert follower.parts[-1]["attempt"] == 2
    assert [attempt["status"] for attempt in request["attempts"]] == ["LOST", "SUCCEEDED"]


async def test_who_joins_after_the_end_gets_the_whole_output_then_the_request(api: Api, work: Work) -> None:
    with WorkerProcess(work.dsn):
        request_id = await submit(api, work)
        await work.finished(request_id)
    async with following(api, request_id) as follower:
        assert (await follower.request())["outputText"] == REPLY
    first, last = follower.parts
    assert (first["text"], first["isRestart"], first["finishReason"], first["request"]) == (REPLY, False, "STOP", None)
    assert (last["text"], last["chunks"], last["attempt"]) == ("", [], 1)


async def test_what_is_not_streamed_comes_at_once_at_the_end(api: Api, work: Work) -> None:
    request_id = await submit(api, work, stream=False)
    async with following(api, request_id) as follower:
        with WorkerProcess(work.dsn):
            request = await follower.request()
    assert request["isStreamed"] is False
    assert [part["text"] for part in follower.parts] == [REPLY, ""]


async def test_chunks_that_were_lost_come_with_the_end(api: Api, work: Work) -> None:
    work.configure(chunk_ms=50)
    request_id = await submit(api, work)
    async with following(api, request_id) as follower:
        with WorkerProcess(work.dsn):
            await follower.until_text()
            # As when the database crashes: the table is not logged.
            await work.execute("UPDATE request_chunks SET sequence = sequence + 1000")
            request = await follower.request()
    assert request["status"] == "COMPLETED"
    assert (follower.text, follower.restarts) == (REPLY, 0)


async def test_tool_calls_and_reasoning_are_put_together(api: Api, work: Work) -> None:
    call = {"name": "weather", "arguments": {"city": "Ulm", "days": [1, 2, 3]}}
    work.configure(tool_call=call, reply="", chunk_ms=20)
    request_id = await submit(api, work)
    async with following(api, request_id) as follower:
        with WorkerProcess(work.dsn):
            request = await follower.request()
    (part,) = [part for part in request["output"]["choices"][0]["parts"] if part["type"] == "tool_call"]
    assert follower.arguments == {0: part["arguments"]}
    assert follower.names == {0: "weather"}
    assert [part["finishReason"] for part in follower.parts if part["finishReason"]] == ["TOOL_CALLS"]


async def test_a_request_that_fails_ends_the_output_with_itself(api: Api, work: Work) -> None:
    work.configure(error=400)
    request_id = await submit(api, work)
    async with following(api, request_id) as follower:
        with WorkerProcess(work.dsn):
            assert (await follower.request())["status"] == "FAILED"
    assert [part["text"] for part in follower.parts] == [""]


async def test_the_output_of_no_request_is_an_error(api: Api) -> None:
    reader = await api.token(AccessRole.READER)
    async with connect(api.websocket_url, subprotocols=PROTOCOL) as socket:
        await initialise(socket, reader)
        for request_id in ("none", "a"):
            await send(socket, id="1", type="subscribe", payload={"query": SUBSCRIBE, "variables": {"id": request_id}})
            refused = await receive(socket)
            errors = refused["payload"] if refused["type"] == "error" else refused["payload"]["errors"]
            assert errors[0]["extensions"] == {"code": "NOT_FOUND", "path": ["id"]}

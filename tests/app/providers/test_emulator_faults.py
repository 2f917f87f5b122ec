"""Injected faults: broken connections, silence and bodies that are not what they should be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest

from tests.emulator import Emulator

_CALL_FOR_EVER = """
import httpx, sys
body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
httpx.post(sys.argv[1] + "/chat/completions", json=body, headers={"authorization": "Bearer any"}, timeout=None)
"""


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": "Bearer any"}
    async with httpx.AsyncClient(base_url=emulator.url(), headers=headers, timeout=10) as client:
        yield client


async def post(http: httpx.AsyncClient, directive: dict[str, Any], *, stream: bool = False) -> httpx.Response:
    text = f"hi [[emulate {json.dumps(directive)}]]"
    body = {"model": "m", "messages": [{"role": "user", "content": text}], "stream": stream}
    return await http.post("/chat/completions", json=body)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_before_any_header(emulator: Emulator, http: httpx.AsyncClient, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        await post(http, {"fault": "disconnect"}, stream=stream)
    record = emulator.record()
    assert (record["served"], record["outcomes"]) == ({"none": 1}, {"failed": 1})


@pytest.mark.parametrize("stream", [False, True])
async def test_a_disconnect_midway(emulator: Emulator, http: httpx.AsyncClient, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match=r"without sending complete message body|incomplete chunked"):
        await post(http, {"fault": "disconnect_midway"}, stream=stream)
    assert emulator.record()["outcomes"] == {"failed": 1}
    assert (await post(http, {})).status_code == 200


@pytest.mark.parametrize("fault", ["hang", "hang_midway"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_ends_when_the_client_gives_up(
    emulator: Emulator, http: httpx.AsyncClient, fault: str, stream: bool
) -> None:
    http.timeout = httpx.Timeout(10, read=0.05)
    with pytest.raises(httpx.ReadTimeout):
        await post(http, {"fault": fault}, stream=stream)
    emulator.wait(ended=1)
    record = emulator.record()
    assert (record["outcomes"], record["parallel"]) == ({"abandoned": 1}, 0)


def test_a_killed_client_is_noticed_while_latency_is_simulated(emulator: Emulator) -> None:
    emulator.configure(latency_ms=3_600_000)
    process = subprocess.Popen([sys.executable, "-c", _CALL_FOR_EVER, emulator.url()])
    try:
        emulator.wait(running=1)
    finally:
        process.kill()
        process.wait()
    emulator.wait(ended=1, timeout_seconds=2)
    call = emulator.record()["calls"][0]
    assert (call["outcome"], call["status"]) == ("abandoned", None)


async def test_a_client_that_leaves_between_chunks_is_noticed(emulator: Emulator, http: httpx.AsyncClient) -> None:
    emulator.configure(chunk_ms=3_600_000)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    async with http.stream("POST", "/chat/completions", json=body) as response:
        assert await anext(response.aiter_lines())
    emulator.wait(ended=1, timeout_seconds=2)
    call = emulator.record()["calls"][0]
    assert (call["outcome"], call["status"]) == ("abandoned", 200)
    assert (call["parts_sent"], call["parts"]) == (1, 8)


async def test_an_invalid_body(http: httpx.AsyncClient) -> None:
    response = await post(http, {"fault": "invalid_json"})
    assert response.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        response.json()


async def test_an_invalid_event_in_a_stream(http: httpx.AsyncClient) -> None:
    response = await post(http, {"fault": "invalid_json"}, stream=True)
    events = [line.removeprefix("data: ") for line in response.text.split("\n\n") if line]
    assert events[-1] == "[DONE]"
    with pytest.raises(json.JSONDecodeError):
        [json.loads(event) for event in events[:-1]]


@pytest.mark.parametrize("stream", [False, True])
async def test_an_empty_body(http: httpx.AsyncClient, stream: bool) -> None:
    response = await post(http, {"fault": "empty_body"}, stream=stream)
    assert (response.status_code, response.content) == (200, b"")


async def test_a_huge_body(http: httpx.AsyncClient) -> None:
    response = await post(http, {"fault": "huge_body", "huge_body_bytes": 3_000_000})
    assert len(response.json()["choices"][0]["message"]["content"]) == 3_000_000


@pytest.mark.parametrize("stream", [False, True])
async def test_a_trickle_is_whole_in_the_end(http: httpx.AsyncClient, stream: bool) -> None:
    response = await post(http, {"fault": "trickle", "trickle_ms": 0, "reply": "slow"}, stream=stream)
    assert "slow" in response.text


async def test_an_error_in_a_stream_raises_in_the_official_client(emulator: Emulator) -> None:
    emulator.configure(fault="error_midway", error_message="overheated")
    async with openai.AsyncOpenAI(api_key="any", base_url=emulator.url(), max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
        with pytest.raises(openai.APIError, match="overheated"):
            [chunk async for chunk in stream]


async def test_the_official_client_calls_a_disconnect_a_connection_error(emulator: Emulator) -> None:
    emulator.configure(fault="disconnect")
    async with openai.AsyncOpenAI(api_key="any", base_url=emulator.url(), max_retries=0) as client:
        with pytest.raises(openai.APIConnectionError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])

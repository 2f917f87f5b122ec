"""The HTTP client against the emulator, with every way to fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from app.errors import (
    CallTimeout,
    ConnectionFailed,
    InvalidRequest,
    InvalidResponse,
    PermitExpired,
    ProviderError,
)
from app.providers import transport as transport_module
from app.providers.adapter import ModelCall, ModelResponse
from app.providers.messages import Message, Role, Text
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.operations import ChatOutput, ChatRequest
from app.providers.transport import Transport
from tests.emulator import Emulator

ADAPTER = OpenAIAdapter()
KEY = "secret-key-of-acme"


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(max_connections=4) as opened:
        yield opened


async def send(
    transport: Transport, base_url: str, *, timeout_seconds: float = 10, held_seconds: float = 10
) -> ModelResponse:
    request = ChatRequest([Message(Role.USER, [Text("Hello")])])
    call = ModelCall("chat-1", base_url, SecretStr(KEY), request, {}, "request-1")
    response = await transport.send(
        ADAPTER.render(call),
        connect_seconds=10,
        read_seconds=timeout_seconds,
        send_by=time.monotonic() + held_seconds,
    )
    parsed = ADAPTER.parse(call, response)
    assert isinstance(parsed, ModelResponse)
    return parsed


def text(response: ModelResponse) -> str:
    assert isinstance(response.output, ChatOutput)
    return response.output.choices[0].text


async def test_an_answer_comes_through(transport: Transport, emulator: Emulator) -> None:
    emulator.configure("acme", input_tokens=11, output_tokens=7, reply="Good day")
    response = await send(transport, emulator.url("acme"))
    assert text(response) == "Good day"
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (11, 7)
    assert emulator.record("acme")["calls"][0]["key"] == "request-1"


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"fault": "disconnect"}, ConnectionFailed),
        ({"fault": "disconnect_midway"}, ConnectionFailed),
        ({"fault": "invalid_json"}, InvalidResponse),
        ({"fault": "empty_body"}, InvalidResponse),
        ({"error": 500}, ProviderError),
        ({"error": 503}, ProviderError),
    ],
)
async def test_a_fault_has_its_error(
    transport: Transport, emulator: Emulator, settings: dict[str, Any], kind: type[ProviderError]
) -> None:
    emulator.configure("acme", **settings)
    with pytest.raises(kind):
        await send(transport, emulator.url("acme"))
    emulator.configure("acme", fault=None, error=None)
    assert text(await send(transport, emulator.url("acme")))


@pytest.mark.parametrize("fault", ["hang", "hang_midway"])
async def test_a_call_without_an_answer_times_out_and_leaves(
    transport: Transport, emulator: Emulator, fault: str
) -> None:
    emulator.configure("acme", fault=fault)
    with pytest.raises(CallTimeout, match=r"0\.05 s"):
        await send(transport, emulator.url("acme"), timeout_seconds=0.05)
    await asyncio.to_thread(emulator.wait, "acme", ended=1)


async def test_a_huge_answer_is_not_read_to_its_end(
    transport: Transport, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_module, "MAX_RESPONSE_BYTES", 100_000)
    emulator.configure("acme", fault="huge_body", huge_body_bytes=4_000_000)
    with pytest.raises(InvalidResponse, match="larger than 100000 bytes"):
        await send(transport, emulator.url("acme"))


async def test_a_call_whose_permit_has_expired_is_not_sent(transport: Transport, emulator: Emulator) -> None:
    with pytest.raises(PermitExpired):
        await send(transport, emulator.url("acme"), held_seconds=-0.001)
    # Over the connection of an earlier call as well as over a new one.
    await send(transport, emulator.url("acme"))
    with pytest.raises(PermitExpired):
        await send(transport, emulator.url("acme"), held_seconds=-0.001)
    assert emulator.record("acme")["arrivals"] == 1


async def test_a_port_that_nobody_listens_on_is_a_failed_connection(transport: Transport) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    with pytest.raises(ConnectionFailed):
        await send(transport, f"http://127.0.0.1:{port}/v1")


@pytest.mark.parametrize(
    "base_url",
    ["ftp://example.com", "example.com", "", "http://", "http://[::1", "http://h:99999/", "http://exa mple/"],
)
async def test_a_base_url_that_cannot_be_used_is_the_request_s_fault(transport: Transport, base_url: str) -> None:
    with pytest.raises((InvalidRequest, ConnectionFailed)):
        await send(transport, base_url)

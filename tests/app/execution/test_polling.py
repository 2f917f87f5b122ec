"""Work that a provider does after it has answered: looked at until it is done, and given up only for good reasons."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from app.errors import AuthenticationFailed, InvalidRequest, ProviderUnavailable
from app.execution import polling, steps
from app.execution.attempt import Attempt, Progress, Timeouts
from app.providers.adapter import ModelCall
from app.providers.operations import VideoOutput, VideoRequest
from app.providers.registry import ADAPTERS
from app.providers.transport import Transport
from tests.emulator import Emulator


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(polling, "FIRST_POLL_SECONDS", 0.0)
    monkeypatch.setattr(polling, "FAILED_POLL_SECONDS", 0.0)


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    async with Transport(max_connections=4) as transport:
        yield transport


async def make_video(transport: Transport, emulator: Emulator, adapter: str) -> VideoOutput:
    version = {"openai": "/v1", "google": "/v1beta"}[adapter]
    call = ModelCall("m", emulator.root() + version, SecretStr("any"), VideoRequest("a cat"), {}, "request-1")
    no_claim: Any = None
    attempt = Attempt(
        claim=no_claim,
        request=call.request,
        parameters={},
        send_by=time.monotonic() + 10,
        started=time.monotonic(),
        adapter=ADAPTERS[adapter],
        timeouts=Timeouts(connect=5, read=5, total=5),
        model_call=call,
        wire_request=ADAPTERS[adapter].render(call),
    )
    attempt = await steps.call(attempt, transport, progress=Progress(), sink=None)
    assert attempt.response is not None
    assert isinstance(attempt.response.output, VideoOutput)
    return attempt.response.output


@pytest.mark.parametrize("adapter", ["openai", "google"])
async def test_looks_that_fail_for_a_while_are_repeated(transport: Transport, emulator: Emulator, adapter: str) -> None:
    emulator.configure(job_poll_errors=polling.MAX_FAILED_POLLS - 1)
    output = await make_video(transport, emulator, adapter)
    assert output.data or output.url
    assert emulator.record()["arrivals"] == 1


@pytest.mark.parametrize("adapter", ["openai", "google"])
async def test_looks_that_fail_for_good_are_given_up(transport: Transport, emulator: Emulator, adapter: str) -> None:
    emulator.configure(job_poll_errors=polling.MAX_FAILED_POLLS)
    with pytest.raises(ProviderUnavailable):
        await make_video(transport, emulator, adapter)


@pytest.mark.parametrize("adapter", ["openai", "google"])
async def test_a_look_that_is_refused_is_not_repeated(transport: Transport, emulator: Emulator, adapter: str) -> None:
    emulator.configure(lookup_error=401)
    with pytest.raises(AuthenticationFailed):
        await make_video(transport, emulator, adapter)


@pytest.mark.parametrize("adapter", ["openai", "google"])
async def test_work_that_failed_is_not_looked_at_again(transport: Transport, emulator: Emulator, adapter: str) -> None:
    emulator.configure(job_fails=True)
    with pytest.raises(InvalidRequest, match="could not make the video"):
        await make_video(transport, emulator, adapter)


async def test_a_video_stays_at_its_provider_where_its_file_is_too_large(
    transport: Transport, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.providers.transport.MAX_RESPONSE_BYTES", 1000)
    emulator.configure(job_file_bytes=2000)
    output = await make_video(transport, emulator, "openai")
    assert (output.data, output.needs_credential, output.seconds) == (None, True, Decimal(4))
    assert (output.url or "").startswith(emulator.url() + "/videos/video_")
    emulator.configure(job_file_bytes=1000)
    assert (await make_video(transport, emulator, "openai")).data

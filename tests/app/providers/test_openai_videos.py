"""OpenAI's videos: submitted, asked after and fetched."""

from __future__ import annotations

import base64
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidRequest, InvalidResponse, ModelNotFound, ProviderError, ProviderUnavailable
from app.prices.records import Usage
from app.providers.adapter import ModelResponse, Unfinished
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.operations import VideoOutput, VideoRequest
from tests.app.providers.calls import answer, json_values, model_call, rendered

ADAPTER = OpenAIAdapter()
BASE_URL = "https://compatible.test/v1"


def parse(body: Any, status: int = 200, **headers: str) -> ModelResponse | Unfinished:
    call = model_call(VideoRequest("a cat"), {"seconds": "8"}, base_url=BASE_URL)
    return ADAPTER.parse(call, answer(body, status, **headers))


def test_length_is_always_asked_for_as_it_is_what_is_billed() -> None:
    call = model_call(VideoRequest("a cat"), {"size": "720x1280"}, base_url=BASE_URL)
    assert ADAPTER.render(call).url == f"{BASE_URL}/videos"
    assert rendered(ADAPTER, call) == {"model": "model-1", "prompt": "a cat", "seconds": "4", "size": "720x1280"}
    assert rendered(ADAPTER, model_call(VideoRequest("a cat"), {"seconds": 12}))["seconds"] == "12"


@pytest.mark.parametrize(
    "parameters", [{"seconds": "long"}, {"seconds": 0}, {"seconds": True}, {"input_reference": "a"}]
)
def test_what_cannot_be_expressed_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.render(model_call(VideoRequest("a cat"), parameters))


@pytest.mark.parametrize(
    ("status", "path", "waits"),
    [
        ("queued", "/videos/v%2F1", True),
        ("in_progress", "/videos/v%2F1", True),
        ("completed", "/videos/v%2F1/content", False),
    ],
)
def test_video_is_asked_after_until_it_is_there_and_then_fetched(status: str, path: str, waits: bool) -> None:
    unfinished = parse({"id": "v/1", "status": status, "progress": 10})
    assert isinstance(unfinished, Unfinished)
    assert (unfinished.poll.method, unfinished.poll.url) == ("GET", BASE_URL + path)
    assert unfinished.poll.headers["authorization"] == "Bearer secret-key"
    assert (unfinished.poll_seconds > 0) is waits


def test_video_is_billed_by_its_seconds() -> None:
    response = parse(b"\x00mp4", content_type="video/mp4", x_request_id="r")
    assert isinstance(response, ModelResponse)
    data = base64.b64encode(b"\x00mp4").decode()
    assert response.output == VideoOutput("req1", Decimal(8), data=data, media_type="video/mp4")
    assert (response.usage, response.provider_request_id) == (Usage(seconds=Decimal(8)), "r")


@pytest.mark.parametrize(
    ("code", "kind"),
    [("moderation_blocked", InvalidRequest), ("internal", ProviderUnavailable), (None, ProviderUnavailable)],
)
def test_video_that_failed_is_an_error(code: str | None, kind: type[ProviderError]) -> None:
    with pytest.raises(kind, match="no cats"):
        parse({"id": "v", "status": "failed", "error": {"code": code, "message": "no cats"}})


def test_status_is_an_error_and_nonsense_an_invalid_response() -> None:
    with pytest.raises(ModelNotFound):
        parse({"error": {"message": "gone"}}, 404)
    for body in ({}, {"id": "v", "status": "lost"}, b"", b"{"):
        with pytest.raises(InvalidResponse):
            parse(body)
    with pytest.raises(InvalidResponse):
        parse(b"", content_type="video/mp4")


@given(json_values | st.fixed_dictionaries({"id": json_values, "status": json_values, "error": json_values}))
def test_nothing_but_an_answer_or_a_provider_error_comes_of_any_answer(body: Any) -> None:
    with suppress(ProviderError):
        parse(body)

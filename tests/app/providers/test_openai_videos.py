"""OpenAI's videos: submitted, asked after and fetched."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    ProviderError,
    ProviderUnavailable,
    ValidationError,
)
from app.prices.records import Usage
from app.providers.adapter import KeepsFiles, ModelResponse, Unfinished
from app.providers.messages import Image
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.multipart import FormFile, decode_form
from app.providers.openai.responses_client import OpenAIResponsesAdapter
from app.providers.openai.videos import decode_video
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


def test_video_that_is_there_stands_also_where_its_file_cannot_be_fetched() -> None:
    unfinished = parse({"id": "v1", "status": "completed"}, x_request_id="r")
    assert isinstance(unfinished, Unfinished)
    assert unfinished.otherwise == ModelResponse(
        VideoOutput("req1", Decimal(8), url=f"{BASE_URL}/videos/v1/content", needs_credential=True),
        usage=Usage(seconds=Decimal(8)),
        provider_request_id="r",
    )
    for adapter in (ADAPTER, OpenAIResponsesAdapter()):
        assert isinstance(adapter, KeepsFiles)
        request = adapter.file_request("https://x.test/f", model_call(VideoRequest("a")).credential)
        assert (request.method, request.url) == ("GET", "https://x.test/f")
        assert request.headers == {"authorization": "Bearer secret-key"}


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


# --- the gateway's side -----------------------------------------------------------------------------------------------

FORM = {"content-type": "multipart/form-data; boundary=b"}


ASKED = (('name="model"', "m"), ('name="prompt"', "a"))
REFERENCE = "input_reference"


def form(*parts: tuple[str, str]) -> bytes:
    pieces = [f"--b\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n" for name, value in parts]
    return ("".join(pieces) + "--b--\r\n").encode()


def test_a_form_and_json_ask_for_the_same() -> None:
    asked = {"model": "oai:sora", "prompt": "a cat", "seconds": "8", "size": "720x1280"}
    as_form = form(*((f'name="{name}"', value) for name, value in asked.items()))
    for call in (
        decode_video(json.dumps({**asked, "input_reference": None}).encode(), {"content-type": "application/json"}),
        decode_video(as_form, FORM),
    ):
        assert (call.model, call.request) == ("oai:sora", VideoRequest("a cat"))
        assert call.parameters == {"seconds": "8", "size": "720x1280"}


@pytest.mark.parametrize(
    ("body", "headers", "field"),
    [
        (b"{", {}, "body"),
        (b"[]", {}, "body"),
        (b'{"model": "m"}', {}, "prompt"),
        (b'{"model": "m", "prompt": ""}', {}, "prompt"),
        (b'{"prompt": "a"}', {}, "model"),
        (b'{"model": "m", "prompt": "a", "input_reference": {"image_url": "x"}}', {}, "input_reference.image_url"),
        (b'{"model": "m", "prompt": "a", "input_reference": {"file_id": "f"}}', {}, "input_reference"),
        (b'{"model": "m", "prompt": "a", "input_reference": "x"}', {}, "input_reference"),
        (form(('name="model"', "m"), ('name="prompt"', "a"), ('name="prompt"', "b")), FORM, "prompt"),
        (form(*ASKED, ('name="input_reference"; filename="a.txt"\r\nContent-Type: text/plain', "x")), FORM, REFERENCE),
        (form(*ASKED, ('name="input_reference"; filename="a.png"\r\nContent-Type: image/png', "")), FORM, REFERENCE),
        (form(*ASKED, ('name="input_reference[file_id]"', "x")), FORM, REFERENCE),
        (
            form(*ASKED, *[('name="input_reference[image_url]"', "https://x.test/a")] * 2),
            FORM,
            f"{REFERENCE}[image_url]",
        ),
        (form(*ASKED, ('name="film"; filename="a.mp4"', "x")), FORM, "film"),
        (b"nonsense", FORM, "body"),
        (b"nonsense", {"content-type": "multipart/form-data"}, "content-type"),
    ],
)
def test_what_a_client_may_not_ask_is_named(body: bytes, headers: dict[str, str], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        decode_video(body, headers)
    assert raised.value.field == field


PNG = 'name="input_reference"; filename="a.png"\r\nContent-Type: image/png'


@pytest.mark.parametrize(
    ("body", "headers", "image"),
    [
        (form(*ASKED, (PNG, "png")), FORM, Image(data="cG5n", media_type="image/png")),
        (form(*ASKED, ('name="input_reference[image_url]"', "https://x.test/a")), FORM, Image(url="https://x.test/a")),
        (
            b'{"model": "m", "prompt": "a", "input_reference": {"image_url": "data:image/png;base64,cG5n"}}',
            {},
            Image(data="cG5n", media_type="image/png"),
        ),
    ],
)
def test_a_video_may_begin_with_an_image(body: bytes, headers: dict[str, str], image: Image) -> None:
    assert decode_video(body, headers).request == VideoRequest("a", image)


def test_an_image_goes_to_the_provider_as_a_file_or_by_its_url() -> None:
    call = model_call(VideoRequest("a cat", Image(data="cG5n", media_type="image/png")), {"seconds": "8"})
    request = ADAPTER.render(call)
    sent = decode_form(request.body, request.headers["content-type"])
    assert sent.fields == [("seconds", "8"), ("model", "model-1"), ("prompt", "a cat")]
    assert sent.files == {"input_reference": FormFile("image.png", "image/png", b"png")}
    assert request.headers["authorization"] == "Bearer secret-key"
    by_url = rendered(ADAPTER, model_call(VideoRequest("a cat", Image(url="https://x.test/a"))))
    assert by_url["input_reference"] == {"image_url": "https://x.test/a"}
    with pytest.raises(InvalidRequest, match="base64"):
        ADAPTER.render(model_call(VideoRequest("a cat", Image(data="!", media_type="image/png"))))


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()), st.sampled_from([FORM, {}]))
def test_any_body_is_a_call_or_a_validation_error(body: bytes, headers: dict[str, str]) -> None:
    with suppress(ValidationError):
        decode_video(body, headers)

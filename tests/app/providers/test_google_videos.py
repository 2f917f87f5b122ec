"""Videos of Google's models: submitted as an operation, asked after, and kept at Google's."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    AuthenticationFailed,
    InvalidRequest,
    InvalidResponse,
    PermissionDenied,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from app.prices.records import Usage
from app.providers.adapter import KeepsFiles, ModelResponse, Unfinished
from app.providers.google import GoogleAdapter
from app.providers.messages import Image
from app.providers.operations import VideoOutput, VideoRequest
from tests.app.providers.calls import answer, json_values, model_call, rendered

ADAPTER = GoogleAdapter()
BASE_URL = "https://generativelanguage.test/v1beta"
NAME = "models/veo-3.1/operations/abc-1"
URI = f"{BASE_URL}/files/xyz:download?alt=media"


def parse(body: Any, status: int = 200, **headers: str) -> ModelResponse | Unfinished:
    call = model_call(VideoRequest("a cat"), {"seconds": "8"}, model_id="veo-3.1", base_url=BASE_URL)
    return ADAPTER.parse(call, answer(body, status, **headers))


def done(**response: Any) -> dict[str, Any]:
    return {"name": NAME, "done": True, "response": {"generateVideoResponse": response}}


def test_request_names_the_length_as_it_is_what_is_billed() -> None:
    call = model_call(VideoRequest("a cat"), model_id="veo-3.1", base_url=BASE_URL)
    request = ADAPTER.render(call)
    assert (request.method, request.url) == ("POST", f"{BASE_URL}/models/veo-3.1:predictLongRunning")
    assert request.headers["x-goog-api-key"] == "secret-key"
    assert rendered(ADAPTER, call) == {"instances": [{"prompt": "a cat"}], "parameters": {"durationSeconds": 4}}


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({"seconds": "8"}, {"durationSeconds": 8}),
        ({"seconds": 6.0}, {"durationSeconds": 6}),
        ({"size": "720x1280"}, {"aspectRatio": "9:16", "resolution": "720p"}),
        ({"size": "1920x1080"}, {"aspectRatio": "16:9", "resolution": "1080p"}),
        ({"size": "3840x2160"}, {"aspectRatio": "16:9", "resolution": "4k"}),
        ({"aspect_ratio": "16:9", "resolution": "1080p"}, {"aspectRatio": "16:9", "resolution": "1080p"}),
        ({"negative_prompt": "dogs", "n": 1}, {"negativePrompt": "dogs"}),
        ({"person_generation": "allow_adult"}, {"personGeneration": "allow_adult"}),
    ],
)
def test_parameters_have_googles_names(parameters: dict[str, Any], wanted: dict[str, Any]) -> None:
    body = rendered(ADAPTER, model_call(VideoRequest("a cat"), parameters))
    assert body["parameters"] == {"durationSeconds": 4, **wanted}


@pytest.mark.parametrize(
    ("parameters", "match"),
    [
        ({"seconds": "long"}, "seconds must be a number"),
        ({"seconds": "4.5"}, "seconds must be whole"),
        ({"seconds": True}, "seconds"),
        ({"size": "1024x1792"}, "size must be one of"),
        ({"size": "720x1280", "aspect_ratio": "9:16"}, "aspect_ratio"),
        ({"n": 2}, "parameters.n"),
        ({"seed": 7}, "seed"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_what_cannot_be_expressed_is_refused(parameters: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        ADAPTER.render(model_call(VideoRequest("a cat"), parameters))


def test_an_image_that_is_given_itself_begins_the_video() -> None:
    call = model_call(VideoRequest("a cat", Image(data="cG5n", media_type="image/png")))
    image = {"mimeType": "image/png", "bytesBase64Encoded": "cG5n"}
    assert rendered(ADAPTER, call)["instances"] == [{"prompt": "a cat", "image": image}]
    with pytest.raises(InvalidRequest, match="image must be given itself"):
        ADAPTER.render(model_call(VideoRequest("a cat", Image(url="https://x.test/a"))))


def test_a_prompt_is_needed_and_unknown_parameters_pass_where_they_may() -> None:
    with pytest.raises(InvalidRequest, match="prompt"):
        ADAPTER.render(model_call(VideoRequest("")))
    call = model_call(VideoRequest("a cat"), {"fps": 30}, allows_unknown=True)
    assert rendered(ADAPTER, call)["parameters"] == {"durationSeconds": 4, "fps": 30}


@pytest.mark.parametrize("body", [{"name": NAME}, {"name": NAME, "done": False, "metadata": {}}])
def test_operation_is_asked_after_until_it_is_done(body: dict[str, Any]) -> None:
    unfinished = parse(body)
    assert isinstance(unfinished, Unfinished)
    assert (unfinished.poll.method, unfinished.poll.url) == ("GET", f"{BASE_URL}/{NAME}")
    assert unfinished.poll.headers["x-goog-api-key"] == "secret-key"
    assert unfinished.poll_seconds > 0


@pytest.mark.parametrize("name", ["", "files/a", "../operations/a", "operations/a?b", "operations/../x", "http://x/y"])
def test_name_that_is_none_of_an_operation_is_not_asked_after(name: str) -> None:
    with pytest.raises(InvalidResponse):
        parse({"name": name})


def test_video_stays_where_it_is_and_is_billed_by_its_seconds() -> None:
    response = parse(done(generatedSamples=[{"video": {"uri": URI}}]))
    assert isinstance(response, ModelResponse)
    assert response.output == VideoOutput("req1", Decimal(8), url=URI, needs_credential=True)
    assert response.usage == Usage(seconds=Decimal(8))
    assert isinstance(ADAPTER, KeepsFiles)
    request = ADAPTER.file_request(URI, model_call(VideoRequest("a")).credential)
    assert (request.method, request.url, request.headers) == ("GET", URI, {"x-goog-api-key": "secret-key"})


def test_filtered_video_is_the_requests_fault() -> None:
    with pytest.raises(InvalidRequest, match="could not make the video: no cats"):
        parse(done(raiMediaFilteredCount=1, raiMediaFilteredReasons=["no cats"]))


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (3, InvalidRequest),
        (7, PermissionDenied),
        (8, RateLimited),
        (13, ProviderUnavailable),
        (14, ProviderUnavailable),
        (16, AuthenticationFailed),
        (2, ProviderUnavailable),
    ],
)
def test_operation_that_failed_is_an_error_of_its_kind(code: int, kind: type[ProviderError]) -> None:
    with pytest.raises(kind, match="no cats") as raised:
        parse({"name": NAME, "done": True, "error": {"code": code, "message": "no cats"}})
    # Not of the question itself, which another one would be put after.
    assert raised.value.http_status == 200


def test_status_is_an_error_and_nonsense_an_invalid_response() -> None:
    with pytest.raises(RateLimited):
        parse({"error": {"code": 429, "status": "RESOURCE_EXHAUSTED", "message": "slow down"}}, 429)
    bodies: list[Any] = [{}, {"name": NAME, "done": True}, done(), done(generatedSamples=[{"video": {}}]), b"", b"{"]
    for body in bodies:
        with pytest.raises(InvalidResponse):
            parse(body)


@given(
    json_values
    | st.fixed_dictionaries({"name": json_values, "done": st.booleans(), "response": json_values, "error": json_values})
)
def test_nothing_but_an_answer_or_a_provider_error_comes_of_any_answer(body: Any) -> None:
    with suppress(ProviderError):
        parse(body)

"""OpenAI's image generation, from a client's body to a provider's and back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ImagesResponse

from app.errors import InvalidRequest, InvalidResponse, ProviderError, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.dialect import ClientCall
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.images import OpenAIImagesDialect
from app.providers.operations import GeneratedImage, ImageOutput, ImageRequest
from tests.app.providers.calls import ANSWERED, answer, json_values, model_call, rendered

ADAPTER = OpenAIAdapter()
DIALECT = OpenAIImagesDialect()


def parse(body: Any, **parameters: Any) -> ModelResponse:
    response = ADAPTER.parse(model_call(ImageRequest("a cat"), parameters), answer(body))
    assert isinstance(response, ModelResponse)
    return response


def decode(**changes: Any) -> ClientCall:
    return DIALECT.decode(json.dumps({"model": "m", "prompt": "a cat"} | changes).encode(), {})


def test_call_is_rendered_as_the_protocol_has_it() -> None:
    call = model_call(ImageRequest("a cat"), {"n": 2, "size": "1024x1024"}, base_url="https://compatible.test/v1")
    assert ADAPTER.render(call).url == "https://compatible.test/v1/images/generations"
    assert rendered(ADAPTER, call) == {"model": "model-1", "prompt": "a cat", "n": 2, "size": "1024x1024"}


@pytest.mark.parametrize("parameters", [{"partial_images": 2}, {"stream": True}, {"seed": 3}])
def test_what_cannot_be_expressed_is_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.render(model_call(ImageRequest("a cat"), parameters))


def test_images_are_counted_and_so_are_tokens_where_they_are_told() -> None:
    body = {
        "data": [{"b64_json": "AAAA"}, {"url": "https://a.test/b.webp", "revised_prompt": "a grey cat"}],
        "output_format": "webp",
        "usage": {"input_tokens": 3, "output_tokens": 1056, "total_tokens": 1059},
    }
    response = parse(body)
    assert response.output == ImageOutput(
        [GeneratedImage(data="AAAA"), GeneratedImage("https://a.test/b.webp", revised_prompt="a grey cat")],
        media_type="image/webp",
    )
    assert response.usage == Usage(3, 1056, images=2)


def test_images_without_tokens_are_still_counted() -> None:
    response = parse({"created": 1, "data": [{"url": "https://a.test/b.png"}]})
    assert response.usage == Usage(images=1)
    assert isinstance(response.output, ImageOutput)
    assert response.output.media_type is None


@pytest.mark.parametrize(
    "body",
    [{}, {"data": []}, {"data": [{}]}, {"data": [{"url": 3}]}, {"data": [{"url": "a"}], "usage": {"input_tokens": -1}}],
)
def test_answer_without_images_is_an_invalid_response(body: Any) -> None:
    with pytest.raises(InvalidResponse):
        parse(body)


def test_body_becomes_request_and_parameters() -> None:
    call = decode(n=2, response_format="b64_json", quality=None)
    assert (call.request, call.parameters) == (ImageRequest("a cat"), {"n": 2, "response_format": "b64_json"})


@pytest.mark.parametrize(("changes", "field"), [({"prompt": ""}, "prompt"), ({"stream": True}, "stream")])
def test_refusal_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(**changes)
    assert caught.value.field == field


def test_answer_is_what_the_sdk_reads() -> None:
    output = ImageOutput([GeneratedImage(data="AAAA", revised_prompt="a grey cat")], "image/png")
    body, _ = DIALECT.encode(decode(), ModelResponse(output), Usage(3, 1056, images=1), ANSWERED)
    read = ImagesResponse.model_validate_json(body)
    assert read.data is not None
    assert (read.data[0].b64_json, read.data[0].revised_prompt, read.output_format) == ("AAAA", "a grey cat", "png")
    assert read.usage is not None
    assert read.usage.total_tokens == 1059


def test_answer_of_a_model_that_counts_no_tokens_has_no_usage() -> None:
    output = ImageOutput([GeneratedImage("https://a.test/b.png")])
    body, _ = DIALECT.encode(decode(), ModelResponse(output), Usage(images=1), ANSWERED)
    assert ImagesResponse.model_validate_json(body).usage is None


@given(json_values | st.fixed_dictionaries({"data": json_values, "usage": json_values}))
def test_nothing_but_a_response_or_a_provider_error_comes_of_any_answer(body: Any) -> None:
    with suppress(ProviderError):
        parse(body)

"""OpenAI's embeddings, from a client's body to a provider's and back."""

from __future__ import annotations

import base64
import json
from array import array
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse

from app.errors import InvalidRequest, InvalidResponse, ProviderError, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.dialect import ClientCall
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.embeddings import OpenAIEmbeddingsDialect
from app.providers.operations import EmbeddingOutput, EmbeddingRequest
from tests.app.providers.calls import ANSWERED, answer, json_values, model_call, rendered

ADAPTER = OpenAIAdapter()
DIALECT = OpenAIEmbeddingsDialect()
TWO = EmbeddingRequest(["a", "b"])


def as_base64(*numbers: float) -> str:
    return base64.b64encode(array("f", numbers).tobytes()).decode()


def parse(body: Any, request: EmbeddingRequest = TWO) -> ModelResponse:
    response = ADAPTER.parse(model_call(request), answer(body))
    assert isinstance(response, ModelResponse)
    return response


def decode(**changes: Any) -> ClientCall:
    return DIALECT.decode(json.dumps({"model": "m", "input": "a"} | changes).encode(), {})


def test_call_is_rendered_as_the_protocol_has_it() -> None:
    call = model_call(TWO, {"dimensions": 3, "user": "u"}, base_url="https://compatible.test/v1")
    assert ADAPTER.render(call).url == "https://compatible.test/v1/embeddings"
    assert rendered(ADAPTER, call) == {
        "model": "model-1",
        "input": ["a", "b"],
        "encoding_format": "float",
        "dimensions": 3,
        "user": "u",
    }


@pytest.mark.parametrize(
    ("request_", "parameters", "stream"),
    [
        (EmbeddingRequest([]), {}, False),
        (EmbeddingRequest(["a", [1]]), {}, False),
        (TWO, {"encoding_format": "base64"}, False),
        (TWO, {"temperature": 1}, False),
        (TWO, {}, True),
    ],
)
def test_what_cannot_be_expressed_is_refused(
    request_: EmbeddingRequest, parameters: dict[str, Any], stream: bool
) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.render(model_call(request_, parameters, stream=stream))


def test_vectors_are_in_the_order_of_the_inputs_however_they_are_written() -> None:
    data = [{"index": 1, "embedding": as_base64(0.5, -2)}, {"index": 0, "embedding": [1, 0.25]}]
    response = parse({"data": data, "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}})
    assert response.output == EmbeddingOutput([[1.0, 0.25], [0.5, -2.0]])
    assert (response.usage, response.response_model) == (Usage(2), "m")


def test_usage_that_is_left_out_is_missing() -> None:
    assert parse({"data": [{"embedding": [1.0]}, {"embedding": [2.0]}]}).usage is None


@pytest.mark.parametrize(
    "data",
    [
        [],
        [{"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}],
        [{"index": 0, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}],
        [{"embedding": "AAA"}, {"embedding": [1.0]}],
        [{"embedding": "!!!!"}, {"embedding": [1.0]}],
        [{"embedding": as_base64(float("nan"))}, {"embedding": [1.0]}],
        [{"embedding": ["x"]}, {"embedding": [1.0]}],
    ],
)
def test_wrong_vectors_are_an_invalid_response(data: Any) -> None:
    with pytest.raises(InvalidResponse):
        parse({"data": data})


@pytest.mark.parametrize(
    ("given_", "inputs"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_inputs_of_every_form_are_read(given_: Any, inputs: list[Any]) -> None:
    assert decode(input=given_).request == EmbeddingRequest(inputs)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": ["a", [1]]}, "input"),
        ({"input": [1, "a"]}, "input[1]"),
        ({"encoding_format": "hex"}, "encoding_format"),
        ({"stream": True}, "stream"),
    ],
)
def test_refusal_names_the_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        decode(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_answer_is_what_the_sdk_reads(encoding: str) -> None:
    call = decode(input=["a", "b"], encoding_format=encoding, dimensions=2)
    assert call.parameters == {"dimensions": 2}
    response = ModelResponse(EmbeddingOutput([[1.0, 0.25], [0.5, -2.0]]))
    body = json.loads(DIALECT.encode(call, response, Usage(2), ANSWERED)[0])
    if encoding == "base64":
        # What the SDK does with what it asked for.
        for item in body["data"]:
            item["embedding"] = array("f", base64.b64decode(item["embedding"])).tolist()
    read = CreateEmbeddingResponse.model_validate(body)
    assert [item.embedding for item in read.data] == [[1.0, 0.25], [0.5, -2.0]]
    assert (read.model, read.usage.prompt_tokens, read.usage.total_tokens) == ("the:model", 2, 2)


@given(st.fixed_dictionaries({"data": st.lists(st.fixed_dictionaries({"embedding": json_values}), max_size=3)}))
def test_nothing_but_a_response_or_a_provider_error_comes_of_any_answer(body: Any) -> None:
    with suppress(ProviderError):
        parse(body)


@given(json_values | st.fixed_dictionaries({"model": st.just("m"), "input": json_values}))
def test_nothing_but_a_call_or_a_refusal_comes_of_any_body(body: Any) -> None:
    with suppress(ValidationError):
        DIALECT.decode(json.dumps(body).encode(), {})

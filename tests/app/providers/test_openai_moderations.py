"""OpenAI's moderations, from a client's body to a provider's and back."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import ModerationCreateResponse

from app.errors import InvalidRequest, InvalidResponse, ProviderError, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelResponse
from app.providers.dialect import ClientCall
from app.providers.messages import Image, Reasoning, Text
from app.providers.openai.adapter import OpenAIAdapter
from app.providers.openai.moderations import OpenAIModerationsDialect
from app.providers.operations import ModerationOutput, ModerationRequest, ModerationResult
from tests.app.providers.calls import ANSWERED, answer, json_values, model_call, rendered

ADAPTER = OpenAIAdapter()
DIALECT = OpenAIModerationsDialect()
CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors"),
    *("violence", "violence/graphic"),
)
TEXTS = ModerationRequest([Text("a"), Text("b")])
MIXED = ModerationRequest([Text("a"), Image(url="https://a.test/b.png")])


def result(flagged: bool = False) -> dict[str, Any]:
    return {
        "flagged": flagged,
        "categories": dict.fromkeys(CATEGORIES, flagged) | {"illicit": None},
        "category_scores": dict.fromkeys(CATEGORIES, 0.5) | {"illicit": None},
    }


def parse(body: Any, request: ModerationRequest = TEXTS) -> ModelResponse:
    response = ADAPTER.parse(model_call(request), answer(body))
    assert isinstance(response, ModelResponse)
    return response


def decode(given_: Any, **changes: Any) -> ClientCall:
    return DIALECT.decode(json.dumps({"input": given_} | changes).encode(), {})


def test_texts_are_sent_alone_and_with_images_as_parts() -> None:
    assert rendered(ADAPTER, model_call(TEXTS)) == {"model": "model-1", "input": ["a", "b"]}
    assert rendered(ADAPTER, model_call(MIXED))["input"] == [
        {"type": "text", "text": "a"},
        {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}},
    ]


@pytest.mark.parametrize("request_", [ModerationRequest([]), ModerationRequest([Reasoning("a")])])
def test_what_cannot_be_expressed_is_refused(request_: ModerationRequest) -> None:
    with pytest.raises(InvalidRequest):
        ADAPTER.render(model_call(request_))


def test_results_are_read_and_unknown_categories_left_out() -> None:
    response = parse({"id": "modr-1", "model": "omni", "results": [result(), result(True)]})
    assert isinstance(response.output, ModerationOutput)
    first, second = response.output.results
    assert (first.flagged, second.flagged) == (False, True)
    assert second.categories["violence"] is True
    assert "illicit" not in second.categories
    assert response.usage == Usage()


def test_texts_and_images_have_one_result() -> None:
    assert isinstance(parse({"results": [result()]}, MIXED).output, ModerationOutput)
    with pytest.raises(InvalidResponse):
        parse({"results": [result()]}, TEXTS)


@pytest.mark.parametrize(
    ("given_", "inputs"),
    [
        ("a", [Text("a")]),
        (["a", "b"], [Text("a"), Text("b")]),
        ([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}], [Text("a\nb")]),
        (
            [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}],
            MIXED.inputs,
        ),
    ],
)
def test_inputs_of_every_form_are_read(given_: Any, inputs: list[Any]) -> None:
    call = decode(given_)
    assert (call.request, call.model) == (ModerationRequest(inputs), "omni-moderation-latest")


@pytest.mark.parametrize("given_", [None, [], 3, [3], [{"type": "video"}], ["a", 3]])
def test_other_inputs_are_refused(given_: Any) -> None:
    with pytest.raises(ValidationError):
        decode(given_)


def test_answer_is_what_the_sdk_reads() -> None:
    call = decode([{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "https://a.test/b.png"}}])
    found = ModerationResult(True, dict.fromkeys(CATEGORIES, True), dict.fromkeys(CATEGORIES, 0.9))
    body, _ = DIALECT.encode(call, ModelResponse(ModerationOutput([found])), Usage(), ANSWERED)
    read = ModerationCreateResponse.model_validate_json(body)
    assert (read.id, read.model, read.results[0].flagged) == ("modr-req1", "the:model", True)
    assert read.results[0].categories.self_harm_intent is True
    assert read.results[0].category_applied_input_types.violence == ["text", "image"]
    assert read.results[0].category_applied_input_types.hate == ["text"]


@given(json_values | st.fixed_dictionaries({"results": json_values}))
def test_nothing_but_a_response_or_a_provider_error_comes_of_any_answer(body: Any) -> None:
    with suppress(ProviderError):
        parse(body)

"""Google's generateContent, batchEmbedContents and images, from our request to our answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types as sdk
from hypothesis import given
from hypothesis import strategies as st

from app.errors import (
    AuthenticationFailed,
    ConnectionFailed,
    InvalidRequest,
    InvalidResponse,
    ModelNotFound,
    PermissionDenied,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
)
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, WireResponse
from app.providers.google import GoogleAdapter
from app.providers.messages import (
    FormatKind,
    Image,
    Message,
    Part,
    Reasoning,
    Refusal,
    ResponseFormat,
    Role,
    Text,
    Tool,
    ToolCall,
    ToolChoice,
    ToolMode,
    ToolResult,
)
from app.providers.operations import (
    ChatOutput,
    ChatRequest,
    Choice,
    EmbeddingOutput,
    EmbeddingRequest,
    FinishReason,
    GeneratedImage,
    ImageOutput,
    ImageRequest,
    ModerationRequest,
    StreamUsage,
)
from tests.app.providers.calls import (
    answer,
    chat,
    collect,
    events,
    json_values,
    model_call,
    only_choice,
    rendered,
    streamed,
)

ADAPTER = GoogleAdapter()

CONTENT: dict[str, Any] = {
    "candidates": [
        {
            "content": {
                "role": "model",
                "parts": [
                    {"text": "I should look.", "thought": True},
                    {"text": "Looking. "},
                    {"functionCall": {"name": "look", "args": {"at": "it"}}, "thoughtSignature": "c2ln"},
                    {"functionCall": {"id": "given", "name": "stop"}},
                ],
            },
            "finishReason": "STOP",
            "index": 0,
        }
    ],
    "usageMetadata": {
        "promptTokenCount": 100,
        "toolUsePromptTokenCount": 5,
        "cachedContentTokenCount": 60,
        "candidatesTokenCount": 20,
        "thoughtsTokenCount": 30,
        "totalTokenCount": 155,
    },
    "modelVersion": "gemini-2.5-flash",
    "responseId": "resp1",
}
USAGE = Usage(105, 50, cache_read_tokens=60, reasoning_tokens=30)
PARTS: list[Part] = [
    Reasoning("I should look."),
    Text("Looking. "),
    Reasoning(signature="c2ln"),
    ToolCall("call_resp1_0_0", "look", '{"at":"it"}'),
    ToolCall("given", "stop", "{}"),
]


def parsed(call: ModelCall, response: WireResponse) -> ModelResponse:
    found = ADAPTER.parse(call, response)
    assert isinstance(found, ModelResponse)
    return found


def piece(*parts: dict[str, Any], usage: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"role": "model", "parts": list(parts)}, "index": 0, **fields}],
        "usageMetadata": usage or {"promptTokenCount": 100, "candidatesTokenCount": 1},
        "modelVersion": "gemini-2.5-flash",
        "responseId": "resp1",
    }


STREAM = [
    piece({"text": "I should ", "thought": True}),
    piece({"text": "look.", "thought": True}),
    piece({"text": "Look"}),
    piece({"text": "ing. "}),
    piece({"functionCall": {"name": "look", "args": {"at": "it"}}, "thoughtSignature": "c2ln"}),
    piece({"functionCall": {"id": "given", "name": "stop"}}),
    piece({"text": ""}, finishReason="STOP", usage=CONTENT["usageMetadata"]),
]


def stream(*bodies: dict[str, Any]) -> bytes:
    return events(*bodies, named=False)


# --- requests ------------------------------------------------------------------------------------------------------

CONVERSATION = ChatRequest(
    messages=[
        Message(Role.SYSTEM, [Text("Be brief.")]),
        Message(Role.USER, [Text("What is this?"), Image(data="aGk=", media_type="image/jpeg")]),
        Message(Role.ASSISTANT, [Reasoning("Hm.", signature="czE="), ToolCall("c1", "look", '{"at": 1}')]),
        Message(Role.TOOL, [ToolResult("c1", "a duck")]),
        Message(Role.USER, [Text("Again.")]),
        Message(Role.ASSISTANT, [ToolCall("c1", "look_again", "")]),
        Message(Role.TOOL, [ToolResult("c1", "broken", is_error=True)]),
    ],
    tools=[Tool("look", "Looks.", {"type": "object"}), Tool("look_again")],
)


def test_conversation_is_rendered_in_googles_terms() -> None:
    assert rendered(ADAPTER, model_call(CONVERSATION, model_id="gemini-2.5-flash")) == {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {
                "role": "user",
                "parts": [{"text": "What is this?"}, {"inlineData": {"mimeType": "image/jpeg", "data": "aGk="}}],
            },
            {
                "role": "model",
                "parts": [
                    {"text": "Hm.", "thought": True},
                    {"functionCall": {"id": "c1", "name": "look", "args": {"at": 1}}, "thoughtSignature": "czE="},
                ],
            },
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": "c1", "name": "look", "response": {"output": "a duck"}}}],
            },
            {"role": "user", "parts": [{"text": "Again."}]},
            {"role": "model", "parts": [{"functionCall": {"id": "c1", "name": "look_again", "args": {}}}]},
            {
                "role": "user",
                "parts": [{"functionResponse": {"id": "c1", "name": "look_again", "response": {"error": "broken"}}}],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {"name": "look", "description": "Looks.", "parametersJsonSchema": {"type": "object"}},
                    {"name": "look_again"},
                ]
            }
        ],
    }


def test_what_is_rendered_is_what_the_sdk_knows() -> None:
    parameters = {
        "max_tokens": 9, "n": 2, "stop": "END", "temperature": 1.5, "top_p": 0.5, "top_k": 3, "seed": 1,
        "presence_penalty": 0.1, "frequency_penalty": 0.2, "reasoning_effort": "low",
    }  # fmt: skip
    wanted = ResponseFormat(FormatKind.JSON_SCHEMA, schema={"type": "object"}, description="Said.")
    request = ChatRequest(CONVERSATION.messages, CONVERSATION.tools, ToolChoice(name="look"), wanted)
    body = rendered(ADAPTER, model_call(request, parameters, model_id="gemini-3-pro"))
    assert body["generationConfig"] == {
        "maxOutputTokens": 9,
        "candidateCount": 2,
        "stopSequences": ["END"],
        "temperature": 1.5,
        "topP": 0.5,
        "topK": 3,
        "seed": 1,
        "presencePenalty": 0.1,
        "frequencyPenalty": 0.2,
        "thinkingConfig": {"thinkingLevel": "LOW"},
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "description": "Said."},
    }
    sdk.GenerationConfig.model_validate(body["generationConfig"])
    for content in body["contents"]:
        sdk.Content.model_validate(content)
    for tool in body["tools"]:
        sdk.Tool.model_validate(tool)
    sdk.ToolConfig.model_validate(body["toolConfig"])


@pytest.mark.parametrize(
    ("choice", "strict", "expected"),
    [
        (None, None, None),
        (None, True, {"mode": "VALIDATED"}),
        (ToolChoice(), None, {"mode": "AUTO"}),
        (ToolChoice(ToolMode.AUTO, parallel=True), True, {"mode": "VALIDATED"}),
        (ToolChoice(ToolMode.NONE), True, {"mode": "NONE"}),
        (ToolChoice(ToolMode.REQUIRED), None, {"mode": "ANY"}),
        (ToolChoice(name="f"), None, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
    ],
)
def test_tool_choice_maps(choice: ToolChoice | None, strict: bool | None, expected: Any) -> None:
    body = rendered(ADAPTER, model_call(chat("x", tools=[Tool("f", strict=strict)], tool_choice=choice)))
    assert body.get("toolConfig") == (None if expected is None else {"functionCallingConfig": expected})


@pytest.mark.parametrize(
    ("model_id", "parameters", "expected"),
    [
        ("gemini-2.5-flash", {"reasoning_effort": "none"}, {"thinkingBudget": 0}),
        ("gemini-2.5-flash", {"reasoning_effort": "medium"}, {"thinkingBudget": 8192}),
        ("gemini-3-pro", {"reasoning_effort": "minimal"}, {"thinkingLevel": "MINIMAL"}),
        ("models/gemini-3.5-flash", {"reasoning_effort": "high"}, {"thinkingLevel": "HIGH"}),
        ("gemini-2.5-pro", {"thinking": {"type": "disabled"}}, {"thinkingBudget": 0}),
        ("gemini-2.5-pro", {"thinking": {"type": "adaptive"}}, {"thinkingBudget": -1, "includeThoughts": True}),
        (
            "gemini-2.5-pro",
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"thinkingBudget": 2000, "includeThoughts": True},
        ),
    ],
)
def test_effort_and_thinking_map(model_id: str, parameters: dict[str, Any], expected: Any) -> None:
    body = rendered(ADAPTER, model_call(chat("x"), parameters, model_id=model_id))
    assert body["generationConfig"] == {"thinkingConfig": expected}


def test_third_generation_gets_googles_word_for_a_call_without_signature() -> None:
    request = ChatRequest(
        [Message(Role.ASSISTANT, [ToolCall("a", "f", "{}"), ToolCall("b", "f", "{}")]), *chat("x").messages]
    )
    body = rendered(ADAPTER, model_call(request, model_id="gemini-3-pro"))
    first, second = body["contents"][0]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second


def test_answers_signatures_go_back_with_the_parts_they_came_with() -> None:
    request = ChatRequest([*chat("x").messages, Message(Role.ASSISTANT, [*PARTS, Reasoning(signature="last")])])
    parts = rendered(ADAPTER, model_call(request, model_id="gemini-3-pro"))["contents"][1]["parts"]
    signed = [(sorted(part)[0], part["thoughtSignature"]) for part in parts if "thoughtSignature" in part]
    assert signed == [("functionCall", "c2ln"), ("text", "last")]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image(url="data:image/png;base64,aGk="), {"inlineData": {"mimeType": "image/png", "data": "aGk="}}),
        (
            Image(url="gs://b/a.png", media_type="image/png"),
            {"fileData": {"fileUri": "gs://b/a.png", "mimeType": "image/png"}},
        ),
        (
            Image(url="https://generativelanguage.googleapis.com/v1beta/files/abc"),
            {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/abc"}},
        ),
    ],
)
def test_images_that_google_can_reach_are_sent(image: Image, expected: Any) -> None:
    assert rendered(ADAPTER, model_call(chat(image)))["contents"][0]["parts"] == [expected]


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        (chat(Image(url="https://x.test/a.png")), "messages[0].parts[0].url"),
        (chat(Image(data="aGk=", detail="high")), "messages[0].parts[0].detail"),
        (chat(Image()), "messages[0].parts[0]"),
        (chat(ToolResult("nobody", "x")), "messages[0].parts[0].tool_call_id"),
        (chat(Reasoning("x")), "messages[0].parts[0]"),
        (ChatRequest([Message(Role.ASSISTANT, [ToolCall("a", "f", "nope")])]), "messages[0].parts[0].arguments"),
        (ChatRequest([Message(Role.ASSISTANT, [Reasoning(redacted="x")])]), "messages[0].parts[0].redacted"),
        (ChatRequest([*chat("x").messages, Message(Role.SYSTEM, [Text("y")])]), "messages[1].role"),
        (ChatRequest([Message(Role.USER, [Text("y")], name="Ann")]), "messages[0].name"),
        (ChatRequest([Message(Role.SYSTEM, [Text("y")])]), "messages"),
        (chat("x", tool_choice=ToolChoice()), "tool_choice"),
        (chat("x", tools=[Tool("f")], tool_choice=ToolChoice(parallel=False)), "tool_choice.parallel"),
        (ModerationRequest([Text("x")]), "operation"),
        (EmbeddingRequest(["x", [1, 2]]), "inputs[1]"),
    ],
)
def test_what_cannot_be_expressed_is_refused_before_the_call(request_: Any, place: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ADAPTER.render(model_call(request_))
    assert caught.value.message.startswith(f"{place} ")


@pytest.mark.parametrize(
    "parameters",
    [
        {"logprobs": True},
        {"logit_bias": {"1": 1}},
        {"user": "x"},
        {"service_tier": "flex"},
        {"reasoning_effort": "max"},
        {"thinking": {"type": "between_tools"}},
        {"thinking": 5},
        {"whatever": 1},
    ],
)
def test_parameter_that_cannot_be_expressed_is_refused_before_the_call(parameters: dict[str, Any]) -> None:
    [name] = parameters
    with pytest.raises(InvalidRequest, match=rf"^parameters\.{name} "):
        ADAPTER.render(model_call(chat("x"), parameters))


def test_unknown_parameter_passes_where_the_model_allows_it() -> None:
    assert rendered(ADAPTER, model_call(chat("x"), {"labels": {}}, allows_unknown=True))["labels"] == {}


@pytest.mark.parametrize(
    ("model_id", "stream_", "url"),
    [
        ("gemini-2.5-flash", False, "https://provider.test/v1beta/models/gemini-2.5-flash:generateContent"),
        (
            "gemini-2.5-flash",
            True,
            "https://provider.test/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse",
        ),
        ("tunedModels/a b", False, "https://provider.test/v1beta/tunedModels/a%20b:generateContent"),
    ],
)
def test_model_and_method_stand_in_the_url_and_the_key_in_a_header(model_id: str, stream_: bool, url: str) -> None:
    call = model_call(chat("x"), model_id=model_id, stream=stream_, base_url="https://provider.test/v1beta/")
    request = ADAPTER.render(call)
    assert request.url == url
    assert request.headers["x-goog-api-key"] == "secret-key"
    assert "secret-key" not in repr(request)


# --- answers -------------------------------------------------------------------------------------------------------


def test_content_is_read_with_all_its_parts_and_counts() -> None:
    response = parsed(model_call(chat("x")), answer(CONTENT))
    assert only_choice(response.output) == Choice(PARTS, FinishReason.TOOL_CALLS)
    assert response.usage == USAGE
    assert (response.response_model, response.response_id) == ("gemini-2.5-flash", "resp1")


def test_streamed_answer_is_the_same_as_the_whole_one() -> None:
    call = model_call(chat("x"), stream=True)
    collected = collect(streamed(ADAPTER, call, stream(*STREAM))).response()
    assert collected == parsed(call, answer(CONTENT))


def test_usage_before_the_end_is_flagged_as_estimated() -> None:
    chunks = streamed(ADAPTER, model_call(chat("x"), stream=True), stream(*STREAM))
    usages = [chunk.usage for chunk in chunks if isinstance(chunk, StreamUsage)]
    assert [usage.estimated for usage in usages] == [True] * 6 + [False]


@pytest.mark.parametrize("length", range(len(STREAM)))
def test_stream_that_ends_early_is_a_broken_connection(length: int) -> None:
    with pytest.raises(ConnectionFailed):
        streamed(ADAPTER, model_call(chat("x"), stream=True), stream(*STREAM[:length]))


def test_candidates_become_choices() -> None:
    candidates = [
        {"content": {"parts": [{"text": text}]}, "finishReason": "STOP", "index": index}
        for index, text in enumerate(["a", "b"])
    ]
    response = parsed(model_call(chat("x")), answer({"candidates": candidates}))
    assert isinstance(response.output, ChatOutput)
    assert [(choice.index, choice.text) for choice in response.output.choices] == [(0, "a"), (1, "b")]
    assert response.usage is None


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("STOP", FinishReason.STOP),
        ("MAX_TOKENS", FinishReason.LENGTH),
        ("SAFETY", FinishReason.CONTENT_FILTER),
        ("RECITATION", FinishReason.CONTENT_FILTER),
        ("PROHIBITED_CONTENT", FinishReason.CONTENT_FILTER),
        ("IMAGE_SAFETY", FinishReason.CONTENT_FILTER),
        ("OTHER", FinishReason.STOP),
    ],
)
def test_finish_reasons_map(reason: str, expected: FinishReason) -> None:
    response = parsed(model_call(chat("x")), answer(piece({"text": "a"}, finishReason=reason)))
    assert only_choice(response.output).finish_reason is expected


def test_malformed_function_call_is_no_answer() -> None:
    with pytest.raises(InvalidResponse, match="MALFORMED_FUNCTION_CALL"):
        ADAPTER.parse(model_call(chat("x")), answer(piece(finishReason="MALFORMED_FUNCTION_CALL")))


def test_blocked_prompt_is_filtered_content_whole_and_streamed() -> None:
    body = {
        "promptFeedback": {"blockReason": "SAFETY", "blockReasonMessage": "Not this."},
        "usageMetadata": {"promptTokenCount": 4},
    }
    call = model_call(chat("x"), stream=True)
    response = parsed(call, answer(body))
    assert only_choice(response.output) == Choice([Refusal("Not this.")], FinishReason.CONTENT_FILTER)
    assert response.usage == Usage(4, 0)
    assert collect(streamed(ADAPTER, call, stream(body))).response() == response


@pytest.mark.parametrize(
    ("http_status", "status", "error"),
    [
        (400, "INVALID_ARGUMENT", InvalidRequest),
        (400, "FAILED_PRECONDITION", InvalidRequest),
        (401, "UNAUTHENTICATED", AuthenticationFailed),
        (403, "PERMISSION_DENIED", PermissionDenied),
        (404, "NOT_FOUND", ModelNotFound),
        (429, "RESOURCE_EXHAUSTED", RateLimited),
        (500, "INTERNAL", ProviderUnavailable),
        (503, "UNAVAILABLE", ProviderUnavailable),
        (504, "DEADLINE_EXCEEDED", ProviderUnavailable),
    ],
)
def test_errors_map_alike_as_answer_and_in_a_stream(http_status: int, status: str, error: type[ProviderError]) -> None:
    details = [
        {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "58.5s"},
    ]
    body = {"error": {"code": http_status, "message": "so it is", "status": status, "details": details}}
    for raised in (
        lambda: ADAPTER.parse(model_call(chat("x")), answer(body, http_status)),
        lambda: ADAPTER.parse(model_call(chat("x")), answer([body], http_status)),
        lambda: streamed(ADAPTER, model_call(chat("x"), stream=True), stream(STREAM[0], body)),
    ):
        with pytest.raises(error, match="so it is") as caught:
            raised()
        assert type(caught.value) is error
        assert caught.value.http_status == http_status
        assert caught.value.retry_after_seconds == 58.5


def test_wrong_key_is_an_authentication_error_although_google_says_400() -> None:
    detail = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    error = {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": [detail]}
    with pytest.raises(AuthenticationFailed):
        ADAPTER.parse(model_call(chat("x")), answer({"error": error}, 400))


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()), st.integers(100, 599))
def test_any_bad_body_is_a_provider_error(body: bytes, status: int) -> None:
    for request in (chat("x"), EmbeddingRequest(["x"]), ImageRequest("x")):
        with pytest.raises(ProviderError):
            ADAPTER.parse(model_call(request), answer(body, status))


@given(st.sampled_from(sorted(CONTENT)), json_values)
def test_any_value_in_an_answer_is_read_or_is_a_provider_error(field: str, value: Any) -> None:
    try:
        ADAPTER.parse(model_call(chat("x")), answer({**CONTENT, field: value}))
    except ProviderError:
        return


@given(st.lists(st.sampled_from(STREAM)), st.dictionaries(st.sampled_from([*CONTENT, "error"]), json_values))
def test_any_events_are_read_or_are_a_provider_error(chosen: list[dict[str, Any]], nonsense: dict[str, Any]) -> None:
    try:
        streamed(ADAPTER, model_call(chat("x"), stream=True), stream(*chosen, nonsense))
    except ProviderError:
        return


# --- embeddings and images -----------------------------------------------------------------------------------------


def test_embeddings_are_asked_for_in_one_batch() -> None:
    call = model_call(EmbeddingRequest(["a", "b"]), {"dimensions": 64, "encoding_format": "base64"}, model_id="emb")
    assert ADAPTER.render(call).url == "https://provider.test/models/emb:batchEmbedContents"
    shared = {"model": "models/emb", "outputDimensionality": 64}
    assert rendered(ADAPTER, call) == {
        "requests": [{**shared, "content": {"parts": [{"text": text}]}} for text in ("a", "b")]
    }


def test_vectors_come_back_in_order() -> None:
    body = {"embeddings": [{"values": [1, 0.5]}, {"values": [0, -1.0]}], "usageMetadata": {"promptTokenCount": 6}}
    response = parsed(model_call(EmbeddingRequest(["a", "b"])), answer(body))
    assert response.output == EmbeddingOutput([[1.0, 0.5], [0.0, -1.0]])
    assert response.usage == Usage(6, 0)


def test_vectors_that_are_not_one_for_each_input_are_no_answer() -> None:
    with pytest.raises(InvalidResponse, match="1 vectors for 2 inputs"):
        ADAPTER.parse(model_call(EmbeddingRequest(["a", "b"])), answer({"embeddings": [{"values": [1]}]}))


def test_imagen_is_asked_with_predict() -> None:
    call = model_call(ImageRequest("a duck"), {"n": 2, "aspect_ratio": "16:9"}, model_id="imagen-4")
    assert ADAPTER.render(call).url == "https://provider.test/models/imagen-4:predict"
    assert rendered(ADAPTER, call) == {
        "instances": [{"prompt": "a duck"}],
        "parameters": {"sampleCount": 2, "aspectRatio": "16:9"},
    }
    predictions = [{"bytesBase64Encoded": "aGk=", "mimeType": "image/png"}] * 2
    response = parsed(call, answer({"predictions": predictions}))
    assert response.output == ImageOutput([GeneratedImage(data="aGk=")] * 2, media_type="image/png")
    assert response.usage == Usage(images=2)


def test_gemini_is_asked_for_an_image_as_content() -> None:
    call = model_call(ImageRequest("a duck"), {"aspect_ratio": "1:1"}, model_id="gemini-2.5-flash-image")
    assert ADAPTER.render(call).url == "https://provider.test/models/gemini-2.5-flash-image:generateContent"
    assert rendered(ADAPTER, call) == {
        "contents": [{"role": "user", "parts": [{"text": "a duck"}]}],
        "generationConfig": {"responseModalities": ["IMAGE"], "imageConfig": {"aspectRatio": "1:1"}},
    }
    body = piece({"text": "Here."}, {"inlineData": {"mimeType": "image/png", "data": "aGk="}}, finishReason="STOP")
    response = parsed(call, answer(body))
    assert response.output == ImageOutput([GeneratedImage(data="aGk=")], media_type="image/png")
    assert response.usage == Usage(100, 1, images=1)

"""What a submission's input becomes, for each kind of model."""

from __future__ import annotations

from typing import Any

import pytest

from app.db.rows import LlmModelType
from app.errors import ValidationError
from app.providers.messages import Image, Text, ToolMode
from app.providers.operations import ChatRequest, EmbeddingRequest, ModerationRequest, RerankRequest
from app.requests.payload import operation_request
from app.requests.records import SubmitRequest


def _request(kind: LlmModelType, value: Any) -> Any:
    return operation_request(SubmitRequest(model="acme:m", input=value), kind)


def test_text_with_tools_and_images_is_taken_as_an_object() -> None:
    request = _request(
        LlmModelType.TEXT,
        {
            "messages": [
                {"role": "user", "parts": [{"type": "text", "text": "What is this?"}, {"type": "image", "url": "u"}]}
            ],
            "tools": [{"name": "look", "parameters": {"type": "object"}}],
            "tool_choice": {"mode": "required"},
        },
    )
    assert isinstance(request, ChatRequest)
    assert request.messages[0].parts == [Text("What is this?"), Image(url="u")]
    assert request.tools[0].name == "look"
    assert request.tool_choice is not None
    assert request.tool_choice.mode is ToolMode.REQUIRED


def test_each_kind_has_its_short_form() -> None:
    assert _request(LlmModelType.EMBEDDING, ["a", "b"]) == EmbeddingRequest(["a", "b"])
    assert _request(LlmModelType.MODERATION, "a") == ModerationRequest([Text("a")])
    assert _request(LlmModelType.RERANK, {"query": "q", "documents": ["d"]}) == RerankRequest("q", ["d"])


@pytest.mark.parametrize(
    ("kind", "value", "field"),
    [
        (LlmModelType.TEXT, 1, "input"),
        (LlmModelType.TEXT, {"messages": []}, "input.messages"),
        (LlmModelType.TEXT, {"messages": [{"role": "user"}]}, "input"),
        (LlmModelType.TEXT, {"messages": [], "temperature": 1}, "input.temperature"),
        (
            LlmModelType.TEXT,
            {"messages": [{"role": "user", "parts": [{"type": "text", "text": "a", "mood": "sad"}]}]},
            "input.messages[0].parts[0].mood",
        ),
        (LlmModelType.RERANK, {"query": "q"}, "input"),
        (LlmModelType.RERANK, "q", "input"),
        (LlmModelType.IMAGE, {"prompt": "p", "size": "1x1"}, "input.size"),
    ],
)
def test_what_would_be_lost_or_does_not_fit_is_refused_by_name(kind: LlmModelType, value: Any, field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        _request(kind, value)
    assert caught.value.field == field

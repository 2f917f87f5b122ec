"""Calls and answers for the tests of the wire protocols."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st
from pydantic import SecretStr

from app.providers.adapter import Adapter, ModelCall, WireResponse
from app.providers.collect import Collector
from app.providers.dialect import Answered
from app.providers.messages import Message, Part, Role, Text
from app.providers.operations import ChatOutput, ChatRequest, Choice, Chunk, OperationOutput, OperationRequest
from app.providers.sse import EventDecoder

ANSWERED = Answered(request_id="req1", model="the:model", created_at=datetime(2026, 11, 20, tzinfo=UTC))

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def chat(*parts: Part | str, **fields: Any) -> ChatRequest:
    texts = [Text(part) if isinstance(part, str) else part for part in parts]
    return ChatRequest(messages=[Message(Role.USER, texts)], **fields)


def model_call(
    request: OperationRequest,
    parameters: Mapping[str, Any] | None = None,
    *,
    model_id: str = "model-1",
    base_url: str = "https://provider.test",
    stream: bool = False,
    allows_unknown: bool = False,
) -> ModelCall:
    return ModelCall(
        model_id=model_id,
        base_url=base_url,
        credential=SecretStr("secret-key"),
        request=request,
        parameters=parameters or {},
        request_id="req1",
        stream=stream,
        allows_unknown=allows_unknown,
    )


def rendered(adapter: Adapter, call: ModelCall) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(adapter.render(call).body)
    return body


def answer(body: Any, status: int = 200, **headers: str) -> WireResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return WireResponse(status=status, headers={k.replace("_", "-"): v for k, v in headers.items()}, body=data)


def events(*bodies: dict[str, Any], named: bool = True) -> bytes:
    lines = [f"event: {body['type']}\n" if named else "" for body in bodies]
    return "".join(f"{line}data: {json.dumps(body)}\n\n" for line, body in zip(lines, bodies, strict=True)).encode()


def streamed(adapter: Adapter, call: ModelCall, data: bytes) -> list[Chunk]:
    """All chunks of a whole stream."""
    reader = adapter.stream_reader(call)
    chunks = [chunk for event in EventDecoder().feed(data) for chunk in reader.read(event.event, event.data)]
    reader.end()
    return chunks


def collect(chunks: list[Chunk]) -> Collector:
    collector = Collector()
    for chunk in chunks:
        collector.add(chunk)
    return collector


def only_choice(output: OperationOutput) -> Choice:
    assert isinstance(output, ChatOutput)
    [choice] = output.choices
    return choice

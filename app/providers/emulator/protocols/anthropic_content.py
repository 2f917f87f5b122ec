"""What Anthropic's messages answer: the message with its blocks, and the events of a stream of it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import Any

from app.providers.emulator.protocols.reading import event
from app.providers.emulator.wire import Answer, Stop

_STOP_REASONS = {
    Stop.STOP: "end_turn",
    Stop.STOP_SEQUENCE: "stop_sequence",
    Stop.LENGTH: "max_tokens",
    Stop.TOOL_CALLS: "tool_use",
    Stop.CONTENT_FILTER: "refusal",
}


def signature(thinking: str) -> str:
    """What proves that a thinking block that comes back is as it was sent."""
    return base64.b64encode(hashlib.blake2b(thinking.encode(), digest_size=24).digest()).decode()


def blocks(answer: Answer) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = []
    if answer.reasoning:
        thinking = "".join(answer.reasoning)
        content.append({"type": "thinking", "thinking": thinking, "signature": signature(thinking)})
    if answer.pieces:
        content.append({"type": "text", "text": answer.text})
    for number, made in enumerate(answer.tool_calls):
        tool_use = {"type": "tool_use", "id": f"toolu_{answer.id}_{number}", "name": made.name}
        content.append({**tool_use, "input": made.arguments})
    return content


def message(model: str, answer: Answer, content: Sequence[dict[str, Any]]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "id": f"msg_{answer.id}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": content,
        "stop_reason": _STOP_REASONS[answer.stop],
        "stop_sequence": answer.stop_sequence,
    }
    if answer.report_usage:
        body["usage"] = {**_input_usage(answer), **_output_usage(answer), "service_tier": "standard"}
    return body


def events(model: str, answer: Answer) -> list[bytes]:
    start = {**message(model, answer, []), "stop_reason": None, "stop_sequence": None}
    if answer.report_usage:
        start["usage"] = {**_input_usage(answer), "output_tokens": min(1, answer.usage.output_tokens)}
    sent = [event({"type": "message_start", "message": start}, "message_start")]
    for index, block in enumerate(blocks(answer)):
        opening, deltas = _block_events(block, answer)
        sent.append(_block_event("start", index, content_block=opening))
        if index == 0:
            sent.append(event({"type": "ping"}, "ping"))
        sent.extend(_block_event("delta", index, delta=delta) for delta in deltas)
        sent.append(_block_event("stop", index))
    end: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": _STOP_REASONS[answer.stop], "stop_sequence": answer.stop_sequence},
    }
    if answer.report_usage:
        end["usage"] = {**_input_usage(answer), **_output_usage(answer)}
    sent.append(event(end, "message_delta"))
    sent.append(event({"type": "message_stop"}, "message_stop"))
    return sent


def _block_events(block: dict[str, Any], answer: Answer) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "thinking":
        deltas: list[dict[str, Any]] = [{"type": "thinking_delta", "thinking": piece} for piece in answer.reasoning]
        deltas.append({"type": "signature_delta", "signature": block["signature"]})
        return {"type": "thinking", "thinking": "", "signature": ""}, deltas
    if block["type"] == "text":
        return {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in answer.pieces]
    made = answer.tool_calls[int(block["id"].rpartition("_")[2])]
    pieces = ["", *made.pieces] if made.arguments else [""]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def _block_event(kind: str, index: int, **more: object) -> bytes:
    name = f"content_block_{kind}"
    return event({"type": name, "index": index, **more}, name)


def _input_usage(answer: Answer) -> dict[str, Any]:
    """The protocol counts what was read from or written to the cache beside input_tokens, not within."""
    usage = answer.usage
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_tokens,
            "ephemeral_1h_input_tokens": 0,
        },
    }


def _output_usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    body: dict[str, Any] = {"output_tokens": usage.output_tokens}
    if usage.reasoning_tokens:
        body["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    return body

"""The response object of OpenAI's responses API, and the typed events that build it up."""

from __future__ import annotations

from typing import Any

from app.providers.emulator.protocols.openai_errors import error_object
from app.providers.emulator.protocols.reading import event
from app.providers.emulator.wire import Answer, Refusal, Stop

_ECHOED: dict[str, Any] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_INCOMPLETE = {Stop.LENGTH: "max_output_tokens", Stop.CONTENT_FILTER: "content_filter"}


def response_object(model: str, request: dict[str, Any], answer: Answer, *, begun: bool = False) -> dict[str, Any]:
    """`begun`: as it is at the start of a stream."""
    reason = None if begun else _INCOMPLETE.get(answer.stop)
    echoed = {name: default if request.get(name) is None else request[name] for name, default in _ECHOED.items()}
    status = "in_progress" if begun else "completed" if reason is None else "incomplete"
    return {
        "id": f"resp_{answer.id}",
        "object": "response",
        "created_at": answer.created,
        "status": status,
        "error": None,
        "incomplete_details": None if reason is None else {"reason": reason},
        "model": model,
        "output": [] if begun else _items(answer),
        "usage": _usage(answer) if answer.report_usage and not begun else None,
        **echoed,
    }


def response_events(model: str, request: dict[str, Any], answer: Answer) -> list[bytes]:
    begun = response_object(model, request, answer, begun=True)
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
    ]
    for index, item in enumerate(_items(answer)):
        place = {"item_id": item["id"], "output_index": index}
        if item["type"] == "reasoning":
            changes = _reasoning_events(place, item, answer)
        elif item["type"] == "message":
            changes = _message_events(place, item, answer)
        else:
            changes = _call_events(place, item, answer)
        events.append({"type": "response.output_item.added", "output_index": index, "item": _empty(item)})
        events.extend(changes)
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    response = response_object(model, request, answer)
    events.append({"type": f"response.{response['status']}", "response": response})
    return [event({**data, "sequence_number": number}, data["type"]) for number, data in enumerate(events)]


def failure_event(refusal: Refusal) -> bytes:
    error = error_object(refusal)
    data = {"type": "error", "sequence_number": 0, **{name: error[name] for name in ("code", "message", "param")}}
    return event(data, "error")


def _items(answer: Answer) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = []
    status = "incomplete" if answer.stop in _INCOMPLETE else "completed"
    if answer.reasoning:
        summary = [{"type": "summary_text", "text": "".join(answer.reasoning)}]
        items.append({"id": f"rs_{answer.id}", "type": "reasoning", "summary": summary})
    if answer.pieces or not answer.tool_calls:
        content = [{"type": "output_text", "text": answer.text, "annotations": [], "logprobs": []}]
        message = {"id": f"msg_{answer.id}", "type": "message", "status": status, "role": "assistant"}
        items.append({**message, "content": content})
    for number, made in enumerate(answer.tool_calls):
        items.append(
            {
                "id": f"fc_{answer.id}_{number}",
                "type": "function_call",
                "status": "completed",
                "call_id": f"call_{answer.id}_{number}",
                "name": made.name,
                "arguments": made.json,
            }
        )
    return items


def _empty(item: dict[str, Any]) -> dict[str, Any]:
    if item["type"] == "reasoning":
        return {**item, "summary": []}
    blank: dict[str, Any] = {"content": []} if item["type"] == "message" else {"arguments": ""}
    return {**item, "status": "in_progress", **blank}


def _reasoning_events(place: dict[str, Any], item: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    start = "response.reasoning_summary"
    place, part = {**place, "summary_index": 0}, item["summary"][0]
    return [
        {"type": f"{start}_part.added", **place, "part": {**part, "text": ""}},
        *({"type": f"{start}_text.delta", **place, "delta": piece} for piece in answer.reasoning),
        {"type": f"{start}_text.done", **place, "text": part["text"]},
        {"type": f"{start}_part.done", **place, "part": part},
    ]


def _message_events(place: dict[str, Any], item: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    place, part = {**place, "content_index": 0}, item["content"][0]
    return [
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        *({"type": "response.output_text.delta", **place, "delta": piece, "logprobs": []} for piece in answer.pieces),
        {"type": "response.output_text.done", **place, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
    ]


def _call_events(place: dict[str, Any], item: dict[str, Any], answer: Answer) -> list[dict[str, Any]]:
    made = answer.tool_calls[int(item["id"].rpartition("_")[2])]
    start = "response.function_call_arguments"
    return [
        *({"type": f"{start}.delta", **place, "delta": piece} for piece in made.pieces),
        {"type": f"{start}.done", **place, "name": made.name, "arguments": item["arguments"]},
    ]


def _usage(answer: Answer) -> dict[str, Any]:
    usage = answer.usage
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
        },
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }

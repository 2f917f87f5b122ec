"""OpenAI chat completions: https://platform.openai.com/docs/api-reference/chat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.providers.emulator.protocols.openai_errors import write_error
from app.providers.emulator.protocols.openai_messages import forced_tool, measure, stop_marks, tools_of
from app.providers.emulator.protocols.reading import object_of, read_object, whole_number
from app.providers.emulator.wire import (
    EVENT_STREAM_TYPE,
    Answer,
    Body,
    GenerationCall,
    Head,
    Operation,
    Refusal,
    Stop,
    Usage,
    bad_request,
)

_FINGERPRINT = "fp_emulator"
_FINISH = {Stop.STOP_SEQUENCE: "stop"}
_OPEN_END = b',"logprobs":null,"finish_reason":null}]}\n\n'


@dataclass(slots=True, kw_only=True)
class ChatCall(GenerationCall):
    include_usage: bool = False
    top_logprobs: int | None = None
    """None: no logprobs."""


class ChatCompletions(Operation[ChatCall]):
    name = "chat"

    def read(self, head: Head, body: bytes) -> ChatCall:
        request = read_object(body)
        model = request.get("model")
        if not isinstance(model, str) or not model:
            raise bad_request("you must provide a model parameter", "model")
        size, last_text = measure(request.get("messages"))
        limit = "max_tokens" if request.get("max_completion_tokens") is None else "max_completion_tokens"
        call = ChatCall(
            model=model,
            prompt_bytes=size,
            last_text=last_text,
            max_output_tokens=whole_number(request, limit, 0) or None,
            stream=request.get("stream") is True,
            metadata=object_of(request.get("metadata")),
            choices=whole_number(request, "n", 1, most=128),
            include_usage=object_of(request.get("stream_options")).get("include_usage") is True,
        )
        if "tools" in request:
            call.tools = tools_of(request["tools"])
            call.must_call = forced_tool(request.get("tool_choice"), call.tools)
        if "response_format" in request:
            call.json_schema = _schema(request["response_format"])
        if "stop" in request:
            call.stop = stop_marks(request["stop"])
        if request.get("logprobs") is True:
            call.top_logprobs = int(request.get("top_logprobs") or 0)
        return call

    def write(self, call: ChatCall, answer: Answer) -> Body:
        if call.stream:
            return Body(self._events(call, answer), EVENT_STREAM_TYPE, streamed=True)
        content = "".join(answer.pieces)
        body: dict[str, Any] = {
            **_frame(call, answer, "chat.completion"),
            "choices": [_choice(call, answer, content, index) for index in range(call.choices)],
            "service_tier": "default",
        }
        if answer.report_usage:
            body["usage"] = _usage(answer.usage)
        return Body([orjson.dumps(body)])

    def write_broken_stream(self, call: ChatCall, refusal: Refusal, request_id: str) -> bytes:
        return b"data: " + write_error(refusal) + b"\n\n"

    def _events(self, call: ChatCall, answer: Answer) -> list[bytes]:
        frame: dict[str, Any] = _frame(call, answer, "chat.completion.chunk")
        usage = {"usage": None} if call.include_usage and answer.report_usage else {}
        head = b"data: " + orjson.dumps({**frame, **usage})[:-1] + b',"choices":[{"index":'
        events = []
        for position in range(call.choices):
            start = head + b"%d" % position + b',"delta":'
            events.append(start + b'{"role":"assistant","content":"","refusal":null}' + _OPEN_END)
            events.extend(
                start + b'{"reasoning_content":' + orjson.dumps(piece) + b"}" + _OPEN_END for piece in answer.reasoning
            )
            events.extend(
                start + b'{"content":' + orjson.dumps(piece) + b"}" + _end(call, piece) for piece in answer.pieces
            )
            for number, made in enumerate(answer.tool_calls):
                first = _tool_call(answer, position, number, made.name, "")
                events.append(start + orjson.dumps({"tool_calls": [{"index": number, **first}]}) + _OPEN_END)
                for piece in made.pieces:
                    delta = {"tool_calls": [{"index": number, "function": {"arguments": piece}}]}
                    events.append(start + orjson.dumps(delta) + _OPEN_END)
            finish = _finish_reason(answer).encode()
            events.append(start + b'{},"logprobs":null,"finish_reason":"' + finish + b'"}]}\n\n')
        if usage:
            closing = {**frame, "choices": [], "usage": _usage(answer.usage)}
            events.append(b"data: " + orjson.dumps(closing) + b"\n\n")
        events[-1] += b"data: [DONE]\n\n"
        return events


def _frame(call: ChatCall, answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": kind,
        "created": answer.created,
        "model": call.model,
        "system_fingerprint": _FINGERPRINT,
    }


def _choice(call: ChatCall, answer: Answer, content: str, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None, "annotations": []}
    if answer.reasoning:
        message["reasoning_content"] = "".join(answer.reasoning)  # as DeepSeek, xAI and vLLM show it; OpenAI does not
    if answer.tool_calls:
        message["content"] = content or None
        message["tool_calls"] = [
            _tool_call(answer, index, number, made.name, made.json) for number, made in enumerate(answer.tool_calls)
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": None if call.top_logprobs is None else _logprobs(answer.pieces, call.top_logprobs),
        "finish_reason": _finish_reason(answer),
    }


def _tool_call(answer: Answer, choice: int, number: int, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{answer.id}_{choice}_{number}", "type": "function", "function": function}


def _end(call: ChatCall, piece: str) -> bytes:
    if call.top_logprobs is None:
        return _OPEN_END
    return b',"logprobs":' + orjson.dumps(_logprobs([piece], call.top_logprobs)) + b',"finish_reason":null}]}\n\n'


def _logprobs(pieces: Sequence[str], top: int) -> dict[str, Any]:
    tokens = [{"token": piece, "logprob": -0.1, "bytes": list(piece.encode())} for piece in pieces]
    return {"content": [{**token, "top_logprobs": [token][:top]} for token in tokens], "refusal": None}


def _finish_reason(answer: Answer) -> str:
    return _FINISH.get(answer.stop, answer.stop.value)


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": usage.cache_write_tokens,
            "audio_tokens": 0,
        },
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _schema(response_format: object) -> dict[str, Any] | None:
    asked = object_of(response_format)
    if asked.get("type") == "json_object":
        return {}
    if asked.get("type") == "json_schema":
        schema = object_of(asked.get("json_schema")).get("schema")
        if not isinstance(schema, dict):
            raise bad_request(
                "Missing required parameter: 'response_format.json_schema.schema'.", "response_format.json_schema"
            )
        return schema
    if asked.get("type") not in (None, "text"):
        raise bad_request(f"Invalid value for 'response_format.type': {asked['type']!r:.100}.", "response_format.type")
    return None

"""The OpenAI chat completions protocol, which many providers speak.

Shapes as in https://platform.openai.com/docs/api-reference/chat, and as the official Python client reads them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.providers.emulator.wire import Answer, Call, Endpoint, Refusal, Refused, Usage, WireProtocol

_COMPLETIONS = frozenset({"/v1/chat/completions", "/chat/completions"})
_MODELS = frozenset({"/v1/models", "/models"})
_TYPES = {
    403: "permission_error",
    408: "timeout_error",
    409: "conflict_error",
    429: "rate_limit_error",
    529: "overloaded_error",
}
_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
_FINGERPRINT = "fp_emulator"


@dataclass(slots=True, kw_only=True)
class ChatCall(Call):
    include_usage: bool = False


class OpenAIChat(WireProtocol[ChatCall]):
    name = "openai"
    request_id_header = b"x-request-id"

    def endpoint(self, method: str, path: str) -> Endpoint | None:
        if method == "POST" and path in _COMPLETIONS:
            return Endpoint.COMPLETION
        return Endpoint.MODELS if method == "GET" and path in _MODELS else None

    def credential(self, headers: Mapping[bytes, bytes]) -> str | None:
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        return token.strip().decode("latin-1") if scheme.lower() == b"bearer" and token.strip() else None

    def read(self, path: str, body: bytes) -> ChatCall:
        try:
            request = orjson.loads(body)
        except orjson.JSONDecodeError:
            raise _bad("We could not parse the JSON body of your request.", None) from None
        if not isinstance(request, dict):
            raise _bad("The body must be a JSON object.", None)
        model = request.get("model")
        if not isinstance(model, str) or not model:
            raise _bad("you must provide a model parameter", "model")
        size, last_text = _measure(request.get("messages"))
        options = request.get("stream_options")
        metadata = request.get("metadata")
        return ChatCall(
            model=model,
            prompt_bytes=size,
            last_text=last_text,
            max_output_tokens=_maximum(request),
            stream=request.get("stream") is True,
            metadata=metadata if isinstance(metadata, dict) else {},
            choices=_choices(request.get("n")),
            include_usage=isinstance(options, dict) and options.get("include_usage") is True,
        )

    def write(self, call: ChatCall, answer: Answer) -> bytes:
        content = "".join(answer.pieces)
        body: dict[str, Any] = {
            **_frame(call, answer, "chat.completion"),
            "choices": [
                {
                    "index": index,
                    "message": {"role": "assistant", "content": content, "refusal": None, "annotations": []},
                    "logprobs": None,
                    "finish_reason": _finish_reason(answer),
                }
                for index in range(call.choices)
            ],
            "service_tier": "default",
        }
        if answer.report_usage:
            body["usage"] = _usage(answer.usage)
        return orjson.dumps(body)

    def write_stream(self, call: ChatCall, answer: Answer) -> list[bytes]:
        frame: dict[str, Any] = _frame(call, answer, "chat.completion.chunk")
        usage = {"usage": None} if call.include_usage and answer.report_usage else {}
        head = b"data: " + orjson.dumps({**frame, **usage})[:-1] + b',"choices":[{"index":'
        events = []
        for index in map(b"%d".__mod__, range(call.choices)):
            start = head + index + b',"delta":'
            events.append(start + b'{"role":"assistant","content":"","refusal":null}' + _OPEN_END)
            events.extend(start + b'{"content":' + orjson.dumps(piece) + b"}" + _OPEN_END for piece in answer.pieces)
            finish = _finish_reason(answer).encode()
            events.append(start + b'{},"logprobs":null,"finish_reason":"' + finish + b'"}]}\n\n')
        if usage:
            closing = {**frame, "choices": [], "usage": _usage(answer.usage)}
            events.append(b"data: " + orjson.dumps(closing) + b"\n\n")
        events[-1] += b"data: [DONE]\n\n"
        return events

    def write_refusal(self, refusal: Refusal) -> bytes:
        return orjson.dumps({"error": _error(refusal)})

    def write_stream_refusal(self, refusal: Refusal) -> bytes:
        return b"data: " + self.write_refusal(refusal) + b"\n\n"

    def write_models(self, models: Sequence[str]) -> bytes:
        listed = [
            {"id": model, "object": "model", "created": 1_686_935_002, "owned_by": "emulator"} for model in models
        ]
        return orjson.dumps({"object": "list", "data": listed})


_OPEN_END = b',"logprobs":null,"finish_reason":null}]}\n\n'


def _frame(call: ChatCall, answer: Answer, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{answer.id}",
        "object": kind,
        "created": answer.created,
        "model": call.model,
        "system_fingerprint": _FINGERPRINT,
    }


def _finish_reason(answer: Answer) -> str:
    return "length" if answer.truncated else "stop"


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning_tokens,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _error(refusal: Refusal) -> dict[str, Any]:
    kind = _TYPES.get(refusal.status, "server_error" if refusal.status >= 500 else "invalid_request_error")
    return {
        "message": refusal.message,
        "type": refusal.kind or kind,
        "param": refusal.param,
        "code": refusal.code or _CODES.get(refusal.status),
    }


def _bad(message: str, param: str | None) -> Refused:
    return Refused(Refusal(400, message, param=param))


def _maximum(request: Mapping[str, Any]) -> int | None:
    for name in ("max_completion_tokens", "max_tokens"):
        value = request.get(name)
        if value is not None:
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise _bad(f"Invalid '{name}': expected an integer of at least 1, not {value!r:.100}.", name)
            return value
    return None


def _choices(value: object) -> int:
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 128:
        raise _bad(f"Invalid 'n': expected an integer from 1 to 128, not {value!r:.100}.", "n")
    return value


def _measure(messages: object) -> tuple[int, str]:
    if not isinstance(messages, list) or not messages:
        raise _bad("Invalid 'messages': expected a non-empty array.", "messages")
    size, text = 0, ""
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise _bad(f"Invalid 'messages[{position}]': expected an object with a role.", f"messages[{position}].role")
        content = message.get("content")
        if isinstance(content, list):
            content = "".join(
                part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
            )
        text = content if isinstance(content, str) else ""
        size += len(text) if text.isascii() else len(text.encode())
    return size, text

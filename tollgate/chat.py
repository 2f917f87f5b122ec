"""Calls of chat models, through the gateway's /v1/chat/completions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tollgate.errors import ServerUnreachable, TollgateError, ValidationError
from tollgate.records import Answer, Chunk, Usage
from tollgate.steps import Call, Steps, decimal, error_in, gateway_error, graphql, json_of, post

Prompt = str | Sequence[Mapping[str, Any]]
"""A text, or messages as OpenAI writes them: `{"role": "user", "content": "Hello"}`."""

_PATH: Final = "/v1/chat/completions"
_COST: Final = "query($id: ID!) { request(id: $id) { cost { total currency } } }"


@dataclass(frozen=True, slots=True)
class Options:
    """How Tollgate treats a call. `wait_seconds`: how long it may wait for its permit; null: as the server says."""

    priority: int = 0
    wait_seconds: float | None = None
    fallbacks: Sequence[str] = ()

    def headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.priority:
            headers["x-tollgate-priority"] = str(self.priority)
        if self.wait_seconds is not None:
            headers["x-tollgate-wait-seconds"] = str(self.wait_seconds)
        if self.fallbacks:
            headers["x-tollgate-fallbacks"] = ", ".join(self.fallbacks)
        return headers


def chat_call(
    model_id: str, prompt: Prompt, parameters: Mapping[str, Any], options: Options, *, stream: bool = False
) -> Call:
    """Raises ValidationError."""
    if "stream" in parameters:
        raise ValidationError("stream is no parameter: call stream() or stream_async()", path=("stream",))
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
    body: dict[str, Any] = {"model": model_id, "messages": messages, **parameters}
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return Call(_PATH, body, options.headers(), options.wait_seconds or 0)


def invoke(call: Call) -> Steps[Answer]:
    reply = yield from post(call)
    if reply.status != 200:
        raise gateway_error(reply)
    body, headers = json_of(reply), reply.headers
    wait = headers.get("x-tollgate-wait-ms")
    return Answer(
        data=body["choices"][0]["message"].get("content") or "",
        usage=_usage(body["usage"]),
        cost=decimal(headers.get("x-tollgate-cost")),
        currency=headers.get("x-tollgate-currency"),
        request_id=headers["x-tollgate-request-id"],
        response=body,
        wait_seconds=None if wait is None else float(wait) / 1000,
    )


class ChatStream:
    """Reads a streamed answer, and keeps what it was made of. Knows nothing of how the bytes come."""

    def __init__(self) -> None:
        self.request_id: str | None = None
        self.usage: Usage | None = None
        self._buffer = b""
        self._is_whole = False
        self._head: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    def begin(self, headers: Mapping[str, str]) -> None:
        self.request_id = headers.get("x-tollgate-request-id")

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks that are whole by now. Raises the error that the stream tells."""
        # Split as bytes: an answer may hold characters that split text into lines.
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            payload = line[5:].strip()
            if payload == b"[DONE]":
                self._is_whole = True
            elif payload:
                yield from self._event(json.loads(payload))

    def end(self) -> None:
        """Raises ServerUnreachable where the stream was not whole."""
        if not self._is_whole:
            raise ServerUnreachable("the stream broke off before its end", request_id=self.request_id)

    def answer(self) -> Steps[Answer]:
        """Asks for the cost, which is known only after the stream."""
        if not self._is_whole or self.request_id is None:
            raise TollgateError("the stream has not been read to its end", request_id=self.request_id)
        found = (yield from graphql(_COST, {"id": self.request_id}))["request"]
        cost = (found or {}).get("cost") or {}
        choices = [self._choices[index] for index in sorted(self._choices)]
        if not choices:
            choices = [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": None}]
        return Answer(
            data=choices[0]["message"].get("content") or "",
            usage=self.usage or Usage(),
            cost=decimal(cost.get("total")),
            currency=cost.get("currency"),
            request_id=self.request_id,
            response={**self._head, "object": "chat.completion", "choices": choices},
        )

    def _event(self, event: Mapping[str, Any]) -> Iterator[Chunk]:
        if "error" in event:
            raise error_in(event["error"], request_id=self.request_id)
        if event.get("usage"):
            self.usage = _usage(event["usage"])
            self._head["usage"] = event["usage"]
        self._head |= {name: event[name] for name in ("id", "created", "model") if name in event}
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            self._collect(choice, delta)
            chunk = Chunk(
                data=delta.get("content") or "",
                reasoning=delta.get("reasoning_content") or "",
                tool_calls=tuple(delta.get("tool_calls") or ()),
                finish_reason=choice.get("finish_reason"),
                choice=choice["index"],
            )
            # The first event says only that the answer has begun.
            if chunk.data or chunk.reasoning or chunk.tool_calls or chunk.finish_reason:
                yield chunk

    def _collect(self, choice: Mapping[str, Any], delta: Mapping[str, Any]) -> None:
        index = choice["index"]
        empty = {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
        whole = self._choices.setdefault(index, empty)
        message: dict[str, Any] = whole["message"]
        for name in ("content", "reasoning_content", "refusal"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        if delta.get("reasoning_details"):
            message.setdefault("reasoning_details", []).extend(delta["reasoning_details"])
        for part in delta.get("tool_calls") or ():
            _collect_tool_call(message.setdefault("tool_calls", []), part)
        whole["finish_reason"] = choice.get("finish_reason") or whole["finish_reason"]


def _collect_tool_call(calls: list[dict[str, Any]], part: Mapping[str, Any]) -> None:
    while len(calls) <= part["index"]:
        calls.append({"id": "", "type": "function", "function": {"name": "", "arguments": ""}})
    call, function = calls[part["index"]], part.get("function") or {}
    call["id"] = part.get("id") or call["id"]
    call["function"]["name"] = function.get("name") or call["function"]["name"]
    call["function"]["arguments"] += function.get("arguments") or ""


def _usage(usage: Mapping[str, Any]) -> Usage:
    prompt, completion = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=usage["prompt_tokens"],
        output_tokens=usage["completion_tokens"],
        cache_read_tokens=prompt.get("cached_tokens") or 0,
        cache_write_tokens=prompt.get("cache_write_tokens") or 0,
        reasoning_tokens=completion.get("reasoning_tokens") or 0,
    )

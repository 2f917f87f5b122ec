"""Google's generateContent, its stream and the count of its tokens."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from app.providers.emulator.composition import text_tokens
from app.providers.emulator.media import png
from app.providers.emulator.protocols.google_contents import known, measure, named, text_of
from app.providers.emulator.protocols.google_errors import error_object
from app.providers.emulator.protocols.reading import object_of, objects_of, read_object, size_of, whole_number
from app.providers.emulator.wire import (
    ANY_TOOL,
    EVENT_STREAM_TYPE,
    JSON_TYPE,
    Answer,
    Body,
    Call,
    GenerationCall,
    Head,
    Operation,
    Refusal,
    Stop,
    Tool,
    bad_request,
)

_FIELDS = frozenset(
    {
        "model",
        "contents",
        "tools",
        "toolConfig",
        "safetySettings",
        "systemInstruction",
        "generationConfig",
        "cachedContent",
        "labels",
        "serviceTier",
        "store",
    }
)
_CONFIG = frozenset(
    {
        "stopSequences",
        "responseMimeType",
        "responseSchema",
        "responseJsonSchema",
        "responseModalities",
        "responseFormat",
        "candidateCount",
        "maxOutputTokens",
        "temperature",
        "topP",
        "topK",
        "seed",
        "presencePenalty",
        "frequencyPenalty",
        "responseLogprobs",
        "logprobs",
        "enableEnhancedCivicAnswers",
        "speechConfig",
        "thinkingConfig",
        "imageConfig",
        "mediaResolution",
        "audioTimestamp",
    }
)
_FINISH = {
    Stop.STOP: "STOP",
    Stop.STOP_SEQUENCE: "STOP",
    Stop.TOOL_CALLS: "STOP",
    Stop.LENGTH: "MAX_TOKENS",
    Stop.CONTENT_FILTER: "SAFETY",
}


@dataclass(slots=True, kw_only=True)
class GenerateCall(GenerationCall):
    by_events: bool = True
    """Else a stream is one JSON array."""


class Generate(Operation[GenerateCall]):
    name = "generate"

    def __init__(self, *, streams: bool) -> None:
        self._streams = streams

    def read(self, head: Head, body: bytes) -> GenerateCall:
        request = known(read_object(body), _FIELDS, "")
        config = known(request.get("generationConfig"), _CONFIG, "generation_config")
        size, last_text = measure(request.get("contents"))
        tools = _tools(request.get("tools"))
        return GenerateCall(
            model=model_of(head.path),
            prompt_bytes=size + size_of(text_of(request.get("systemInstruction"))),
            last_text=last_text,
            metadata=object_of(request.get("labels")),
            max_output_tokens=whole_number(config, "maxOutputTokens", 0) or None,
            stream=self._streams,
            choices=whole_number(config, "candidateCount", 1, most=8),
            tools=tools,
            must_call=_forced(request, tools),
            json_schema=_schema(config),
            stop=[mark for mark in config.get("stopSequences") or () if isinstance(mark, str)],
            shows_reasoning=named(config.get("thinkingConfig")).get("includeThoughts") is True,
            by_events=b"alt=sse" in head.query,
            images=1 if "IMAGE" in (config.get("responseModalities") or ()) else 0,
        )

    def write(self, call: GenerateCall, answer: Answer) -> Body:
        if not call.stream:
            return Body([orjson.dumps(_response(call, answer, _all_parts(answer), last=True))])
        chunks = _chunks(call, answer)
        if call.by_events:
            return Body([b"data: " + chunk + b"\r\n\r\n" for chunk in chunks], EVENT_STREAM_TYPE, streamed=True)
        parts = [(b",\r\n" if position else b"[") + chunk for position, chunk in enumerate(chunks)]
        parts[-1] += b"\n]"
        return Body(parts, JSON_TYPE, streamed=True)

    def write_broken_stream(self, call: GenerateCall, refusal: Refusal, request_id: str) -> bytes:
        error = orjson.dumps({"error": error_object(refusal)})
        return b"data: " + error + b"\r\n\r\n" if call.by_events else b",\r\n" + error + b"\n]"


class CountTokens(Operation[Call]):
    """Neither billed nor counted against the limits of generateContent."""

    name = "count_tokens"
    limited: ClassVar[bool] = False

    def read(self, head: Head, body: bytes) -> Call:
        request = named(read_object(body))
        inner = named(request.get("generateContentRequest"))
        size, last_text = measure(request.get("contents") or inner.get("contents"))
        return Call(model=model_of(head.path), prompt_bytes=size, last_text=last_text)

    def write(self, call: Call, answer: Answer) -> Body:
        tokens = text_tokens(call.prompt_bytes)
        details = [{"modality": "TEXT", "tokenCount": tokens}]
        return Body([orjson.dumps({"totalTokens": tokens, "promptTokensDetails": details})])


def model_of(path: str) -> str:
    return path.rpartition("/")[2].partition(":")[0]


def _all_parts(answer: Answer) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if answer.reasoning:
        parts.append({"text": "".join(answer.reasoning), "thought": True})
    if answer.pieces:
        parts.append({"text": answer.text})
    return parts + _closing_parts(answer)


def _closing_parts(answer: Answer) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    for number, made in enumerate(answer.tool_calls):
        seal = base64.b64encode(f"{answer.id}-{number}".encode()).decode()
        parts.append({"functionCall": {"name": made.name, "args": made.arguments}, "thoughtSignature": seal})
    for number in range(answer.usage.images):
        data = base64.b64encode(png(number)).decode()
        parts.append({"inlineData": {"mimeType": "image/png", "data": data}})
    return parts


def _chunks(call: GenerateCall, answer: Answer) -> list[bytes]:
    steps: list[list[dict[str, Any]]] = [[{"text": piece, "thought": True}] for piece in answer.reasoning]
    steps += [[{"text": piece}] for piece in answer.pieces]
    closing = _closing_parts(answer)
    if closing or not steps:
        steps.append(closing or [{"text": ""}])
    final = len(steps) - 1
    return [orjson.dumps(_response(call, answer, step, last=at == final)) for at, step in enumerate(steps)]


def _response(call: GenerateCall, answer: Answer, parts: list[dict[str, Any]], *, last: bool) -> dict[str, Any]:
    candidates: list[dict[str, Any]] = []
    for index in range(call.choices):
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": index}
        if last:
            candidate["finishReason"] = _FINISH[answer.stop]
        candidates.append(candidate)
    body: dict[str, Any] = {"candidates": candidates, "modelVersion": call.model, "responseId": answer.id}
    if answer.report_usage:
        body["usageMetadata"] = _usage(answer, last=last)
    return body


def _usage(answer: Answer, *, last: bool) -> dict[str, Any]:
    """The thoughts are beside candidatesTokenCount, not within. A stream counts the output in its last chunk."""
    usage = answer.usage
    body: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens,
        "totalTokenCount": usage.input_tokens + (usage.output_tokens if last else 0),
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": usage.input_tokens}],
    }
    if last:
        body["candidatesTokenCount"] = usage.output_tokens - usage.reasoning_tokens
        if usage.reasoning_tokens:
            body["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cached_tokens:
        body["cachedContentTokenCount"] = usage.cached_tokens
        body["cacheTokensDetails"] = [{"modality": "TEXT", "tokenCount": usage.cached_tokens}]
    return body


def _tools(value: object) -> list[Tool]:
    tools = []
    for tool in objects_of([value] if isinstance(value, dict) else value):
        for declared in objects_of(named(tool).get("functionDeclarations")):
            function = named(declared)
            if not isinstance(function.get("name"), str):
                raise bad_request("tools[0].function_declarations[0].name: [FIELD_INVALID] Invalid function name.")
            schema = function.get("parameters") or function.get("parametersJsonSchema")
            tools.append(Tool(function["name"], object_of(schema)))
    return tools


def _forced(request: dict[str, Any], tools: list[Tool]) -> str | None:
    config = named(named(request.get("toolConfig")).get("functionCallingConfig"))
    if str(config.get("mode")).upper() != "ANY":
        return None
    allowed = config.get("allowedFunctionNames") or []
    unknown = next((name for name in allowed if name not in {tool.name for tool in tools}), None)
    if unknown is not None:
        raise bad_request(f"Function calling config contains a function that is not declared: {unknown}")
    return str(allowed[0]) if allowed else ANY_TOOL


def _schema(config: dict[str, Any]) -> dict[str, Any] | None:
    schema = config.get("responseSchema") or config.get("responseJsonSchema")
    if config.get("responseMimeType") != "application/json":
        if schema:
            raise bad_request("Function calling with a response schema needs response mime type 'application/json'")
        return None
    return dict(object_of(schema))

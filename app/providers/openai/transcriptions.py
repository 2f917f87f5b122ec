"""OpenAI's speech to text, both ways.

Wire format: https://platform.openai.com/docs/api-reference/audio/createTranscription (checked 2026-11-20).
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, WireRequest, WireResponse
from app.providers.dialect import Answered, ClientCall
from app.providers.openai.dialect import WholeAnswers, refuse_streaming
from app.providers.openai.multipart import FormFile, decode_form, encode_form
from app.providers.openai.usage import read_responses_usage
from app.providers.openai.wire import authorization, checked_parameters, invalid_answer, read_json
from app.providers.operations import TranscriptionOutput, TranscriptionRequest

_encode: Final = msgspec.json.Encoder(decimal_format="number").encode
_PARAMETERS: Final = frozenset(
    {"chunking_strategy", "language", "prompt", "response_format", "temperature", "timestamp_granularities"}
)
_RESERVED: Final = frozenset({"file", "include", "model", "stream"})
_MAX_SECONDS: Final = 10**7


def render_transcription(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, TranscriptionRequest)
    parameters = checked_parameters(call, _PARAMETERS, _RESERVED, "transcriptions")
    if not request.audio:
        raise InvalidRequest("audio must not be empty")
    parameters["response_format"] = _format(call, parameters)
    fields = [("model", call.model_id)]
    for name, value in parameters.items():
        if isinstance(value, list | tuple):
            fields += [(f"{name}[]", _field_text(item)) for item in value]
        else:
            fields.append((name, _field_text(value)))
    body, content_type = encode_form(fields, "file", FormFile(request.filename, request.media_type, request.audio))
    return WireRequest(
        url=call.base_url.rstrip("/") + "/audio/transcriptions",
        headers={**authorization(call), "content-type": content_type, "accept": "application/json"},
        body=body,
    )


def _format(call: ModelCall, parameters: Mapping[str, Any]) -> str:
    """Whisper models tell the duration, by which they are billed, in verbose_json; others know no verbose_json."""
    wanted = parameters.get("response_format")
    if wanted is None:
        is_verbose = call.model_id.startswith("whisper") or "timestamp_granularities" in parameters
        return "verbose_json" if is_verbose else "json"
    if wanted not in ("json", "verbose_json"):
        raise InvalidRequest("response_format must be json or verbose_json: other forms hold no usage")
    return str(wanted)


def _field_text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


class _Answer(Struct):
    text: str
    language: str | None = None
    duration: float | str | None = None
    segments: list[dict[str, Any]] | None = None
    words: list[dict[str, Any]] | None = None
    usage: Any = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def parse_transcription(call: ModelCall, response: WireResponse) -> ModelResponse:
    body = read_json(response, _decode, _Answer)
    provider_request_id = response.headers.get("x-request-id")
    usage = body.usage if isinstance(body.usage, dict) else {}
    billed = _seconds(usage.get("seconds"), response) if usage.get("type") == "duration" else None
    duration = _seconds(body.duration, response)
    counted = read_responses_usage(usage, provider_request_id) if usage.get("type") != "duration" else None
    if counted is None and (seconds := billed if billed is not None else duration) is not None:
        counted = Usage(seconds=seconds)
    return ModelResponse(
        output=TranscriptionOutput(
            text=body.text,
            language=body.language,
            duration_seconds=duration if duration is not None else billed,
            segments=body.segments,
            words=body.words,
        ),
        usage=counted,
        provider_request_id=provider_request_id,
    )


def _seconds(value: Any, response: WireResponse) -> Decimal | None:
    """Usage holds hundredths of a second. Some servers write the number as text."""
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < _MAX_SECONDS:
        raise invalid_answer("its duration is no number of seconds", response)
    return Decimal(str(number)).quantize(Decimal("0.01"), ROUND_HALF_UP)


# --- the gateway's side -----------------------------------------------------------------------------------------------

_WRITTEN: Final = ("json", "text", "verbose_json")


class OpenAITranscriptionDialect(WholeAnswers):
    """Fields that are not named here go to the model as text, whose own rules judge them."""

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        form = decode_form(body, headers.get("content-type", ""))
        fields = _fields(form.fields)
        file = form.files.pop("file", None)
        if file is None or not file.content:
            raise ValidationError("file", None if file is None else file.filename, "a file that is not empty")
        if form.files:
            raise ValidationError(next(iter(form.files)), "a file", "left out: file is the only one")
        model = fields.pop("model", None)
        if not isinstance(model, str) or not model:
            raise ValidationError("model", model, "a text that is not empty")
        refuse_streaming(fields)
        wanted = fields.pop("response_format", "json")
        if wanted not in _WRITTEN:
            raise ValidationError("response_format", wanted, ", ".join(_WRITTEN))
        if wanted == "verbose_json":
            fields["response_format"] = wanted
        if "temperature" in fields:
            fields["temperature"] = _number(fields["temperature"])
        request = TranscriptionRequest(file.content, file.filename or "audio.wav", file.media_type)
        return ClientCall(model, request, fields, options={"response_format": wanted})

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        output = response.output
        assert isinstance(output, TranscriptionOutput)
        wanted = call.options.get("response_format", "json")
        if wanted == "text":
            return f"{output.text}\n".encode(), "text/plain; charset=utf-8"
        seconds = output.duration_seconds if output.duration_seconds is not None else usage.seconds
        body: dict[str, Any] = {"text": output.text}
        if wanted == "verbose_json":
            body |= {"task": "transcribe", "language": output.language or "", "duration": seconds}
            body |= {"segments": output.segments or [], "words": output.words}
        if usage.total_tokens:
            counts = {"input_tokens": usage.input_tokens, "output_tokens": usage.output_tokens}
            body["usage"] = {"type": "tokens", **counts, "total_tokens": usage.total_tokens}
        else:
            body["usage"] = {"type": "duration", "seconds": usage.seconds}
        return _encode(body), "application/json"


def _fields(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """`name[]` is an item of a list; any other name comes once."""
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name.endswith("[]"):
            fields.setdefault(name[:-2], []).append(value)
        elif name in fields:
            raise ValidationError(name, value, "given once")
        else:
            fields[name] = value
    return fields


def _number(text: Any) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise ValidationError("temperature", text, "a number") from None

"""OpenAI's text to speech, both ways.

Wire format: https://platform.openai.com/docs/api-reference/audio/createSpeech (checked 2026-11-20).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import ConnectionFailed, InvalidRequest, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, WireRequest, WireResponse
from app.providers.bodies import read_object
from app.providers.dialect import Answered, ClientCall
from app.providers.openai.client_body import parameters_of, take_metadata, take_text
from app.providers.openai.dialect import WholeAnswers, refuse_streaming
from app.providers.openai.errors import error_in_stream, raise_for_status
from app.providers.openai.usage import read_responses_usage
from app.providers.openai.wire import checked_parameters, invalid_answer, json_request
from app.providers.operations import SpeechOutput, SpeechRequest
from app.providers.sse import EventDecoder

_PARAMETERS: Final = frozenset({"instructions", "response_format", "speed"})
_RESERVED: Final = frozenset({"input", "model", "stream_format", "voice"})
_MEDIA_TYPES: Final = {
    "aac": "audio/aac",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "pcm": "audio/pcm",
    "wav": "audio/wav",
}


def render_speech(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, SpeechRequest)
    body = checked_parameters(call, _PARAMETERS, _RESERVED, "speech")
    if not request.text:
        raise InvalidRequest("text must not be empty")
    body["model"] = call.model_id
    body["input"] = request.text
    body["voice"] = request.voice
    if _counts_tokens(call):
        body["stream_format"] = "sse"
        return json_request(call, "/audio/speech", body, accept="text/event-stream")
    return json_request(call, "/audio/speech", body, accept="*/*")


def _counts_tokens(call: ModelCall) -> bool:
    """The gpt models are billed by tokens, and tell how many only at the end of a stream of events."""
    return call.model_id.startswith("gpt-")


def parse_speech(call: ModelCall, response: WireResponse) -> ModelResponse:
    request = call.request
    assert isinstance(request, SpeechRequest)
    raise_for_status(response)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    usage: Usage | None = Usage(characters=len(request.text))
    if media_type == "text/event-stream":
        audio, counted = _read_events(response)
        usage = None if counted is None else replace(counted, characters=len(request.text))
        media_type = _media_type(call)
    else:
        audio = response.body
        if media_type in ("", "application/octet-stream"):
            media_type = _media_type(call)
    if not audio or not media_type.startswith("audio/"):
        raise invalid_answer(f"it is {media_type} of {len(audio)} bytes, and no sound", response)
    return ModelResponse(
        output=SpeechOutput(audio, media_type),
        usage=usage,
        provider_request_id=response.headers.get("x-request-id"),
    )


def _media_type(call: ModelCall) -> str:
    wanted = call.parameters.get("response_format") or "mp3"
    return _MEDIA_TYPES.get(wanted, f"audio/{wanted}") if isinstance(wanted, str) else "audio/mpeg"


class _Event(Struct):
    type: str | None = None
    audio: str | None = None
    usage: Any = None
    error: Any = None


_decode_event: Final = msgspec.json.Decoder(_Event).decode


def _read_events(response: WireResponse) -> tuple[bytes, Usage | None]:
    request_id = response.headers.get("x-request-id")
    pieces: list[bytes] = []
    for _, data in EventDecoder().feed(response.body):
        try:
            event = _decode_event(data)
            pieces.append(base64.b64decode(event.audio or "", validate=True))
        except (msgspec.DecodeError, UnicodeError, RecursionError, binascii.Error, ValueError):
            raise invalid_answer("an event of its stream is none of the protocol", response) from None
        if event.error is not None:
            raise error_in_stream(event.error, request_id)
        if event.type == "speech.audio.done":
            return b"".join(pieces), read_responses_usage(event.usage, request_id)
    raise ConnectionFailed(
        "the provider's stream ended before its answer was whole", http_status=200, provider_request_id=request_id
    )


class OpenAISpeechDialect(WholeAnswers):
    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        fields = read_object(body)
        model = take_text(fields, "model")
        refuse_streaming(fields)
        stream_format = fields.pop("stream_format", None)
        if stream_format not in (None, "audio"):
            raise ValidationError("stream_format", stream_format, "audio")
        request = SpeechRequest(text=take_text(fields, "input"), voice=take_text(fields, "voice"))
        return ClientCall(model, request, parameters_of(fields), metadata=take_metadata(fields))

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        output = response.output
        assert isinstance(output, SpeechOutput)
        return output.audio, output.media_type

"""OpenAI's videos: submitted, asked after until they are there, and fetched.

Wire format: https://platform.openai.com/docs/api-reference/videos (checked 2026-11-20).
"""

from __future__ import annotations

import base64
from decimal import Decimal, InvalidOperation
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest, ProviderUnavailable
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, Unfinished, WireRequest, WireResponse
from app.providers.openai.errors import raise_for_status
from app.providers.openai.wire import authorization, checked_parameters, invalid_answer, json_request, read_json
from app.providers.operations import VideoOutput, VideoRequest

POLL_SECONDS: Final = 5.0
_PARAMETERS: Final = frozenset({"seconds", "size"})
_RESERVED: Final = frozenset({"input_reference", "model", "prompt"})
_DEFAULT_SECONDS: Final = "4"
_REFUSED: Final = frozenset({"moderation_blocked", "content_policy_violation", "invalid_request_error"})


def render_video(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, VideoRequest)
    body = checked_parameters(call, _PARAMETERS, _RESERVED, "videos")
    if not request.prompt:
        raise InvalidRequest("prompt must not be empty")
    # The length is what is billed, and no later answer with the video itself tells it: it is always asked for.
    body["seconds"] = _seconds(call)
    body["model"] = call.model_id
    body["prompt"] = request.prompt
    return json_request(call, "/videos", body)


def _seconds(call: ModelCall) -> str:
    value = call.parameters.get("seconds")
    text = _DEFAULT_SECONDS if value is None else str(value)
    try:
        if isinstance(value, bool) or not 0 < Decimal(text) <= 3600:
            raise InvalidOperation
    except InvalidOperation:
        raise InvalidRequest(f"seconds must be a number above 0, not {text[:40]!r}") from None
    return text


class _Failure(Struct):
    code: str | None = None
    message: str | None = None


class _Video(Struct):
    id: str
    status: str
    error: _Failure | None = None
    model: str | None = None


_decode: Final = msgspec.json.Decoder(_Video).decode


def parse_video(call: ModelCall, response: WireResponse) -> ModelResponse | Unfinished:
    """The answer to a submission, to a question after it, or the video itself."""
    raise_for_status(response)
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type.startswith("video/"):
        return _content(call, response, media_type)
    video = read_json(response, _decode, _Video)
    match video.status:
        case "queued" | "in_progress":
            return Unfinished(_get(call, f"/videos/{quote(video.id, safe='')}"), POLL_SECONDS)
        case "completed":
            return Unfinished(_get(call, f"/videos/{quote(video.id, safe='')}/content"), 0.0)
        case "failed":
            raise _failure(video.error or _Failure(), response)
    raise invalid_answer(f"its status is {video.status!r}", response)


def _get(call: ModelCall, path: str) -> WireRequest:
    return WireRequest(call.base_url.rstrip("/") + path, authorization(call), b"", method="GET")


def _content(call: ModelCall, response: WireResponse, media_type: str) -> ModelResponse:
    if not response.body:
        raise invalid_answer("the video is empty", response)
    seconds = Decimal(_seconds(call))
    data = base64.b64encode(response.body).decode()
    return ModelResponse(
        output=VideoOutput(id=call.request_id, seconds=seconds, data=data, media_type=media_type),
        usage=Usage(seconds=seconds),
        provider_request_id=response.headers.get("x-request-id"),
    )


def _failure(failure: _Failure, response: WireResponse) -> InvalidRequest | ProviderUnavailable:
    kind = InvalidRequest if failure.code in _REFUSED else ProviderUnavailable
    return kind(
        f"the provider could not make the video: {(failure.message or 'no message')[:500]}",
        http_status=response.status,
        provider_request_id=response.headers.get("x-request-id"),
    )

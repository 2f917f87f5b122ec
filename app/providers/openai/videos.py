"""OpenAI's videos, both ways: submitted, asked after until they are there, and fetched.

Wire format: https://platform.openai.com/docs/api-reference/videos (checked 2026-11-20).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest, ProviderUnavailable, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, Unfinished, WireRequest, WireResponse
from app.providers.bodies import read_object
from app.providers.dialect import ClientCall
from app.providers.messages import Image
from app.providers.openai.client_body import image_of, parameters_of, take_text
from app.providers.openai.errors import raise_for_status
from app.providers.openai.multipart import FormFile, decode_form, encode_form
from app.providers.openai.wire import authorization, checked_parameters, invalid_answer, json_request, read_json
from app.providers.operations import VideoOutput, VideoRequest
from app.providers.video import video_seconds
from app.providers.wire import image_data

POLL_SECONDS: Final = 5.0
_PARAMETERS: Final = frozenset({"seconds", "size"})
_REFERENCE: Final = "input_reference"
_RESERVED: Final = frozenset({_REFERENCE, "model", "prompt"})
_REFUSED: Final = frozenset({"moderation_blocked", "content_policy_violation", "invalid_request_error"})


def render_video(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, VideoRequest)
    body = checked_parameters(call, _PARAMETERS, _RESERVED, "videos")
    if not request.prompt:
        raise InvalidRequest("prompt must not be empty")
    # The length is what is billed, and no later answer with the video itself tells it: it is always asked for.
    body["seconds"] = f"{video_seconds(call.parameters):f}"
    body["model"] = call.model_id
    body["prompt"] = request.prompt
    if request.image is None:
        return json_request(call, "/videos", body)
    given = image_data(request.image)
    if given is None:
        return json_request(call, "/videos", {**body, _REFERENCE: {"image_url": request.image.url}})
    media_type, data = given
    file = FormFile(f"image.{media_type.rpartition('/')[2]}", media_type, _decoded(data))
    form, content_type = encode_form([(name, str(value)) for name, value in body.items()], _REFERENCE, file)
    headers = {**authorization(call), "content-type": content_type, "accept": "application/json"}
    return WireRequest(f"{call.base_url.rstrip('/')}/videos", headers, form)


def _decoded(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except ValueError:
        raise InvalidRequest("image.data must be base64") from None


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
            content = _get(call, f"/videos/{quote(video.id, safe='')}/content")
            # What is made is billed, and not made again for a file that is too large to be kept here.
            return Unfinished(content, 0.0, otherwise=_response(call, response, url=content.url, needs_credential=True))
        case "failed":
            raise _failure(video.error or _Failure(), response)
    raise invalid_answer(f"its status is {video.status!r}", response)


def _get(call: ModelCall, path: str) -> WireRequest:
    return WireRequest(call.base_url.rstrip("/") + path, authorization(call), b"", method="GET")


def _content(call: ModelCall, response: WireResponse, media_type: str) -> ModelResponse:
    if not response.body:
        raise invalid_answer("the video is empty", response)
    return _response(call, response, data=base64.b64encode(response.body).decode(), media_type=media_type)


def _response(call: ModelCall, response: WireResponse, **file: Any) -> ModelResponse:
    seconds = video_seconds(call.parameters)
    return ModelResponse(
        output=VideoOutput(id=call.request_id, seconds=seconds, **file),
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


# --- the gateway's side -----------------------------------------------------------------------------------------------


def decode_video(body: bytes, headers: Mapping[str, str]) -> ClientCall:
    """A form, as OpenAI's SDK sends it, or JSON. Raises ValidationError."""
    content_type = headers.get("content-type", "")
    is_form = content_type.lower().startswith("multipart/form-data")
    fields = _form_fields(body, content_type) if is_form else read_object(body)
    model, prompt = take_text(fields, "model"), take_text(fields, "prompt")
    image = _reference(fields.pop(_REFERENCE, None))
    return ClientCall(model, VideoRequest(prompt, image), parameters_of(fields))


def _form_fields(body: bytes, content_type: str) -> dict[str, Any]:
    """`input_reference[image_url]` is a part of an object, as the SDK writes it."""
    form = decode_form(body, content_type)
    fields: dict[str, Any] = {}
    file = form.files.pop(_REFERENCE, None)
    if form.files:
        raise ValidationError(min(form.files), "a file", f"left out: {_REFERENCE} is the only one")
    if file is not None:
        fields[_REFERENCE] = file
    for name, value in form.fields:
        outer, separator, inner = name.partition("[")
        within = fields if outer != _REFERENCE or not separator else fields.setdefault(_REFERENCE, {})
        key = name if within is fields else inner.removesuffix("]")
        if not isinstance(within, dict) or key in within:
            raise ValidationError(name, value, "given once")
        within[key] = value
    return fields


def _reference(value: Any) -> Image | None:
    if value is None:
        return None
    if isinstance(value, FormFile):
        if not value.content or not value.media_type.startswith("image/"):
            raise ValidationError(_REFERENCE, value.media_type, "an image that is not empty")
        return Image(data=base64.b64encode(value.content).decode(), media_type=value.media_type)
    if not isinstance(value, dict) or not isinstance(value.get("image_url"), str) or len(value) > 1:
        raise ValidationError(_REFERENCE, value, "a file, or an object of an image_url alone: no files are kept here")
    return image_of(value["image_url"], None, f"{_REFERENCE}.image_url")


def encode_video(
    *,
    id: str,
    model: str,
    status: str,
    prompt: str,
    seconds: str,
    size: str | None,
    created_at: datetime,
    completed_at: datetime | None,
    error: Mapping[str, str] | None,
) -> dict[str, Any]:
    """`size` is None where it is left to the provider. Nobody says how far the work is: the progress is all or none."""
    return {
        "id": id,
        "object": "video",
        "model": model,
        "status": status,
        "progress": 100 if status == "completed" else 0,
        "created_at": int(created_at.timestamp()),
        "completed_at": None if completed_at is None else int(completed_at.timestamp()),
        "expires_at": None,
        "prompt": prompt,
        "seconds": seconds,
        "size": size,
        "remixed_from_video_id": None,
        "error": error,
    }

"""OpenAI image generation, and the files that its URLs lead to."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import orjson

from app.providers.emulator.composition import text_tokens
from app.providers.emulator.jobs import Jobs
from app.providers.emulator.media import png
from app.providers.emulator.protocols.openai_errors import error_object
from app.providers.emulator.protocols.reading import event, object_of, read_object, size_of, whole_number
from app.providers.emulator.wire import (
    EVENT_STREAM_TYPE,
    Answer,
    Body,
    Call,
    Found,
    Head,
    Lookup,
    Operation,
    Refusal,
    Usage,
    bad_request,
)

_TOKENS_PER_IMAGE = 1056
"""Of a square image of medium quality: https://platform.openai.com/docs/guides/image-generation."""


@dataclass(slots=True, kw_only=True)
class ImageCall(Call):
    prefix: str
    as_base64: bool
    by_tokens: bool
    """gpt-image models are billed by tokens and say so; the older ones by image."""
    size: str
    quality: str
    partial_images: int = 0


class Images(Operation[ImageCall]):
    name = "images"

    def read(self, head: Head, body: bytes) -> ImageCall:
        request = read_object(body)
        prompt = request.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise bad_request("Missing required parameter: 'prompt'.", "prompt")
        model = str(request.get("model") or "dall-e-2")
        by_tokens = "gpt-image" in model or "chatgpt-image" in model
        count = whole_number(request, "n", 1, most=10)
        serves = Usage(images=count)
        if by_tokens:
            serves.input_tokens = text_tokens(size_of(prompt))
            serves.output_tokens = _TOKENS_PER_IMAGE * count
        return ImageCall(
            model=model,
            prompt_bytes=size_of(prompt),
            last_text=prompt,
            metadata=object_of(request.get("metadata")),
            stream=by_tokens and request.get("stream") is True,
            serves=serves,
            prefix=head.prefix,
            as_base64=by_tokens or request.get("response_format") == "b64_json",
            by_tokens=by_tokens,
            size=str(request.get("size") or "1024x1024"),
            quality=str(request.get("quality") or "medium"),
            partial_images=int(request.get("partial_images") or 0),
        )

    def write(self, call: ImageCall, answer: Answer) -> Body:
        if call.stream:
            return Body(self._events(call, answer), EVENT_STREAM_TYPE, streamed=True)
        data: list[dict[str, Any]] = []
        for number in range(answer.usage.images):
            if call.as_base64:
                data.append({"b64_json": _base64(number)})
            else:
                data.append({"url": f"{call.prefix}/images/{number}.png", "revised_prompt": call.last_text})
        body: dict[str, Any] = {"created": answer.created, "data": data}
        if call.by_tokens:
            body |= _looks(call)
            if answer.report_usage:
                body["usage"] = _usage(answer.usage)
        return Body([orjson.dumps(body)])

    def write_broken_stream(self, call: ImageCall, refusal: Refusal, request_id: str) -> bytes:
        return event({"type": "error", "error": error_object(refusal)}, "error")

    def _events(self, call: ImageCall, answer: Answer) -> list[bytes]:
        frame = {"created_at": answer.created, **_looks(call)}
        events = []
        for number in range(call.partial_images):
            name = "image_generation.partial_image"
            partial = {"type": name, **frame, "b64_json": _base64(number), "partial_image_index": number}
            events.append(event(partial, name))
        for number in range(answer.usage.images):
            name = "image_generation.completed"
            done = {"type": name, **frame, "b64_json": _base64(number)}
            if answer.report_usage:
                done["usage"] = _usage(answer.usage)
            events.append(event(done, name))
        return events


class ImageFile(Lookup):
    needs_credential: ClassVar[bool] = False

    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        return Found(png(int(head.path.rpartition("/")[2].removesuffix(".png"))), b"image/png")


def _base64(number: int) -> str:
    return base64.b64encode(png(number)).decode()


def _looks(call: ImageCall) -> dict[str, str]:
    return {"background": "opaque", "output_format": "png", "quality": call.quality, "size": call.size}


def _usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"text_tokens": usage.input_tokens, "image_tokens": 0},
        "output_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }

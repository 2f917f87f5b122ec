"""Videos of Veo's models: submitted by predictLongRunning, and polled as an operation until the file is there.

https://ai.google.dev/gemini-api/docs/veo and the operations of the official client, google-genai (2026-11-20)

ours             | Google's
-----------------|-----------------------------------------------------
seconds          | durationSeconds, always told: it is what is billed
size             | aspectRatio and resolution, of the table below
aspect_ratio, resolution, negative_prompt, person_generation, enhance_prompt | the same (Google's own)
image            | image of the instance, where it is given itself
n, seed          | refused: an answer is one video
"""

from __future__ import annotations

import re
from typing import Any, Final

from app.errors import InvalidRequest, InvalidResponse
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, Unfinished, WireRequest, WireResponse
from app.providers.google import wire
from app.providers.google.errors import error_of_operation
from app.providers.operations import VideoOutput, VideoRequest
from app.providers.video import video_seconds
from app.providers.wire import Parameters, decode_answer, image_data, refused

METHOD: Final = "predictLongRunning"
POLL_SECONDS: Final = 10.0
_SIZES: Final = {
    "1280x720": ("16:9", "720p"),
    "720x1280": ("9:16", "720p"),
    "1920x1080": ("16:9", "1080p"),
    "1080x1920": ("9:16", "1080p"),
    "3840x2160": ("16:9", "4k"),
    "2160x3840": ("9:16", "4k"),
}
_OWN: Final = {
    "aspect_ratio": "aspectRatio",
    "resolution": "resolution",
    "negative_prompt": "negativePrompt",
    "person_generation": "personGeneration",
    "enhance_prompt": "enhancePrompt",
}
_NAME: Final = re.compile(r"(?:\w[\w.-]*/)*operations/[\w-]+", re.ASCII)
"""The name of an operation, which becomes a part of a URL."""


def render_video(call: ModelCall, request: VideoRequest) -> dict[str, Any]:
    if not request.prompt:
        raise refused("prompt", "must not be empty")
    parameters = Parameters(call, "Google's predictLongRunning")
    parameters.refuse_all({"n": 1, "seed": None})
    parameters.take("seconds")
    seconds = video_seconds(call.parameters)
    if seconds != int(seconds):
        raise refused("parameters.seconds", f"must be whole for Google's models, not {seconds}")
    wanted: dict[str, Any] = {"durationSeconds": int(seconds)}
    shape = parameters.take_choice("size", _SIZES)
    if shape is not None:
        wanted["aspectRatio"], wanted["resolution"] = shape
        parameters.refuse_all({"aspect_ratio": None, "resolution": None})
    parameters.copy(_OWN, wanted)
    instance: dict[str, Any] = {"prompt": request.prompt}
    if request.image is not None:
        given = image_data(request.image)
        if given is None:
            raise refused("image", "must be given itself: Google's models fetch none")
        instance["image"] = {"mimeType": given[0], "bytesBase64Encoded": given[1]}
    return {"instances": [instance], "parameters": {**wanted, **parameters.rest()}}


def parse_video(call: ModelCall, response: WireResponse, headers: dict[str, str]) -> ModelResponse | Unfinished:
    """The answer to a submission, or to a question after it. `headers` are those to ask with."""
    operation = decode_answer(wire.operation_decoder, response.body, status=response.status)
    if not operation.done:
        if not _NAME.fullmatch(operation.name):
            raise _unusable(f"it names its operation {operation.name[:100]!r}", response)
        url = f"{call.base_url.rstrip('/')}/{operation.name}"
        return Unfinished(WireRequest(url, headers, b"", method="GET"), POLL_SECONDS)
    if operation.error is not None:
        raise error_of_operation(operation.error, response)
    made = operation.response.generate_video_response if operation.response is not None else None
    if made is None or not made.generated_samples:
        reasons = "; ".join(made.rai_media_filtered_reasons) if made is not None else ""
        if made is not None and (made.rai_media_filtered_count or reasons):
            # Not billed: https://ai.google.dev/gemini-api/docs/veo (2026-11-20)
            raise InvalidRequest(
                f"the provider could not make the video: {reasons or 'it was filtered'}"[:500],
                http_status=response.status,
            )
        raise _unusable("it has no video", response)
    seconds = video_seconds(call.parameters)
    url = made.generated_samples[0].video.uri
    # Google keeps the file for two days: https://ai.google.dev/gemini-api/docs/veo (2026-11-20)
    output = VideoOutput(id=call.request_id, seconds=seconds, url=url, needs_credential=True)
    return ModelResponse(output=output, usage=Usage(seconds=seconds))


def _unusable(reason: str, response: WireResponse) -> InvalidResponse:
    return InvalidResponse(f"the provider's answer cannot be used: {reason}", http_status=response.status)

"""Google's predictLongRunning of Veo's models: the operation that is polled, and the file that comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from app.providers.emulator.jobs import Job, Jobs, VideoCall
from app.providers.emulator.media import video
from app.providers.emulator.protocols.google_contents import known
from app.providers.emulator.protocols.google_generate import model_of
from app.providers.emulator.protocols.reading import objects_of, read_object, size_of, whole_number
from app.providers.emulator.wire import (
    Answer,
    Body,
    Found,
    Head,
    Lookup,
    Operation,
    Refusal,
    Refused,
    Usage,
    bad_request,
)

_FIELDS = frozenset({"instances", "parameters"})
_INSTANCE = frozenset({"prompt", "image", "lastFrame", "video", "referenceImages"})
_IMAGE = frozenset({"mimeType", "bytesBase64Encoded"})
_PARAMETERS = frozenset(
    {
        "aspectRatio",
        "durationSeconds",
        "enhancePrompt",
        "negativePrompt",
        "personGeneration",
        "resolution",
        "sampleCount",
    }
)
_LENGTHS = (4, 5, 6, 7, 8)
_DEFAULT_SECONDS = 8
_RESOLUTIONS = ("720p", "1080p", "4k")
_ASPECT_RATIOS = ("16:9", "9:16")


class PredictLongRunning(Operation[VideoCall]):
    """Billed by the seconds of video, at once; polls are free."""

    name = "videos"

    def read(self, head: Head, body: bytes) -> VideoCall:
        request = known(read_object(body), _FIELDS, "")
        instances = objects_of(request.get("instances"))
        prompt = known(instances[0], _INSTANCE, "instances[0]").get("prompt") if len(instances) == 1 else None
        if not isinstance(prompt, str) or not prompt:
            raise bad_request("Text prompt must be provided.")
        image = known(instances[0].get("image"), _IMAGE, "instances[0].image")
        if image and not (image.get("mimeType") and image.get("bytesBase64Encoded")):
            raise bad_request("Input image must have both mimeType and bytesBase64Encoded.")
        wanted = known(request.get("parameters"), _PARAMETERS, "parameters")
        seconds = whole_number(wanted, "durationSeconds", _DEFAULT_SECONDS)
        if seconds not in _LENGTHS:
            raise bad_request(f"Output video duration must be between 4 and 8, inclusive, not {seconds}.")
        resolution = _one_of(wanted, "resolution", _RESOLUTIONS)
        aspect_ratio = _one_of(wanted, "aspectRatio", _ASPECT_RATIOS)
        return VideoCall(
            model=model_of(head.path),
            prompt_bytes=size_of(prompt),
            last_text=prompt,
            serves=Usage(seconds=seconds * whole_number(wanted, "sampleCount", 1, most=4)),
            seconds=str(seconds),
            size=f"{aspect_ratio} {resolution}",
        )

    def write(self, call: VideoCall, answer: Answer) -> Body:
        return Body([orjson.dumps({"name": f"models/{call.model}/operations/{answer.id}"})])


def _one_of(items: dict[str, Any], name: str, values: tuple[str, ...]) -> str:
    value = items.get(name, values[0])
    if value not in values:
        raise bad_request(f"{name} must be one of {', '.join(values)}.")
    return str(value)


class FindOperation(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        id = head.path.rpartition("/")[2]
        job = jobs.poll(id)
        if job is None:
            raise Refused(Refusal(404, f"Operation {id} was not found."))
        return Found(orjson.dumps(_operation(job, head)))


class FileContent(Lookup):
    """`/v1beta/files/{id}:download?alt=media`."""

    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        id = head.path.rpartition("/")[2].partition(":")[0]
        job = jobs.find(id)
        if job is None or job.status != "completed":
            raise Refused(Refusal(403, f"You do not have permission to access the File {id} or it may not exist."))
        return Found(video(job.file_bytes), b"video/mp4")


def _operation(job: Job, head: Head) -> dict[str, Any]:
    name = f"models/{job.model}/operations/{job.id}"
    if not job.ended:
        return {"name": name}
    if job.fails:
        reason = "The emulator was told to fail this video."
        made: dict[str, Any] = {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [reason]}
    else:
        version = head.path.split("/")[1]
        uri = f"{head.prefix}/{version}/files/{job.id}:download?alt=media"
        made = {"generatedSamples": [{"video": {"uri": uri}}]}
    kind = "type.googleapis.com/google.ai.generativelanguage.v1beta.PredictLongRunningResponse"
    return {"name": name, "done": True, "response": {"@type": kind, "generateVideoResponse": made}}

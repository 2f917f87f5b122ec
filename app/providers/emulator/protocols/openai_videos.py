"""OpenAI videos: submitted, polled until they are there, and fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from app.providers.emulator.jobs import Job, Jobs, VideoCall
from app.providers.emulator.media import video
from app.providers.emulator.multipart import read_form
from app.providers.emulator.protocols.reading import read_object, size_of
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

_LENGTHS = ("4", "8", "12")


class Videos(Operation[VideoCall]):
    """Billed by the seconds of video, at once; polls are free."""

    name = "videos"

    def read(self, head: Head, body: bytes) -> VideoCall:
        content_type = head.headers.get(b"content-type", b"")
        request: dict[str, Any]
        if content_type.startswith(b"multipart/form-data"):
            form = read_form(content_type, body)
            request = dict(form.fields)
            if form.files.get("input_reference") == b"":
                raise bad_request("Invalid file: it is empty.", "input_reference")
        else:
            request = read_object(body)
        prompt = request.get("prompt")
        if not isinstance(prompt, str) or not prompt:
            raise bad_request("Missing required parameter: 'prompt'.", "prompt")
        seconds = str(request.get("seconds") or _LENGTHS[0])
        if seconds not in _LENGTHS:
            raise bad_request(f"Invalid 'seconds': one of {', '.join(_LENGTHS)}, not {seconds:.100}.", "seconds")
        return VideoCall(
            model=str(request.get("model") or "sora-2"),
            prompt_bytes=size_of(prompt),
            last_text=prompt,
            serves=Usage(seconds=float(seconds)),
            seconds=seconds,
            size=str(request.get("size") or "720x1280"),
        )

    def write(self, call: VideoCall, answer: Answer) -> Body:
        job = Job(answer.id, call.model, call.last_text, call.seconds, call.size, answer.created, 1, fails=False)
        return Body([orjson.dumps(_video(job))])


class FindVideo(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        id = _id(head.path)
        job = jobs.poll(id)
        if job is None:
            raise _unknown(id)
        return Found(orjson.dumps(_video(job)))


class VideoContent(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        id = _id(head.path.removesuffix("/content"))
        job = jobs.find(id)
        if job is None:
            raise _unknown(id)
        if job.status != "completed":
            raise Refused(Refusal(404, f"Video is not ready yet: its status is {job.status}.", code="not_found"))
        return Found(video(job.file_bytes), b"video/mp4")


class RemoveVideo(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        id = _id(head.path)
        if jobs.remove(id) is None:
            raise _unknown(id)
        return Found(orjson.dumps({"id": f"video_{id}", "object": "video.deleted", "deleted": True}))


def _id(path: str) -> str:
    return path.rpartition("/")[2].removeprefix("video_")


def _unknown(id: str) -> Refused:
    return Refused(Refusal(404, f"Video with id 'video_{id}' not found.", code="not_found"))


def _video(job: Job) -> dict[str, Any]:
    failure = {"code": "moderation_blocked", "message": "The emulator was told to fail this video."}
    return {
        "id": f"video_{job.id}",
        "object": "video",
        "model": job.model,
        "status": job.status,
        "progress": job.progress,
        "created_at": job.created,
        "completed_at": job.created if job.ended else None,
        "expires_at": None,
        "prompt": job.prompt,
        "seconds": job.seconds,
        "size": job.size,
        "remixed_from_video_id": None,
        "error": failure if job.status == "failed" else None,
    }

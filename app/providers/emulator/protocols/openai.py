"""The OpenAI protocol, which many providers speak: its paths, credentials, errors and model list.

Shapes as in https://platform.openai.com/docs/api-reference, and as the official Python client reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from app.providers.emulator.jobs import Jobs
from app.providers.emulator.protocols.openai_audio import Speech, Transcription, Translation
from app.providers.emulator.protocols.openai_chat import ChatCompletions
from app.providers.emulator.protocols.openai_embeddings import Embeddings, Moderations
from app.providers.emulator.protocols.openai_errors import write_error
from app.providers.emulator.protocols.openai_images import ImageFile, Images
from app.providers.emulator.protocols.openai_responses import Responses
from app.providers.emulator.protocols.openai_videos import FindVideo, RemoveVideo, VideoContent, Videos
from app.providers.emulator.wire import Found, Head, Lookup, Operation, Refusal, Refused, WireProtocol

_CREATED = 1_686_935_002


class ListModels(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        return Found(orjson.dumps({"object": "list", "data": [_model(model) for model in models]}))


class FindModel(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        name = head.path.rpartition("/models/")[2]
        if name not in models:
            raise Refused(Refusal(404, f"The model '{name}' does not exist", param="model"))
        return Found(orjson.dumps(_model(name)))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": _CREATED, "owned_by": "emulator"}


_POSTS: dict[str, Operation[Any]] = {
    "/chat/completions": ChatCompletions(),
    "/responses": Responses(),
    "/embeddings": Embeddings(),
    "/images/generations": Images(),
    "/audio/speech": Speech(),
    "/audio/transcriptions": Transcription(),
    "/audio/translations": Translation(),
    "/moderations": Moderations(),
    "/videos": Videos(),
}
_GETS: tuple[tuple[re.Pattern[str], Lookup], ...] = (
    (re.compile(r".*/models"), ListModels()),
    (re.compile(r".*/models/.+"), FindModel()),
    (re.compile(r".*/videos/[^/]+"), FindVideo()),
    (re.compile(r".*/videos/[^/]+/content"), VideoContent()),
    (re.compile(r".*/images/\d+\.png"), ImageFile()),
)


class OpenAI(WireProtocol):
    """Takes its paths after any beginning, as compatible providers have: /v1, /api/v1, /v1beta/openai or none."""

    name = "openai"
    request_id_header = b"x-request-id"

    def route(self, head: Head) -> Operation[Any] | Lookup | None:
        if head.method == "POST":
            return next((operation for end, operation in _POSTS.items() if head.path.endswith(end)), None)
        if head.method == "GET":
            return next((lookup for pattern, lookup in _GETS if pattern.fullmatch(head.path)), None)
        return RemoveVideo() if head.method == "DELETE" and "/videos/" in head.path else None

    def credential(self, head: Head) -> str | None:
        return bearer(head)

    def write_refusal(self, refusal: Refusal, request_id: str) -> bytes:
        return write_error(refusal)


def bearer(head: Head) -> str | None:
    scheme, _, token = head.headers.get(b"authorization", b"").partition(b" ")
    return token.strip().decode("latin-1") if scheme.lower() == b"bearer" and token.strip() else None

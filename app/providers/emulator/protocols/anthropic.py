"""The Anthropic protocol: its paths, credentials, errors and model list.

Shapes as in https://docs.anthropic.com/en/api, and as the official Python client reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import orjson

from app.providers.emulator.jobs import Jobs
from app.providers.emulator.protocols.anthropic_errors import write_error
from app.providers.emulator.protocols.anthropic_messages import VERSION_HEADER, CountTokens, Messages
from app.providers.emulator.protocols.openai import bearer
from app.providers.emulator.wire import Found, Head, Lookup, Operation, Refusal, Refused, WireProtocol

_MODELS = re.compile(r"/v1/models(/.+)?")


class ListModels(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        ends = {"first_id": models[0], "last_id": models[-1]} if models else {"first_id": None, "last_id": None}
        return Found(orjson.dumps({"data": [_model(model) for model in models], "has_more": False, **ends}))


class FindModel(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        name = head.path.removeprefix("/v1/models/")
        if name not in models:
            raise Refused(Refusal(404, f"model: {name}"))
        return Found(orjson.dumps(_model(name)))


def _model(name: str) -> dict[str, Any]:
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2025-01-01T00:00:00Z",
        "lifecycle": "active",
        "max_input_tokens": 200_000,
        "max_tokens": 64_000,
    }


class Anthropic(WireProtocol):
    name = "anthropic"
    request_id_header = b"request-id"

    def __init__(self) -> None:
        self._posts: dict[str, Operation[Any]] = {
            "/v1/messages": Messages(),
            "/v1/messages/count_tokens": CountTokens(),
        }

    def route(self, head: Head) -> Operation[Any] | Lookup | None:
        if head.method == "POST":
            return self._posts.get(head.path)
        # OpenAI lists its models under the same path; the version header tells whose client asks.
        found = _MODELS.fullmatch(head.path) if head.method == "GET" and VERSION_HEADER in head.headers else None
        if found is None:
            return None
        return FindModel() if found.group(1) else ListModels()

    def credential(self, head: Head) -> str | None:
        key = head.headers.get(b"x-api-key")
        return key.decode("latin-1") if key else bearer(head)

    def write_refusal(self, refusal: Refusal, request_id: str) -> bytes:
        return write_error(refusal, request_id)

    def refuse_credential(self, given: str | None) -> Refusal:
        return Refusal(401, "x-api-key header is required" if given is None else "invalid x-api-key")

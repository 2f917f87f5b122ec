"""Google's Gemini protocol: its paths, credentials, errors and model list.

Shapes as in https://ai.google.dev/api, and as the official Python client reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs

import orjson

from app.providers.emulator.jobs import Jobs
from app.providers.emulator.protocols.google_embed import BatchEmbed, Embed
from app.providers.emulator.protocols.google_errors import error_object
from app.providers.emulator.protocols.google_generate import CountTokens, Generate
from app.providers.emulator.protocols.google_videos import FileContent, FindOperation, PredictLongRunning
from app.providers.emulator.wire import Found, Head, Lookup, Operation, Refusal, Refused, WireProtocol

_MODELS = re.compile(r"/v1(beta|alpha)?/models(/[^/:]+)?")
_KEY_HEADER = b"x-goog-api-key"
_OPERATION = re.compile(r"/v1(?:beta|alpha)?/(?:models/[^/:]+/)?operations/[^/:]+")
_FILE = re.compile(r"/v1(?:beta|alpha)?/files/[^/:]+:download")
_METHOD = re.compile(r"/v1(?:beta|alpha)?/(?:models|tunedModels)/[^/:]+:(\w+)")


class ListModels(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        return Found(orjson.dumps({"models": [_model(model) for model in models]}))


class FindModel(Lookup):
    def answer(self, head: Head, models: Sequence[str], jobs: Jobs) -> Found:
        name = head.path.rpartition("/")[2]
        if name not in models:
            raise Refused(Refusal(404, f"models/{name} is not found for API version v1beta"))
        return Found(orjson.dumps(_model(name)))


def _model(name: str) -> dict[str, Any]:
    methods = ["generateContent", "countTokens"]
    if "embedding" in name:
        methods = ["embedContent"]
    elif name.startswith("veo"):
        methods = ["predictLongRunning"]
    return {
        "name": f"models/{name}",
        "version": "001",
        "displayName": name.replace("-", " ").title(),
        "inputTokenLimit": 1_048_576,
        "outputTokenLimit": 65_536,
        "supportedGenerationMethods": methods,
    }


class Google(WireProtocol):
    name = "google"
    request_id_header = b"x-request-id"

    def __init__(self) -> None:
        self._methods: dict[str, Operation[Any]] = {
            "generateContent": Generate(streams=False),
            "streamGenerateContent": Generate(streams=True),
            "countTokens": CountTokens(),
            "embedContent": Embed(),
            "batchEmbedContents": BatchEmbed(),
            "predictLongRunning": PredictLongRunning(),
        }

    def route(self, head: Head) -> Operation[Any] | Lookup | None:
        if head.method == "POST":
            method = _METHOD.fullmatch(head.path)
            return None if method is None else self._methods.get(method.group(1))
        if head.method != "GET":
            return None
        if _OPERATION.fullmatch(head.path):
            return FindOperation()
        if _FILE.fullmatch(head.path):
            return FileContent()
        found = _MODELS.fullmatch(head.path)
        # Under /v1 OpenAI lists its models as well; the key's header tells whose client asks.
        if found is None or not (found.group(1) or _KEY_HEADER in head.headers):
            return None
        return FindModel() if found.group(2) else ListModels()

    def credential(self, head: Head) -> str | None:
        key = head.headers.get(_KEY_HEADER)
        if key:
            return key.decode("latin-1")
        return parse_qs(head.query.decode("latin-1")).get("key", [None])[0]

    def write_refusal(self, refusal: Refusal, request_id: str) -> bytes:
        return orjson.dumps({"error": error_object(refusal)})

    def refuse_credential(self, given: str | None) -> Refusal:
        # Google answers a wrong key with 400, and none at all with 403.
        if given is None:
            return Refusal(
                403, "Method doesn't allow unregistered callers. Please use API Key or other form of API key."
            )
        return Refusal(400, "API key not valid. Please pass a valid API key.", code="API_KEY_INVALID")

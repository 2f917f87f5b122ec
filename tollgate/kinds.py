"""Calls of models that do not chat, through the gateway's endpoints: vectors, ranks, images, sound, judgements."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar

from tollgate.chat import Options
from tollgate.records import Image, Judgement, Ranked, Result
from tollgate.steps import Call, Reply, Steps, decimal, gateway_error, json_of, post
from tollgate.transport import Transport

Data = TypeVar("Data")
Vectors = list[list[float]]


class Kinds:
    """Beside their own, these methods take what chat takes: `priority`, `wait_seconds` and `fallbacks`.

    All other parameters go to the model, as OpenAI and, for `rerank`, Cohere name them.
    """

    _transport: Transport

    def embed(self, model_id: str, texts: str | Sequence[str], **parameters: Any) -> Result[Vectors]:
        """A vector for each text, in order."""
        return self._transport.run(_embed(model_id, texts, parameters))

    async def embed_async(self, model_id: str, texts: str | Sequence[str], **parameters: Any) -> Result[Vectors]:
        return await self._transport.run_async(_embed(model_id, texts, parameters))

    def rerank(self, model_id: str, query: str, documents: Sequence[str], **parameters: Any) -> Result[list[Ranked]]:
        """The documents' places in what was given, the most relevant first."""
        return self._transport.run(_rerank(model_id, query, documents, parameters))

    async def rerank_async(
        self, model_id: str, query: str, documents: Sequence[str], **parameters: Any
    ) -> Result[list[Ranked]]:
        return await self._transport.run_async(_rerank(model_id, query, documents, parameters))

    def moderate(self, model_id: str, texts: str | Sequence[str], **parameters: Any) -> Result[list[Judgement]]:
        """A judgement of each text, in order."""
        return self._transport.run(_moderate(model_id, texts, parameters))

    async def moderate_async(
        self, model_id: str, texts: str | Sequence[str], **parameters: Any
    ) -> Result[list[Judgement]]:
        return await self._transport.run_async(_moderate(model_id, texts, parameters))

    def generate_images(self, model_id: str, prompt: str, **parameters: Any) -> Result[list[Image]]:
        return self._transport.run(_generate_images(model_id, prompt, parameters))

    async def generate_images_async(self, model_id: str, prompt: str, **parameters: Any) -> Result[list[Image]]:
        return await self._transport.run_async(_generate_images(model_id, prompt, parameters))

    def speak(self, model_id: str, text: str, *, voice: str, **parameters: Any) -> Result[bytes]:
        """The sound, of the `response_format` that is asked for."""
        return self._transport.run(_speak(model_id, text, voice, parameters))

    async def speak_async(self, model_id: str, text: str, *, voice: str, **parameters: Any) -> Result[bytes]:
        return await self._transport.run_async(_speak(model_id, text, voice, parameters))

    def transcribe(self, model_id: str, audio: bytes, *, filename: str = "audio.wav", **parameters: Any) -> Result[str]:
        """What is said. The end of `filename` tells the sound's format."""
        return self._transport.run(_transcribe(model_id, audio, filename, parameters))

    async def transcribe_async(
        self, model_id: str, audio: bytes, *, filename: str = "audio.wav", **parameters: Any
    ) -> Result[str]:
        return await self._transport.run_async(_transcribe(model_id, audio, filename, parameters))


def _embed(model_id: str, texts: str | Sequence[str], parameters: Mapping[str, Any]) -> Steps[Result[Vectors]]:
    call = _call("/v1/embeddings", {"model": model_id, "input": _list(texts)}, parameters)
    return _invoke(
        call, lambda body: [item["embedding"] for item in sorted(body["data"], key=lambda item: item["index"])]
    )


def _rerank(
    model_id: str, query: str, documents: Sequence[str], parameters: Mapping[str, Any]
) -> Steps[Result[list[Ranked]]]:
    call = _call("/v1/rerank", {"model": model_id, "query": query, "documents": list(documents)}, parameters)
    return _invoke(call, lambda body: [Ranked(one["index"], one["relevance_score"]) for one in body["results"]])


def _moderate(
    model_id: str, texts: str | Sequence[str], parameters: Mapping[str, Any]
) -> Steps[Result[list[Judgement]]]:
    def read(body: Mapping[str, Any]) -> list[Judgement]:
        return [Judgement(one["flagged"], one["categories"], one["category_scores"]) for one in body["results"]]

    return _invoke(_call("/v1/moderations", {"model": model_id, "input": _list(texts)}, parameters), read)


def _generate_images(model_id: str, prompt: str, parameters: Mapping[str, Any]) -> Steps[Result[list[Image]]]:
    def read(body: Mapping[str, Any]) -> list[Image]:
        return [
            Image(None if item.get("b64_json") is None else base64.b64decode(item["b64_json"]), item.get("url"))
            for item in body["data"]
        ]

    return _invoke(_call("/v1/images/generations", {"model": model_id, "prompt": prompt}, parameters), read)


def _speak(model_id: str, text: str, voice: str, parameters: Mapping[str, Any]) -> Steps[Result[bytes]]:
    call = _call("/v1/audio/speech", {"model": model_id, "input": text, "voice": voice}, parameters)
    reply = yield from _answered(call)
    return _result(reply, reply.body, {})


def _transcribe(model_id: str, audio: bytes, filename: str, parameters: Mapping[str, Any]) -> Steps[Result[str]]:
    call = _call("/v1/audio/transcriptions", {"model": model_id}, parameters, {"file": (filename, audio)})
    return _invoke(call, lambda body: str(body["text"]))


def _call(
    path: str,
    body: Mapping[str, Any],
    parameters: Mapping[str, Any],
    files: Mapping[str, tuple[str, bytes]] | None = None,
) -> Call:
    own = {field.name for field in fields(Options)}
    options = Options(**{name: value for name, value in parameters.items() if name in own})
    for_model = {name: value for name, value in parameters.items() if name not in own}
    return Call(path, {**body, **for_model}, options.headers(), options.wait_seconds or 0, files)


def _invoke(call: Call, read: Callable[[Mapping[str, Any]], Data]) -> Steps[Result[Data]]:
    reply = yield from _answered(call)
    body = json_of(reply)
    return _result(reply, read(body), body)


def _answered(call: Call) -> Steps[Reply]:
    reply = yield from post(call)
    if reply.status != 200:
        raise gateway_error(reply)
    return reply


def _result(reply: Reply, data: Data, response: Mapping[str, Any]) -> Result[Data]:
    wait = reply.headers.get("x-tollgate-wait-ms")
    return Result(
        data=data,
        cost=decimal(reply.headers.get("x-tollgate-cost")),
        currency=reply.headers.get("x-tollgate-currency"),
        request_id=reply.headers["x-tollgate-request-id"],
        response=response,
        wait_seconds=None if wait is None else float(wait) / 1000,
    )


def _list(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)

"""Google's embedContent and batchEmbedContents, which report no usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson

from app.providers.emulator.composition import text_tokens
from app.providers.emulator.protocols.google_contents import known, text_of
from app.providers.emulator.protocols.google_generate import model_of
from app.providers.emulator.protocols.reading import objects_of, read_object, size_of, whole_number
from app.providers.emulator.vectors import vector
from app.providers.emulator.wire import Answer, Body, Call, Head, Operation, Usage, bad_request

_FIELDS = frozenset({"model", "content", "taskType", "title", "outputDimensionality", "embedContentConfig"})
_DEFAULT_DIMENSIONS = 3072


@dataclass(slots=True, kw_only=True)
class EmbedCall(Call):
    texts: list[str]
    dimensions: list[int]

    def vectors(self) -> list[dict[str, Any]]:
        pairs = zip(self.texts, self.dimensions, strict=True)
        return [{"values": vector(text, dimensions).tolist()} for text, dimensions in pairs]


class Embed(Operation[EmbedCall]):
    name = "embeddings"

    def read(self, head: Head, body: bytes) -> EmbedCall:
        return _call(head, [read_object(body)])

    def write(self, call: EmbedCall, answer: Answer) -> Body:
        return Body([orjson.dumps({"embedding": call.vectors()[0]})])


class BatchEmbed(Operation[EmbedCall]):
    name = "embeddings"

    def read(self, head: Head, body: bytes) -> EmbedCall:
        requests = objects_of(read_object(body).get("requests"))
        if not requests:
            raise bad_request("* BatchEmbedContentsRequest.requests: requests is not specified")
        return _call(head, requests)

    def write(self, call: EmbedCall, answer: Answer) -> Body:
        return Body([orjson.dumps({"embeddings": call.vectors()})])


def _call(head: Head, requests: list[dict[str, Any]]) -> EmbedCall:
    texts, dimensions = [], []
    for request in requests:
        items = known(request, _FIELDS, "")
        text = text_of(items.get("content"))
        if not text:
            raise bad_request("* EmbedContentRequest.content: contents is not specified")
        texts.append(text)
        dimensions.append(whole_number(items, "outputDimensionality", _DEFAULT_DIMENSIONS, most=_DEFAULT_DIMENSIONS))
    size = sum(map(size_of, texts))
    return EmbedCall(
        model=model_of(head.path),
        prompt_bytes=size,
        last_text=texts[-1],
        serves=Usage(input_tokens=text_tokens(size)),
        texts=texts,
        dimensions=dimensions,
    )

"""OpenAI embeddings and moderations, which both judge a batch of inputs."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import orjson

from app.providers.emulator.composition import text_tokens
from app.providers.emulator.protocols.reading import IMAGE_BYTES, object_of, read_object, size_of, whole_number
from app.providers.emulator.vectors import vector
from app.providers.emulator.wire import Answer, Body, Call, Head, Operation, Usage, bad_request

_DIMENSIONS = {"text-embedding-3-large": 3072}
_DEFAULT_DIMENSIONS = 1536
_MOST_INPUTS = 2048
_CATEGORIES = (
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/instructions",
    "self-harm/intent",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
)
_OF_TEXT_ALONE = frozenset(
    {"harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "sexual/minors"}
)


@dataclass(slots=True, kw_only=True)
class EmbeddingCall(Call):
    texts: list[str]
    dimensions: int
    as_base64: bool


class Embeddings(Operation[EmbeddingCall]):
    name = "embeddings"

    def read(self, head: Head, body: bytes) -> EmbeddingCall:
        request = read_object(body)
        model = _model(request)
        texts, size = _inputs(request.get("input"))
        return EmbeddingCall(
            model=model,
            prompt_bytes=size,
            last_text=texts[-1],
            metadata=object_of(request.get("metadata")),
            serves=Usage(input_tokens=text_tokens(size)),
            texts=texts,
            dimensions=whole_number(request, "dimensions", _DIMENSIONS.get(model, _DEFAULT_DIMENSIONS), most=16_384),
            as_base64=request.get("encoding_format") == "base64",
        )

    def write(self, call: EmbeddingCall, answer: Answer) -> Body:
        data: list[dict[str, Any]] = []
        for index, text in enumerate(call.texts):
            numbers = vector(text, call.dimensions)
            written = base64.b64encode(numbers.tobytes()).decode() if call.as_base64 else numbers.tolist()
            data.append({"object": "embedding", "index": index, "embedding": written})
        body: dict[str, Any] = {"object": "list", "data": data, "model": call.model}
        if answer.report_usage:
            tokens = answer.usage.input_tokens
            body["usage"] = {"prompt_tokens": tokens, "total_tokens": tokens}
        return Body([orjson.dumps(body)])


@dataclass(slots=True, kw_only=True)
class ModerationCall(Call):
    inputs: int


class Moderations(Operation[ModerationCall]):
    """Not billed. The behaviour says what is flagged."""

    name = "moderation"

    def read(self, head: Head, body: bytes) -> ModerationCall:
        request = read_object(body)
        model = request.get("model") or "omni-moderation-latest"
        given = request.get("input")
        if isinstance(given, list) and given and isinstance(given[0], dict):
            # Texts and images in one list are one input.
            text = "".join(str(part.get("text", "")) for part in given if isinstance(part, dict))
            return ModerationCall(model=str(model), prompt_bytes=size_of(text) + IMAGE_BYTES, last_text=text, inputs=1)
        texts, size = _inputs(given)
        return ModerationCall(model=str(model), prompt_bytes=size, last_text=texts[-1], inputs=len(texts))

    def write(self, call: ModerationCall, answer: Answer) -> Body:
        flagged = {name: answer.flagged and name == "violence" for name in _CATEGORIES}
        result = {
            "flagged": answer.flagged,
            "categories": flagged,
            "category_scores": {name: 0.97 if hit else 0.0001 for name, hit in flagged.items()},
            "category_applied_input_types": {
                name: ["text"] if name in _OF_TEXT_ALONE or not answer.flagged else ["text", "image"]
                for name in flagged
            },
        }
        return Body([orjson.dumps({"id": f"modr-{answer.id}", "model": call.model, "results": [result] * call.inputs})])


def _model(request: dict[str, Any]) -> str:
    model = request.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("you must provide a model parameter", "model")
    return model


def _inputs(given: object) -> tuple[list[str], int]:
    """A text, texts, the numbers of tokens, or lists of such; a list of numbers is as long as its tokens."""
    inputs = given if isinstance(given, list) and given and not isinstance(given[0], int) else [given]
    if len(inputs) > _MOST_INPUTS:
        raise bad_request(f"Invalid 'input': at most {_MOST_INPUTS} inputs, not {len(inputs)}.", "input")
    texts, size = [], 0
    for item in inputs:
        if isinstance(item, str) and item:
            texts.append(item)
            size += size_of(item)
        elif isinstance(item, list) and item and all(isinstance(number, int) for number in item):
            texts.append(" ".join(map(str, item)))
            size += 4 * len(item)
        else:
            raise bad_request("Invalid 'input': expected a text, tokens, or an array of such, none empty.", "input")
    return texts, size

"""OpenAI's embeddings, both ways.

Wire format: https://platform.openai.com/docs/api-reference/embeddings (checked 2026-11-20). Providers are asked for
numbers, which all of them know; the SDK asks the gateway for base64 of little-endian 32-bit floats.
"""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from app.errors import InvalidRequest, ValidationError
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, WireRequest, WireResponse
from app.providers.bodies import read_object
from app.providers.dialect import Answered, ClientCall
from app.providers.openai.client_body import in_field, parameters_of, take_metadata, take_text
from app.providers.openai.dialect import WholeAnswers, refuse_streaming
from app.providers.openai.usage import read_input_usage
from app.providers.openai.wire import checked_parameters, invalid_answer, json_request, read_json
from app.providers.operations import EmbeddingOutput, EmbeddingRequest

_encode: Final = msgspec.json.Encoder().encode
_PARAMETERS: Final = frozenset({"dimensions", "encoding_format", "user"})
_RESERVED: Final = frozenset({"input", "model"})


def render_embeddings(call: ModelCall) -> WireRequest:
    request = call.request
    assert isinstance(request, EmbeddingRequest)
    body = checked_parameters(call, _PARAMETERS, _RESERVED, "embeddings")
    if body.setdefault("encoding_format", "float") != "float":
        raise InvalidRequest("encoding_format must be float: vectors are kept as numbers")
    if not request.inputs:
        raise InvalidRequest("inputs must hold at least 1 input")
    # Servers take texts or tokens, not both in one call.
    if len({isinstance(item, str) for item in request.inputs}) != 1:
        raise InvalidRequest("inputs must be all texts or all lists of tokens")
    body["model"] = call.model_id
    body["input"] = request.inputs
    return json_request(call, "/embeddings", body)


class _Vector(Struct):
    embedding: list[float] | str
    index: int | None = None


class _Answer(Struct):
    data: list[_Vector]
    model: str | None = None
    id: str | None = None
    usage: Any = None


_decode: Final = msgspec.json.Decoder(_Answer).decode


def parse_embeddings(call: ModelCall, response: WireResponse) -> ModelResponse:
    request = call.request
    assert isinstance(request, EmbeddingRequest)
    body = read_json(response, _decode, _Answer)
    count = len(request.inputs)
    vectors: dict[int, list[float]] = {}
    for position, item in enumerate(body.data):
        index = position if item.index is None else item.index
        vectors[index] = _numbers(item.embedding, response)
    if len(body.data) != count or sorted(vectors) != list(range(count)):
        raise invalid_answer(f"it has not one vector for each of {count} inputs", response)
    provider_request_id = response.headers.get("x-request-id")
    return ModelResponse(
        output=EmbeddingOutput([vectors[index] for index in range(count)]),
        usage=read_input_usage(body.usage, provider_request_id),
        response_model=body.model,
        response_id=body.id,
        provider_request_id=provider_request_id,
    )


def _numbers(embedding: list[float] | str, response: WireResponse) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    numbers = array("f")
    try:
        numbers.frombytes(base64.b64decode(embedding, validate=True))
    except (ValueError, binascii.Error):
        raise invalid_answer("a vector is no base64 of floats", response) from None
    if sys.byteorder == "big":
        numbers.byteswap()
    if any(number != number or number in (float("inf"), float("-inf")) for number in numbers):
        raise invalid_answer("a vector holds what is no number", response)
    return numbers.tolist()


class OpenAIEmbeddingsDialect(WholeAnswers):
    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        fields = read_object(body)
        model = take_text(fields, "model")
        refuse_streaming(fields)
        inputs = _inputs(fields.pop("input", None))
        encoding = fields.pop("encoding_format", None) or "float"
        if encoding not in ("float", "base64"):
            raise ValidationError("encoding_format", encoding, "float or base64")
        metadata = take_metadata(fields)
        options = {"encoding_format": encoding}
        return ClientCall(model, EmbeddingRequest(inputs), parameters_of(fields), options=options, metadata=metadata)

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        output = response.output
        assert isinstance(output, EmbeddingOutput)
        as_base64 = call.options.get("encoding_format") == "base64"
        body = {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": _base64(vector) if as_base64 else vector}
                for index, vector in enumerate(output.vectors)
            ],
            "model": answered.model,
            "usage": {"prompt_tokens": usage.input_tokens, "total_tokens": usage.total_tokens},
        }
        return _encode(body), "application/json"


def _inputs(value: Any) -> list[str | list[int]]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and isinstance(value[0], int):
        return [in_field("input", value, list[int])]
    inputs = in_field("input", value, list[str | list[int]])
    if not inputs or len({isinstance(item, str) for item in inputs}) != 1:
        raise ValidationError("input", value, "a text, tokens, or a list of either, not empty")
    return inputs


def _base64(vector: list[float]) -> str:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return base64.b64encode(numbers.tobytes()).decode()

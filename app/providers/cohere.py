"""Reranking as Cohere speaks it, and as Jina, vLLM and others do after it; and the gateway's /v1/rerank.

https://docs.cohere.com/reference/rerank, https://jina.ai/reranker and
https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html (2026-11-20)

ours                 | Cohere's
---------------------|---------------------------------------------------------------------------
top_n                | the same
max_tokens_per_doc   | the same (Cohere's own name)
user                 | refused
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from app.errors import InvalidRequest, InvalidResponse, ProviderError, TollgateError
from app.prices.records import Usage
from app.providers.adapter import ModelCall, ModelResponse, StreamReader, WireRequest, WireResponse
from app.providers.bodies import convert, public_message, read_object, retry_headers, status_of
from app.providers.dialect import Answered, ClientCall, EncodedError, StreamWriter
from app.providers.http_errors import error_for_status
from app.providers.operations import Operation, RankedDocument, RerankOutput, RerankRequest
from app.providers.wire import Count, Parameters, decode_answer, plain_error_text, refused

_SAME: Final = {"top_n": "top_n", "max_tokens_per_doc": "max_tokens_per_doc"}
_Units = Annotated[float, Meta(ge=0, lt=2**30)]


class _BilledUnits(Struct):
    search_units: _Units | None = None


class _Tokens(Struct):
    input_tokens: _Units | None = None


class _Meta(Struct):
    billed_units: _BilledUnits | None = None
    tokens: _Tokens | None = None


class _Usage(Struct):
    """Jina's and vLLM's."""

    total_tokens: Count | None = None
    prompt_tokens: Count | None = None


class _Result(Struct):
    index: Count
    relevance_score: float


class _Answer(Struct):
    results: list[_Result]
    id: str | None = None
    model: str | None = None
    meta: _Meta | None = None
    usage: _Usage | None = None


_answer_decoder: Final = msgspec.json.Decoder(_Answer)
_error_decoder: Final[msgspec.json.Decoder[dict[str, Any]]] = msgspec.json.Decoder(dict[str, Any])


class CohereAdapter:
    """The base URL includes the version: "https://api.cohere.com/v2", "https://api.jina.ai/v1"."""

    name: Final = "cohere"
    default_base_url: Final = "https://api.cohere.com/v2"
    operations: Final = frozenset({Operation.RERANK})

    def render(self, call: ModelCall) -> WireRequest:
        request = call.request
        if not isinstance(request, RerankRequest):
            raise refused("operation", f"{type(request).__name__} is not one of Cohere's rerank")
        if call.stream:
            raise refused("stream", "cannot be true in Cohere's rerank")
        parameters = Parameters(call, "Cohere's rerank")
        parameters.refuse_all({"user": None})
        body: dict[str, Any] = {"model": call.model_id, "query": request.query, "documents": request.documents}
        parameters.copy(_SAME, body)
        return WireRequest(
            url=call.base_url.rstrip("/") + "/rerank",
            headers={
                "authorization": f"Bearer {call.credential.get_secret_value()}",
                "content-type": "application/json",
                "accept": "application/json",
                "x-request-id": call.request_id,
            },
            body=msgspec.json.encode({**parameters.rest(), **body}),
        )

    def parse(self, call: ModelCall, response: WireResponse) -> ModelResponse:
        request_id = response.headers.get("x-debug-trace-id") or response.headers.get("x-request-id")
        if not 200 <= response.status < 300:
            raise _error(response, request_id)
        answer = decode_answer(_answer_decoder, response.body, status=response.status, request_id=request_id)
        documents = call.request.documents if isinstance(call.request, RerankRequest) else []
        indexes = [result.index for result in answer.results]
        if len(set(indexes)) != len(indexes) or any(index >= len(documents) for index in indexes):
            raise InvalidResponse(
                "the provider's answer cannot be used: its indexes are not those of the documents",
                http_status=response.status,
                provider_request_id=request_id,
            )
        ranked = [RankedDocument(result.index, result.relevance_score) for result in answer.results]
        return ModelResponse(
            output=RerankOutput(sorted(ranked, key=lambda document: -document.score)),
            usage=_usage(answer),
            response_model=answer.model,
            response_id=answer.id,
            provider_request_id=request_id,
        )

    def stream_reader(self, call: ModelCall) -> StreamReader:
        raise refused("stream", "cannot be true in Cohere's rerank")


def _usage(answer: _Answer) -> Usage | None:
    """Cohere bills searches, others the tokens that they read."""
    searches = answer.meta.billed_units.search_units if answer.meta and answer.meta.billed_units else None
    tokens: float | None = answer.meta.tokens.input_tokens if answer.meta and answer.meta.tokens else None
    if tokens is None and answer.usage is not None:
        tokens = answer.usage.prompt_tokens or answer.usage.total_tokens
    if searches is None and tokens is None:
        return None
    return Usage(input_tokens=math.ceil(tokens or 0), searches=math.ceil(searches or 0))


def _error(response: WireResponse, request_id: str | None) -> ProviderError:
    """Cohere has `message`, Jina `detail`, vLLM `error.message`."""
    message: Any = None
    try:
        body = decode_answer(_error_decoder, response.body)
    except InvalidResponse:
        message = plain_error_text(response)
    else:
        nested = body.get("error")
        message = nested.get("message") if isinstance(nested, dict) else body.get("message") or body.get("detail")
    return error_for_status(
        response.status,
        message if isinstance(message, str) else "",
        headers=response.headers,
        provider_request_id=request_id,
    )


# --- the gateway's side --------------------------------------------------------------------------------------------


class _Document(Struct, forbid_unknown_fields=True):
    text: str


class _Body(Struct, forbid_unknown_fields=True):
    model: Annotated[str, Meta(min_length=1)]
    query: str
    documents: Annotated[list[str | _Document], Meta(min_length=1)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    max_tokens_per_doc: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None
    stream: Literal[False] | None = None


_KNOWN: Final = frozenset(_Body.__struct_fields__)


class RerankDialect:
    """Answers in Cohere's form with Jina's `usage` beside it. Documents come back where `return_documents` asks."""

    def decode(self, body: bytes, headers: Mapping[str, str]) -> ClientCall:
        given = read_object(body)
        read = convert({name: value for name, value in given.items() if name in _KNOWN}, _Body)
        parameters = {name: value for name, value in given.items() if name not in _KNOWN and value is not None}
        for name in _SAME:
            if (value := getattr(read, name)) is not None:
                parameters[name] = value
        documents = [document if isinstance(document, str) else document.text for document in read.documents]
        return ClientCall(
            model=read.model,
            request=RerankRequest(query=read.query, documents=documents),
            parameters=parameters,
            options={"return_documents": bool(read.return_documents)},
        )

    def encode(self, call: ClientCall, response: ModelResponse, usage: Usage, answered: Answered) -> tuple[bytes, str]:
        if not isinstance(response.output, RerankOutput) or not isinstance(call.request, RerankRequest):
            raise InvalidResponse(f"{type(response.output).__name__} is no ranking")
        results: list[dict[str, Any]] = []
        for document in response.output.results:
            result: dict[str, Any] = {"index": document.index, "relevance_score": document.score}
            if call.options.get("return_documents"):
                result["document"] = {"text": call.request.documents[document.index]}
            results.append(result)
        body = {
            "id": answered.request_id,
            "model": answered.model,
            "results": results,
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": usage.searches}},
            "usage": {"prompt_tokens": usage.input_tokens, "total_tokens": usage.total_tokens},
        }
        return msgspec.json.encode(body), "application/json"

    def stream_writer(self, call: ClientCall, answered: Answered) -> StreamWriter:
        raise InvalidRequest("stream cannot be true for reranking")

    def encode_error(self, error: TollgateError) -> EncodedError:
        body = {"message": public_message(error), "code": error.code}
        return EncodedError(status=status_of(error), body=msgspec.json.encode(body), headers=retry_headers(error))

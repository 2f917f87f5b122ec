"""Reranking as Cohere has it, which Jina, vLLM and others follow: https://docs.cohere.com/reference/rerank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from app.providers.emulator.protocols.openai import bearer
from app.providers.emulator.protocols.reading import object_of, read_object, size_of, whole_number
from app.providers.emulator.vectors import relevance
from app.providers.emulator.wire import (
    Answer,
    Body,
    Call,
    Head,
    Lookup,
    Operation,
    Refusal,
    Usage,
    WireProtocol,
    bad_request,
)

_DOCUMENTS_PER_SEARCH = 100
"""What one search unit covers: https://cohere.com/pricing."""
_PATHS = frozenset({"/v2/rerank", "/v1/rerank", "/rerank"})


@dataclass(slots=True, kw_only=True)
class RerankCall(Call):
    documents: Sequence[str]
    most: int
    returns_documents: bool


class Rerank(Operation[RerankCall]):
    name = "rerank"

    def read(self, head: Head, body: bytes) -> RerankCall:
        request = read_object(body)
        for name in ("model", "query"):
            if not isinstance(request.get(name), str) or not request[name]:
                raise bad_request(f"invalid request: {name} must be a non-empty string")
        given = request.get("documents")
        if not isinstance(given, list) or not given:
            raise bad_request("invalid request: list of documents must not be empty")
        documents = [_text(document) for document in given]
        return RerankCall(
            model=request["model"],
            prompt_bytes=size_of(request["query"]) + sum(map(size_of, documents)),
            last_text=request["query"],
            metadata=object_of(request.get("metadata")),
            serves=Usage(searches=-(-len(documents) // _DOCUMENTS_PER_SEARCH)),
            documents=documents,
            most=whole_number(request, "top_n", len(documents)),
            returns_documents=request.get("return_documents") is True,
        )

    def write(self, call: RerankCall, answer: Answer) -> Body:
        scores = [(relevance(call.last_text, document), index) for index, document in enumerate(call.documents)]
        results: list[dict[str, Any]] = []
        for score, index in sorted(scores, key=lambda scored: (-scored[0], scored[1]))[: call.most]:
            result: dict[str, Any] = {"index": index, "relevance_score": score}
            if call.returns_documents:
                result["document"] = {"text": call.documents[index]}
            results.append(result)
        meta: dict[str, Any] = {"api_version": {"version": "2"}}
        if answer.report_usage:
            meta["billed_units"] = {"search_units": answer.usage.searches}
        return Body([orjson.dumps({"id": f"rerank-{answer.id}", "results": results, "meta": meta})])


class Cohere(WireProtocol):
    name = "cohere"
    request_id_header = b"x-debug-trace-id"

    def __init__(self) -> None:
        self._rerank = Rerank()

    def route(self, head: Head) -> Operation[Any] | Lookup | None:
        return self._rerank if head.method == "POST" and head.path in _PATHS else None

    def credential(self, head: Head) -> str | None:
        return bearer(head)

    def write_refusal(self, refusal: Refusal, request_id: str) -> bytes:
        return orjson.dumps({"id": request_id, "message": refusal.message})

    def refuse_credential(self, given: str | None) -> Refusal:
        return Refusal(401, "no api key supplied" if given is None else "invalid api token")


def _text(document: object) -> str:
    if isinstance(document, str):
        return document
    text = object_of(document).get("text")
    return text if isinstance(text, str) else orjson.dumps(document).decode()

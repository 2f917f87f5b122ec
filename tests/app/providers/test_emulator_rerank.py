"""The emulator's reranking."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.emulator import Emulator


def rerank(emulator: Emulator, path: str = "/v2/rerank", key: str = "any", **body: Any) -> httpx.Response:
    asked = {"model": "rerank-v3.5", "query": "red cat", "documents": ["a blue dog", "the red cat", "red"], **body}
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.post(emulator.root() + path, json=asked, headers=headers)


@pytest.mark.parametrize("path", ["/v2/rerank", "/v1/rerank"])
def test_the_best_documents_come_first_and_the_search_is_billed(emulator: Emulator, path: str) -> None:
    answer = rerank(emulator, path).json()
    assert [result["index"] for result in answer["results"]] == [1, 2, 0]
    scores = [result["relevance_score"] for result in answer["results"]]
    assert scores == sorted(scores, reverse=True)
    assert answer["meta"]["billed_units"] == {"search_units": 1}
    (call,) = emulator.record()["calls"]
    assert (call["protocol"], call["operation"], call["searches"], call["input_tokens"]) == ("cohere", "rerank", 1, 0)


def test_only_so_many_are_given_back_with_their_text_if_asked(emulator: Emulator) -> None:
    documents = [{"text": "red cat"}, {"text": "dog"}]
    answer = rerank(emulator, documents=documents, top_n=1, return_documents=True).json()
    assert [(result["index"], result["document"]) for result in answer["results"]] == [(0, {"text": "red cat"})]


def test_each_hundred_documents_are_a_search(emulator: Emulator) -> None:
    assert rerank(emulator, documents=["x"] * 201).json()["meta"]["billed_units"]["search_units"] == 3


def test_errors_have_a_message_alone(emulator: Emulator) -> None:
    assert rerank(emulator, documents=[]).json()["message"] == "invalid request: list of documents must not be empty"
    assert rerank(emulator, key="").status_code == 401
    limited = rerank(emulator, query='red [[emulate {"error": 429, "retry_after": 3}]]')
    assert (limited.status_code, limited.headers["retry-after"]) == (429, "3")
    assert set(limited.json()) == {"id", "message"}
    assert limited.json()["id"] == limited.headers["x-debug-trace-id"]


def test_usage_may_be_missing_or_as_told(emulator: Emulator) -> None:
    emulator.configure(missing_usage=True, searches=7)
    assert "billed_units" not in rerank(emulator).json()["meta"]
    assert emulator.record()["billed"]["searches"] == 7

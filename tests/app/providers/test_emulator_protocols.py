"""What holds for every protocol of the emulator alike: directives, faults and counts; and the values it makes up."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.emulator.multipart import read_form
from app.providers.emulator.schema_sample import sample
from app.providers.emulator.vectors import relevance, vector
from app.providers.emulator.wire import Refused
from tests.emulator import Emulator


@dataclass(frozen=True)
class Wire:
    path: str
    body: dict[str, Any]
    streamed_path: str | None = None
    """None: the body asks for a stream."""

    def post(self, emulator: Emulator, directive: dict[str, Any], *, stream: bool = False) -> httpx.Response:
        body = {**self.body, "stream": True} if stream and self.streamed_path is None else self.body
        path = self.streamed_path if stream and self.streamed_path else self.path
        headers = {
            "authorization": "Bearer any",
            "x-goog-api-key": "any",
            "anthropic-version": "2023-06-01",
            "x-emulate": json.dumps(directive),
        }
        return httpx.post(emulator.root() + path, json=body, headers=headers, timeout=10)


MESSAGES = [{"role": "user", "content": "Hello"}]
WIRES = {
    "chat": Wire("/v1/chat/completions", {"model": "m", "messages": MESSAGES}),
    "responses": Wire("/v1/responses", {"model": "m", "input": "Hello"}),
    "messages": Wire("/v1/messages", {"model": "m", "max_tokens": 100, "messages": MESSAGES}),
    "generate": Wire(
        "/v1beta/models/m:generateContent",
        {"contents": [{"parts": [{"text": "Hello"}]}]},
        "/v1beta/models/m:streamGenerateContent?alt=sse",
    ),
}


@pytest.fixture(params=list(WIRES))
def wire(request: pytest.FixtureRequest) -> Wire:
    return WIRES[request.param]


@pytest.fixture(params=[False, True], ids=["whole", "stream"])
def stream(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_broken_connection(emulator: Emulator, wire: Wire, stream: bool) -> None:
    for fault in ("disconnect", "disconnect_midway"):
        with pytest.raises(httpx.RemoteProtocolError):
            wire.post(emulator, {"fault": fault}, stream=stream)
    assert emulator.record()["outcomes"] == {"failed": 2}


def test_a_body_that_does_not_parse(emulator: Emulator, wire: Wire, stream: bool) -> None:
    response = wire.post(emulator, {"fault": "invalid_json"}, stream=stream)
    assert response.status_code == 200
    texts = (
        [line[6:] for line in response.text.splitlines() if line.startswith("data: ")] if stream else [response.text]
    )
    with pytest.raises(json.JSONDecodeError):
        [json.loads(text) for text in texts if text != "[DONE]"]


def test_an_empty_body(emulator: Emulator, wire: Wire, stream: bool) -> None:
    response = wire.post(emulator, {"fault": "empty_body"}, stream=stream)
    assert (response.status_code, response.content) == (200, b"")


def test_a_huge_body(emulator: Emulator, wire: Wire, stream: bool) -> None:
    response = wire.post(emulator, {"fault": "huge_body", "huge_body_bytes": 1_000_000}, stream=stream)
    assert response.text.count("x" * 1_000_000) >= 1


def test_a_trickle_is_whole_in_the_end(emulator: Emulator, wire: Wire, stream: bool) -> None:
    response = wire.post(emulator, {"fault": "trickle", "trickle_ms": 0, "reply": "slow"}, stream=stream)
    assert "slow" in response.text


def test_a_stream_is_as_paced_as_told_and_has_as_many_chunks(emulator: Emulator, wire: Wire) -> None:
    directive = {"stream_chunks": 5, "reply": "a b c d e ", "chunk_ms": 1, "latency_ms": 1}
    text = wire.post(emulator, directive, stream=True).text
    assert [text.count(f'"{letter} "') for letter in "abcde"] == [1] * 5


def test_a_directive_makes_a_call_to_a_tool(emulator: Emulator, wire: Wire, stream: bool) -> None:
    order = {"name": "weather", "arguments": {"city": "Oslo"}}
    response = wire.post(emulator, {"tool_call": order, "chunk_tokens": 100}, stream=stream)
    assert "weather" in response.text
    assert "Oslo" in response.text


def test_the_record_tells_what_was_served_whether_or_not_it_was_told(
    emulator: Emulator, wire: Wire, stream: bool
) -> None:
    counts = {
        "input_tokens": 100,
        "output_tokens": 50,
        "cached_tokens": 40,
        "cache_write_tokens": 30,
        "reasoning_tokens": 20,
    }
    wire.post(emulator, {**counts, "missing_usage": True}, stream=stream)
    record = emulator.record()
    assert {name: record["calls"][0][name] for name in counts} == counts
    assert {name: record["billed"][name] for name in counts} == counts
    wire.post(emulator, {"error": 500, **counts}, stream=stream)
    assert emulator.record()["billed"]["input_tokens"] == 100


def test_a_hang_ends_when_the_client_gives_up(emulator: Emulator, wire: Wire, stream: bool) -> None:
    with pytest.raises(httpx.ReadTimeout), httpx.Client(timeout=0.1) as http:
        path = wire.streamed_path if stream and wire.streamed_path else wire.path
        headers = {"authorization": "Bearer any", "x-goog-api-key": "any", "anthropic-version": "2023-06-01"}
        http.post(emulator.root() + path, json=wire.body, headers={**headers, "x-emulate": '{"fault": "hang"}'})
    emulator.wait(ended=1)
    assert emulator.record()["outcomes"] == {"abandoned": 1}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "STRING"}, "text"),
        ({"type": ["null", "integer"]}, 1),
        ({"type": "integer", "exclusiveMinimum": 4}, 5),
        ({"type": "number", "maximum": 0.5}, 0.5),
        ({"type": "integer", "minimum": 7, "multipleOf": 5}, 10),
        ({"type": "string", "minLength": 6}, "textxx"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "format": "date"}, "2026-01-31"),
        ({"enum": ["b", "a"]}, "b"),
        ({"const": 3}, 3),
        ({"anyOf": [{"type": "boolean"}, {"type": "null"}]}, True),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"$ref": "#/$defs/A", "$defs": {"A": {"properties": {"b": {"type": "null"}}}}}, {"b": None}),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"b": {"const": 2}}}]}, {"a": 1, "b": 2}),
        ({}, "text"),
    ],
)
def test_a_sample_fits_its_schema(schema: dict[str, Any], value: object) -> None:
    assert sample(schema) == value


def test_a_schema_that_contains_itself_has_a_sample() -> None:
    node: dict[str, Any] = {"properties": {"next": {"$ref": "#"}, "many": {"type": "array", "items": {"$ref": "#"}}}}
    assert isinstance(json.dumps(sample({"type": "object", **node})), str)


@given(st.text(min_size=1), st.integers(min_value=1, max_value=64))
def test_a_vector_has_length_one(text: str, dimensions: int) -> None:
    numbers = vector(text, dimensions)
    assert len(numbers) == dimensions
    assert sum(number * number for number in numbers) == pytest.approx(1, abs=1e-4)


@given(st.text(), st.text())
def test_relevance_is_a_share(query: str, document: str) -> None:
    assert 0 <= relevance(query, document) <= 1


@given(st.binary(), st.text(alphabet=st.characters(codec="ascii", exclude_characters="\r\n")))
def test_a_form_keeps_its_file_and_fields(data: bytes, text: str) -> None:
    request = httpx.Request("POST", "http://x/", data={"model": text}, files={"file": ("a", data)})
    form = read_form(request.headers["content-type"].encode(), request.read())
    assert (form.files, form.fields) == ({"file": data}, {"model": text})


def test_a_body_that_is_no_form_is_refused() -> None:
    with pytest.raises(Refused):
        read_form(b"application/json", b"{}")

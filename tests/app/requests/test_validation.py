"""What a submission may hold: each bound, at it and beyond it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.catalog.snapshot import Snapshot
from app.errors import ValidationError
from app.requests.preparation import Preparation
from app.requests.records import NewRequest, SubmitRequest
from app.requests.validation import (
    MAX_METADATA_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_PRIORITY,
    is_storable_text,
)
from tests.app.catalog import make

NOW = datetime(2026, 3, 1, tzinfo=UTC)
HELLO = [{"role": "user", "content": "Hello"}]
DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]


def validate(**changes: Any) -> NewRequest:
    model = make.model("acme", "chat-1", **changes.pop("of_model", {}))
    snapshot = Snapshot(1, [make.provider("acme", base_url="http://localhost/v1")], [model])
    preparation = Preparation(adapters=["openai"], default_max_output_tokens=1000)
    fields: dict[str, Any] = {"model": "acme:chat-1", "messages": HELLO}
    submission = SubmitRequest(**fields | changes)
    return preparation.prepare(submission, snapshot, workspace_id="default", created_by=None, now=NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"priority": MAX_PRIORITY},
        {"priority": -MAX_PRIORITY},
        {"idempotency_key": "k"},
        {"idempotency_key": "é" * 255},
        {"deadline": NOW + timedelta(microseconds=1)},
        {"metadata": {"a": "x" * (MAX_METADATA_BYTES - 8)}},
        {"metadata": {"backslash": "\\u0000"}},
        {"parameters": {"temperature": 0, "top_p": 1.0, "presence_penalty": -2, "seed": -(2**63), "n": 128}},
        {"parameters": {"max_tokens": 10_000_000}},
        {"parameters": {"max_tokens": None, "temperature": None}},
        {"parameters": {"tools": [{"type": "function"}]}},
        {"parameters": {"max_tokens": 7}, "of_model": {"max_output_tokens": 7}},
        {"messages": None, "input": "Hello"},
        {"messages": [{"role": role, "content": "x"} for role in ("system", "user", "assistant", "tool")]},
    ],
)
def test_what_is_within_bounds_is_taken(changes: dict[str, Any]) -> None:
    assert validate(**changes)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"priority": MAX_PRIORITY + 1}, "priority"),
        ({"priority": -MAX_PRIORITY - 1}, "priority"),
        ({"idempotency_key": ""}, "idempotencyKey"),
        ({"idempotency_key": "k" * 256}, "idempotencyKey"),
        ({"idempotency_key": "a\0b"}, "idempotencyKey"),
        ({"idempotency_key": "a\ud800b"}, "idempotencyKey"),
        ({"deadline": NOW}, "deadline"),
        ({"deadline": NOW - timedelta(days=1)}, "deadline"),
        ({"metadata": {"a": "x" * MAX_METADATA_BYTES}}, "metadata"),
        ({"metadata": {"a": "\0"}}, "metadata"),
        ({"metadata": {"a\0": 1}}, "metadata"),
        ({"metadata": {"a": [1, {"b": "x\0y"}]}}, "metadata"),
        ({"metadata": {"a": 2**64}}, "metadata"),
        ({"metadata": {"a": "\ud800"}}, "metadata"),
        ({"metadata": {"a": DEEP}}, "metadata"),
        ({"metadata": {1: "a"}}, "metadata"),
        ({"parameters": []}, "parameters"),
        ({"parameters": {"stop": "\0"}}, "parameters"),
        ({"parameters": {"model": "other"}}, "parameters.model"),
        ({"parameters": {"messages": []}}, "parameters.messages"),
        ({"parameters": {"input": ""}}, "parameters.input"),
        ({"parameters": {"stream": True}}, "parameters.stream"),
        ({"parameters": {"temperature": 2.1}}, "parameters.temperature"),
        ({"parameters": {"temperature": True}}, "parameters.temperature"),
        ({"parameters": {"temperature": "1"}}, "parameters.temperature"),
        ({"parameters": {"top_p": -0.1}}, "parameters.top_p"),
        ({"parameters": {"frequency_penalty": 3}}, "parameters.frequency_penalty"),
        ({"parameters": {"n": 0}}, "parameters.n"),
        ({"parameters": {"n": 129}}, "parameters.n"),
        ({"parameters": {"max_tokens": 0}}, "parameters.max_tokens"),
        ({"parameters": {"max_tokens": 1.5}}, "parameters.max_tokens"),
        ({"parameters": {"max_tokens": 10_000_001}}, "parameters.max_tokens"),
        ({"parameters": {"max_tokens": 8}, "of_model": {"max_output_tokens": 7}}, "parameters.max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": None}, "messages"),
        ({"input": "Hello"}, "messages"),
        ({"messages": [*HELLO, {"role": "wizard", "content": "x"}]}, "messages[1].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "\0"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "x" * MAX_PAYLOAD_BYTES}]}, "messages"),
        ({"messages": None, "input": "\0"}, "messages"),
        ({"messages": None, "input": ["a"]}, "input"),
        ({"messages": None, "input": "x" * MAX_PAYLOAD_BYTES}, "messages"),
    ],
)
def test_what_is_out_of_bounds_is_refused_by_the_name_of_its_field(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        validate(**changes)
    assert caught.value.field == field
    assert caught.value.bound
    assert len(caught.value.message) < 400


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=3), values, max_size=3))
def test_metadata_that_is_taken_can_be_stored(metadata: dict[str, Any]) -> None:
    def holds_nul(value: Any) -> bool:
        if isinstance(value, dict):
            return any(holds_nul(key) or holds_nul(item) for key, item in value.items())
        return any(map(holds_nul, value)) if isinstance(value, list) else isinstance(value, str) and "\0" in value

    try:
        validate(metadata=metadata)
        taken = True
    except ValidationError:
        taken = False
    if taken:
        assert not holds_nul(metadata)
        orjson.dumps(metadata)
    else:
        assert holds_nul(metadata) or not _is_json(metadata)


def _is_json(value: Any) -> bool:
    try:
        return len(orjson.dumps(value)) <= MAX_METADATA_BYTES
    except TypeError:
        return False


@given(st.text(alphabet=st.characters()))
def test_text_is_storable_exactly_if_the_database_s_encoding_holds_it(text: str) -> None:
    encodable = text.encode(errors="replace").decode() == text
    assert is_storable_text(text) is (encodable and "\0" not in text)

"""Server-sent events are the same however the network cuts them."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import InvalidResponse
from app.providers.sse import EventDecoder, ServerSentEvent

STREAM = (
    "\ufeff: a comment\n\nevent: first\ndata: one\ndata: two\nid: 7\nretry: 3\n\n"
    "data:no space\r\n\r\ndata:  two spaces\r\revent: without data\n\n"
    'data\n\ndata: {"text":"grüße 🦆"}\nunknown: field\n\ndata: not ended'
).encode()
EVENTS = [
    ServerSentEvent("first", "one\ntwo"),
    ServerSentEvent(None, "no space"),
    ServerSentEvent(None, " two spaces"),
    ServerSentEvent(None, ""),
    ServerSentEvent(None, '{"text":"grüße 🦆"}'),
]


def decoded(*pieces: bytes) -> list[ServerSentEvent]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def test_whole_stream_is_read_as_the_standard_says() -> None:
    assert decoded(STREAM) == EVENTS


def test_stream_in_single_bytes_is_the_same() -> None:
    assert decoded(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == EVENTS


@given(st.lists(st.integers(min_value=0, max_value=len(STREAM))))
def test_stream_cut_anywhere_is_the_same(places: list[int]) -> None:
    assert decoded(*cut(STREAM, places)) == EVENTS


@given(st.binary(max_size=200), st.lists(st.integers(min_value=0, max_value=200)))
def test_any_bytes_give_the_same_events_however_they_are_cut(data: bytes, places: list[int]) -> None:
    assert decoded(*cut(data, places)) == decoded(data)


@given(
    st.lists(
        st.tuples(
            st.none() | st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), min_size=1).map(str.strip),
            st.text(st.characters(exclude_characters="\r\n", codec="utf-8")),
        )
    )
)
def test_written_events_are_read_back(events: list[tuple[str | None, str]]) -> None:
    written = "".join(f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n" for name, data in events)
    assert decoded(written.encode()) == [ServerSentEvent(name or None, data) for name, data in events]


def test_event_is_given_as_soon_as_its_blank_line_is_there() -> None:
    decoder = EventDecoder()
    assert decoder.feed(b"data: now\r\n\r") == [ServerSentEvent(None, "now")]
    assert decoder.feed(b"\ndata: later\n\n") == [ServerSentEvent(None, "later")]


@pytest.mark.parametrize(
    "pieces", [[b"data: " + b"x" * 101], [b"data: " + b"x" * 60 + b"\n"] * 2, [b"x" * 60, b"x" * 60]]
)
def test_event_beyond_the_bound_is_an_error(pieces: list[bytes]) -> None:
    decoder = EventDecoder(max_event_bytes=100)
    with pytest.raises(InvalidResponse, match="longer than 100 bytes"):
        for piece in pieces:
            decoder.feed(piece)


def test_many_events_within_the_bound_pass() -> None:
    decoder = EventDecoder(max_event_bytes=100)
    assert len(decoder.feed(b"data: " + b"x" * 60 + b"\n\n")) == 1
    assert len(decoder.feed((b"data: " + b"x" * 60 + b"\n\n") * 1000)) == 1000

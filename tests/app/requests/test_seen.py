"""What a follower has seen, put together with what is left, is the whole answer."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.collect import Collector
from app.providers.messages import Part, Reasoning, Text, ToolCall
from app.providers.operations import (
    ChatOutput,
    Choice,
    Chunk,
    EmbeddingOutput,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    TextDelta,
    ToolCallDelta,
    TranscriptionOutput,
)
from app.requests.seen import Seen

texts = st.text("ab ", max_size=4)
chunks = st.lists(
    st.one_of(
        st.builds(TextDelta, texts, st.integers(0, 1)),
        st.builds(RefusalDelta, texts, st.integers(0, 1)),
        st.builds(ReasoningDelta, texts, choice=st.integers(0, 1)),
        st.builds(ReasoningDelta, st.just(""), st.sampled_from("xy"), choice=st.integers(0, 1)),
        st.builds(ReasoningDelta, st.just(""), st.none(), st.sampled_from("rs"), choice=st.integers(0, 1)),
        st.builds(ToolCallDelta, st.integers(0, 2), st.none(), st.none(), texts, st.integers(0, 1)),
        st.just(StreamStarted("m")),
    ),
    max_size=20,
)


@dataclass
class Whole:
    """What of an answer does not depend on how it was cut into parts."""

    text: str
    reasoning: str
    proofs: frozenset[str | None]
    calls: list[tuple[str, str, str]]
    finish_reason: FinishReason | None


NOTHING = Whole("", "", frozenset(), [], None)


def whole(output: ChatOutput) -> dict[int, Whole]:
    found = {}
    for choice in output.choices:
        thoughts = [part for part in choice.parts if isinstance(part, Reasoning)]
        found[choice.index] = Whole(
            choice.text,
            "".join(part.text for part in thoughts),
            frozenset(proof for part in thoughts for proof in (part.signature, part.redacted)) - {None},
            [(call.id, call.name, call.arguments) for call in choice.tool_calls],
            choice.finish_reason,
        )
    return {index: choice for index, choice in found.items() if choice != NOTHING}


def collected(parts: list[Chunk]) -> ChatOutput:
    collector = Collector()
    for chunk in parts:
        collector.add(chunk)
    output = collector.response().output
    assert isinstance(output, ChatOutput)
    return output


@given(chunks, st.integers(0, 20), st.booleans())
def test_what_was_seen_and_what_is_left_are_the_whole(stream: list[Chunk], count: int, ends: bool) -> None:
    stream = [*stream, *([Finished(FinishReason.STOP)] if ends else [])]
    output = collected(stream)
    seen = Seen()
    seen.add(stream[:count])
    rest = seen.rest_of(output)
    assert rest is not None
    assert whole(collected([*stream[:count], *rest])) == whole(output)


@given(chunks)
def test_nothing_is_left_of_what_was_seen_whole(stream: list[Chunk]) -> None:
    seen = Seen()
    seen.add(stream)
    # A thought without text or proof is no part of the output; nor is there anything to say of it.
    assert seen.rest_of(collected(stream)) == []


HELLO: list[Part] = [Text("Hello")]


@pytest.mark.parametrize(
    ("seen", "parts"),
    [
        ([TextDelta("Hex")], HELLO),
        ([TextDelta("Hello!")], HELLO),
        ([ReasoningDelta("Hm")], HELLO),
        ([TextDelta("Hello", 1)], HELLO),
        ([ToolCallDelta(0, "1", "f")], HELLO),
        ([ToolCallDelta(0, "1", "f")], [ToolCall("2", "f", "{}")]),
        ([ToolCallDelta(0, "1", "f", "[")], [ToolCall("1", "f", "{}")]),
    ],
)
def test_what_is_not_the_beginning_has_no_rest(seen: list[Chunk], parts: list[Part]) -> None:
    follower = Seen()
    follower.add(seen)
    assert follower.rest_of(ChatOutput([Choice(parts)])) is None


def test_other_outputs_than_text_have_no_chunks() -> None:
    assert Seen().rest_of(TranscriptionOutput("Hi")) == [TextDelta("Hi")]
    assert Seen().rest_of(EmbeddingOutput([[1.0]])) == []
    follower = Seen()
    follower.add([TextDelta("H")])
    assert follower.rest_of(EmbeddingOutput([[1.0]])) is None

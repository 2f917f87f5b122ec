"""Chunks become the answer that they are the pieces of."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from app.prices.records import Usage
from app.providers.collect import Collector
from app.providers.messages import Part, Reasoning, Refusal, Text, ToolCall
from app.providers.operations import (
    ChatOutput,
    Choice,
    Chunk,
    Finished,
    FinishReason,
    ReasoningDelta,
    RefusalDelta,
    StreamStarted,
    StreamUsage,
    TextDelta,
    ToolCallDelta,
)


def collected(*chunks: Chunk) -> list[Choice]:
    collector = Collector()
    for chunk in chunks:
        collector.add(chunk)
    output = collector.response().output
    assert isinstance(output, ChatOutput)
    return output.choices


def parts(*chunks: Chunk) -> list[Part]:
    [choice] = collected(*chunks)
    return choice.parts


def test_deltas_of_one_kind_in_a_row_are_one_part() -> None:
    assert parts(TextDelta("a"), TextDelta(""), TextDelta("b"), RefusalDelta("no"), TextDelta("c")) == [
        Text("ab"),
        Refusal("no"),
        Text("c"),
    ]


def test_thought_ends_with_its_signature() -> None:
    assert parts(
        ReasoningDelta("a"),
        ReasoningDelta("b"),
        ReasoningDelta(signature="s"),
        ReasoningDelta("c"),
        ReasoningDelta(redacted="r"),
        ReasoningDelta("d"),
    ) == [Reasoning("ab", signature="s"), Reasoning("c"), Reasoning(redacted="r"), Reasoning("d")]


def test_interleaved_tool_calls_are_told_apart_by_index() -> None:
    assert parts(
        ToolCallDelta(index=4, id="x", name="first"),
        ToolCallDelta(index=9, id="y", name="second", arguments="[1"),
        ToolCallDelta(index=4, arguments="{}"),
        ToolCallDelta(index=9, arguments="]"),
    ) == [ToolCall("x", "first", "{}"), ToolCall("y", "second", "[1]")]


def test_choices_are_told_apart_and_stand_in_order() -> None:
    assert collected(
        TextDelta("b", choice=1),
        TextDelta("a", choice=0),
        Finished(FinishReason.LENGTH, choice=1),
        TextDelta("c", choice=1),
    ) == [
        Choice([Text("a")], index=0),
        Choice([Text("bc")], finish_reason=FinishReason.LENGTH, index=1),
    ]


def test_usage_is_known_when_all_of_it_was_told() -> None:
    collector = Collector()
    collector.add(StreamStarted(response_model="m", response_id="i"))
    collector.add(StreamUsage(Usage(5, 1, estimated=True)))
    assert collector.response().usage is None
    assert collector.usage == Usage(5, 1, estimated=True)
    collector.add(StreamUsage(Usage(5, 9)))
    response = collector.response()
    assert (response.usage, response.response_model, response.response_id) == (Usage(5, 9), "m", "i")


def test_nothing_collected_is_no_choice() -> None:
    assert collected() == []


@given(st.lists(st.text(min_size=1), min_size=1))
def test_text_is_whole(texts: list[str]) -> None:
    assert parts(*map(TextDelta, texts)) == [Text("".join(texts))]

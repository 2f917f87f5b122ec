"""The checker of adherence against one that looks at every instant, and the estimate of what a request may take."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.limits.estimate import estimate_input_tokens, max_output_tokens
from app.limits.records import Start
from app.limits.replay import LimitSetting, Peak, Replay, Violation, replay
from app.providers.messages import Message, Role, Text, Tool, ToolCall
from app.providers.operations import ChatRequest, EmbeddingRequest

BEGIN = datetime(2026, 3, 1, tzinfo=UTC)
WINDOW = timedelta(seconds=10)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def setting(since: float = 0, parallel: int = 100, requests: int = 100, tokens: int | None = None) -> LimitSetting:
    return LimitSetting(at(since), parallel, requests, tokens)


def start(sequence: int, seconds: float, lasts: float | None = None, tokens: int = 1) -> Start:
    return Start("p", sequence, f"r{sequence}", at(seconds), None if lasts is None else at(seconds + lasts), tokens)


def brute_force(starts: list[Start], settings: list[LimitSetting]) -> set[tuple[str, datetime]]:
    """(kind, instant) for each instant of a start at which some limit is exceeded, straight from the definition."""
    found = set()
    for now in {one.started_at for one in starts}:
        limits = [one for one in settings if one.since <= now][-1]
        inside = [one for one in starts if now - WINDOW < one.started_at <= now]
        running = [one for one in starts if one.started_at <= now and (one.ended_at is None or one.ended_at > now)]
        if len(running) > limits.max_parallel:
            found.add(("parallel", now))
        if len(inside) > limits.requests_per_window:
            found.add(("requests", now))
        if limits.tokens_per_window is not None and sum(one.tokens for one in inside) > limits.tokens_per_window:
            found.add(("tokens", now))
    return found


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[Start], list[LimitSetting]]:
    times = draw(st.lists(st.integers(0, 40), max_size=25))
    lasts = st.none() | st.integers(1, 15)
    starts = [
        start(number, second, draw(lasts), draw(st.integers(0, 20))) for number, second in enumerate(sorted(times))
    ]
    small = st.integers(1, 6)
    edits = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    tokens = st.none() | st.integers(1, 60)
    return starts, [setting(since, draw(small), draw(small), draw(tokens)) for since in (0, *edits)]


@given(logs(), st.randoms())
def test_the_replay_finds_exactly_what_the_definition_finds(
    log: tuple[list[Start], list[LimitSetting]], random: Any
) -> None:
    starts, settings = log
    shuffled = list(starts)
    random.shuffle(shuffled)
    found = replay(shuffled, settings, window=WINDOW)
    assert {(violation.kind, violation.at) for violation in found} == brute_force(starts, settings)


@st.composite
def admitted_logs(draw: st.DrawFn) -> tuple[list[Start], list[LimitSetting]]:
    """What an admission lets through that looks at each start by itself; limits are raised and lowered on the way."""
    small = st.integers(1, 4)
    edits = sorted(draw(st.sets(st.integers(1, 40), max_size=3)))
    settings = [setting(since, draw(small), draw(small), draw(st.none() | st.integers(5, 20))) for since in (0, *edits)]
    log: list[Start] = []
    for second in sorted(draw(st.lists(st.integers(0, 50), max_size=40))):
        one = start(len(log) + 1, second, draw(st.none() | st.integers(1, 15)), draw(st.integers(0, 8)))
        if not exceeded_by(log, one, settings):
            log.append(one)
    return log, settings


def exceeded_by(log: list[Start], one: Start, settings: list[LimitSetting]) -> set[str]:
    return {kind for kind, at in brute_force([*log, one], settings) if at == one.started_at}


@given(admitted_logs())
def test_what_a_valid_admission_let_through_exceeds_nothing(log: tuple[list[Start], list[LimitSetting]]) -> None:
    starts, settings = log
    assert replay(starts, settings, window=WINDOW) == []


@given(admitted_logs(), st.data())
def test_a_start_that_should_not_have_been_is_found(
    log: tuple[list[Start], list[LimitSetting]], data: st.DataObject
) -> None:
    starts, settings = log
    candidates = [start(1000, second, 1, 1) for second in range(51)]
    too_many = [one for one in candidates if exceeded_by(starts, one, settings)]
    assume(too_many)
    injected = data.draw(st.sampled_from(too_many))
    assert replay([*starts, injected], settings, window=WINDOW) != []


@given(logs(), st.integers(0, 40))
def test_a_check_from_an_instant_on_finds_what_the_whole_one_finds_from_there(
    log: tuple[list[Start], list[LimitSetting]], second: int
) -> None:
    starts, settings = log
    judge = Replay(settings, window=WINDOW, judged_from=at(second))
    needed = [
        one
        for one in starts
        if one.started_at > at(second) - WINDOW or one.ended_at is None or one.ended_at > at(second)
    ]
    found = [violation for one in needed for violation in judge.add(one)]
    assert found == [one for one in replay(starts, settings, window=WINDOW) if one.at >= at(second)]
    assert judge.starts == sum(one.started_at >= at(second) for one in starts)


def test_the_peak_is_the_most_by_the_limit_of_its_instant() -> None:
    judge = Replay([setting(requests=4, tokens=9), setting(since=20, requests=2)], window=WINDOW)
    for one in (start(1, 0, 1, 5), start(2, 1, 1, 3), start(3, 2, 1), start(4, 20, 1, 100), start(5, 21, 1)):
        judge.add(one)
    assert judge.peaks == {
        "parallel": Peak(at(0), 1, 100),
        "requests": Peak(at(21), 2, 2),
        "tokens": Peak(at(2), 9, 9),
    }
    unlimited = Replay([setting()], window=WINDOW)
    for one in (start(1, 0, 1, 5), start(2, 1, 1, 3)):
        unlimited.add(one)
    assert unlimited.peaks["tokens"] == Peak(at(1), 8, None)


def test_a_log_that_is_not_in_order_is_refused() -> None:
    judge = Replay([setting()], window=WINDOW)
    judge.add(start(1, 5))
    with pytest.raises(ValueError, match="start 2 lies before start 1"):
        judge.add(start(2, 4))


def test_a_window_is_open_at_its_start_and_closed_at_its_end() -> None:
    one = [setting(requests=1)]
    assert replay([start(1, 0, 1), start(2, 10, 1)], one, window=WINDOW) == []
    assert replay([start(1, 0, 1), start(2, 9.999999, 1)], one, window=WINDOW) == [
        Violation("requests", at(9.999999), 2, 1, 2)
    ]


def test_a_call_that_ends_as_another_starts_is_not_beside_it() -> None:
    assert replay([start(1, 0, 5), start(2, 5, 5)], [setting(parallel=1)], window=WINDOW) == []
    found = replay([start(1, 0, 5.000001), start(2, 5, 5)], [setting(parallel=1)], window=WINDOW)
    assert [violation.kind for violation in found] == ["parallel"]


def test_a_lowered_limit_judges_from_its_instant_and_counts_what_was_before() -> None:
    settings = [setting(requests=3), setting(since=5, requests=1)]
    log = [start(1, 0, 1), start(2, 1, 1), start(3, 5, 1)]
    assert replay(log, settings, window=WINDOW) == [Violation("requests", at(5), 3, 1, 3)]


# The estimate ---------------------------------------------------------------

messages = st.lists(st.text().map(lambda text: Message(Role.USER, [Text(text)])), min_size=1, max_size=5)


def size_of(message: Message) -> int:
    [part] = message.parts
    assert isinstance(part, Text)
    return len(part.text.encode())


@given(messages)
def test_an_estimate_is_at_least_a_token_for_two_bytes(written: list[Message]) -> None:
    assert estimate_input_tokens(ChatRequest(written)) >= sum(map(size_of, written)) / 2 + 8 * (len(written) + 1)


@given(messages, messages)
def test_more_messages_never_take_less(first: list[Message], second: list[Message]) -> None:
    assert estimate_input_tokens(ChatRequest(first + second)) > estimate_input_tokens(ChatRequest(first))


def test_tools_schemas_and_tool_calls_count() -> None:
    hello = [Message(Role.USER, [Text("Hello")])]
    base = estimate_input_tokens(ChatRequest(hello))
    tools = [Tool("look_up", "x" * 1000, {"type": "object"})]
    called = [Message(Role.ASSISTANT, [ToolCall("call-1", "look_up", "x" * 1000)])]
    assert estimate_input_tokens(ChatRequest(hello, tools)) >= base + 500
    assert estimate_input_tokens(ChatRequest(hello), {"extra": {"schema": "x" * 1000}}) >= base + 500
    assert estimate_input_tokens(ChatRequest(called)) >= 500
    assert estimate_input_tokens(ChatRequest(hello), {"temperature": 0.5, "max_tokens": 9}) == base


def test_the_output_is_the_caller_s_maximum_else_the_model_s_else_the_default() -> None:
    chat = ChatRequest([])
    assert max_output_tokens(chat, {"max_tokens": 9}, 100, 50) == 9
    assert max_output_tokens(chat, {"max_tokens": None}, 100, 50) == 100
    assert max_output_tokens(chat, {}, None, 50) == 50
    assert max_output_tokens(chat, {"max_tokens": 9, "n": 3}, 100, 50) == 27
    assert max_output_tokens(EmbeddingRequest(["a"]), {}, 100, 50) == 0

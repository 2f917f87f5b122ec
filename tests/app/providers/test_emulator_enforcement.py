"""The sliding window at its boundaries, and the emulator's judgement of real calls."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Sequence
from urllib.parse import urlsplit

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.emulator.enforcement import Enforcement, Kind, Limits
from tests.emulator import Emulator


def arrive(enforcement: Enforcement, now: float, tokens: int = 0) -> list[Kind]:
    breaches = enforcement.judge(now, tokens)
    enforcement.admit(now, tokens)
    enforcement.leave()
    return [breach.kind for breach in breaches]


def test_two_calls_exactly_one_window_apart_are_not_in_one_window() -> None:
    enforcement = Enforcement(Limits(requests=1), window_seconds=60)
    assert arrive(enforcement, 100.0) == []
    assert arrive(enforcement, 160.0) == []


def test_a_call_a_microsecond_early_is_a_violation_that_says_how_early() -> None:
    enforcement = Enforcement(Limits(requests=2), window_seconds=60)
    arrive(enforcement, 100.0)
    arrive(enforcement, 110.0)
    (breach,) = enforcement.judge(159.999999, 0)
    assert (breach.kind, breach.limit, breach.observed) == (Kind.REQUESTS, 2, 3)
    assert breach.early_by_seconds == pytest.approx(0.000001, abs=1e-9)
    assert enforcement.judge(160.0, 0) == []


def test_a_tolerance_shortens_the_window() -> None:
    enforcement = Enforcement(Limits(requests=1), window_seconds=60, tolerance_seconds=0.01)
    arrive(enforcement, 100.0)
    assert arrive(enforcement, 159.99) == []


def test_tokens_fill_the_window_exactly_and_not_one_more() -> None:
    enforcement = Enforcement(Limits(tokens=100), window_seconds=60)
    assert arrive(enforcement, 0.0, 60) == []
    assert arrive(enforcement, 30.0, 40) == []
    (breach,) = enforcement.judge(40.0, 1)
    assert (breach.kind, breach.observed, breach.early_by_seconds) == (Kind.TOKENS, 101, 20.0)
    assert enforcement.judge(60.0, 60) == []


def test_a_call_above_the_token_limit_by_itself_never_fits() -> None:
    (breach,) = Enforcement(Limits(tokens=10), window_seconds=60).judge(0.0, 11)
    assert breach.early_by_seconds is None


def test_parallel_counts_calls_until_they_leave() -> None:
    enforcement = Enforcement(Limits(parallel=1), window_seconds=60)
    enforcement.admit(0.0, 0)
    assert [breach.observed for breach in enforcement.judge(1000.0, 0)] == [2]
    enforcement.leave()
    assert enforcement.judge(1000.0, 0) == []
    assert enforcement.peak_parallel == 1


def test_a_lower_limit_judges_only_later_calls_and_after_the_grace() -> None:
    enforcement = Enforcement(Limits(requests=5), window_seconds=60)
    for second in range(3):
        assert arrive(enforcement, float(second)) == []
    lower = Limits(requests=2)
    enforcement.change(lower, now=3.0, window_seconds=60, tolerance_seconds=0, grace_seconds=1)
    assert arrive(enforcement, 3.5) == []
    assert arrive(enforcement, 4.0) == [Kind.REQUESTS]


def test_a_raised_limit_holds_at_once() -> None:
    enforcement = Enforcement(Limits(requests=1), window_seconds=60)
    arrive(enforcement, 0.0)
    enforcement.change(Limits(), now=1.0, window_seconds=60, tolerance_seconds=0, grace_seconds=0)
    assert arrive(enforcement, 1.0) == []


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 50)), max_size=40),
    st.integers(1, 5),
    st.integers(1, 120),
    st.integers(1, 40),
)
def test_it_finds_what_counting_every_window_anew_finds(
    steps: Sequence[tuple[int, int]], requests: int, tokens: int, window: int
) -> None:
    enforcement = Enforcement(Limits(requests=requests, tokens=tokens), window_seconds=window)
    seen: list[tuple[int, int]] = []
    now = 0
    for step, weight in steps:
        now += step
        seen.append((now, weight))
        inside = [w for at, w in seen if now - window < at]
        expected = [Kind.REQUESTS] * (len(inside) > requests) + [Kind.TOKENS] * (sum(inside) > tokens)
        assert arrive(enforcement, float(now), weight) == expected


@pytest.fixture
async def http(emulator: Emulator) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"authorization": "Bearer any"}
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(base_url=emulator.url(), headers=headers, timeout=10, limits=limits) as client:
        yield client


async def post(http: httpx.AsyncClient, key: str = "k") -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": "x" * 40}], "metadata": {"request_id": key}}
    return await http.post("/chat/completions", json=body)


async def test_calls_within_the_limits_are_no_violation(emulator: Emulator, http: httpx.AsyncClient) -> None:
    emulator.configure(max_parallel=4, requests_per_minute=12, tokens_per_minute=12 * 16, latency_ms=1)
    for _ in range(3):
        responses = await asyncio.gather(*(post(http) for _ in range(4)))
        assert [response.status_code for response in responses] == [200] * 4
    record = emulator.record()
    assert record["violations"] == []
    assert (record["peak_requests"], record["peak_tokens"]) == (12, 12 * 16)
    assert 1 <= record["peak_parallel"] <= 4


async def test_one_call_too_many_is_rejected_and_recorded(emulator: Emulator, http: httpx.AsyncClient) -> None:
    emulator.configure(requests_per_minute=2)
    before = time.time()
    responses = [await post(http, key) for key in ("a", "b", "c")]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert 59 <= float(responses[2].headers["retry-after"]) <= 60
    assert 59_000 <= int(responses[2].headers["retry-after-ms"]) <= 60_000
    assert responses[2].json()["error"]["type"] == "requests"
    record = emulator.record()
    (violation,) = record["violations"]
    assert (violation["kind"], violation["limit"], violation["observed"]) == ("requests", 2, 3)
    assert (violation["key"], violation["provider"]) == ("c", emulator.name())
    assert before - 0.1 <= violation["at"] <= time.time() + 0.1
    assert violation["limit_since"] <= violation["at"]
    assert record["outcomes"] == {"answered": 2, "limited": 1}


async def test_a_rejected_call_takes_no_room_in_the_window(emulator: Emulator, http: httpx.AsyncClient) -> None:
    emulator.configure(tokens_per_minute=20)
    assert [(await post(http)).status_code for _ in range(3)] == [200, 429, 429]
    assert emulator.record()["peak_tokens"] == 16


async def test_a_violation_may_be_recorded_and_served(emulator: Emulator, http: httpx.AsyncClient) -> None:
    emulator.configure(tokens_per_minute=31, enforce="record")
    assert [(await post(http)).status_code for _ in range(2)] == [200, 200]
    record = emulator.record()
    assert [violation["observed"] for violation in record["violations"]] == [32]
    assert record["violation_counts"] == {"tokens": 1}


async def test_too_many_at_once_are_found_and_gone_clients_are_not_counted(
    emulator: Emulator, http: httpx.AsyncClient
) -> None:
    emulator.configure(max_parallel=2, fault="hang")
    hanging = [asyncio.create_task(post(http)) for _ in range(2)]
    await asyncio.to_thread(emulator.wait, running=2)
    rejected = await post(http)
    assert (rejected.status_code, rejected.json()["error"]["type"]) == (429, "parallel")
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    emulator.configure(fault=None)
    assert (await post(http)).status_code == 200
    record = emulator.record()
    assert [violation["kind"] for violation in record["violations"]] == ["parallel"]
    assert record["peak_parallel"] == 2


def test_a_call_sent_just_after_another_was_closed_is_not_parallel_to_it(emulator: Emulator) -> None:
    emulator.configure(max_parallel=1, latency_ms=3_600_000)
    address = urlsplit(emulator.url())
    body = b'{"model": "m", "messages": [{"role": "user", "content": "hi"}]}'
    head = f"POST {address.path}/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer any\r\n"
    call = head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body
    calls = 50
    sockets = [socket.create_connection((address.hostname, address.port)) for _ in range(calls)]
    for number, connection in enumerate(sockets):
        if number:
            sockets[number - 1].close()
        connection.sendall(call)
        emulator.wait(arrivals=number + 1)
    sockets[-1].close()
    emulator.wait(ended=calls)
    assert emulator.record()["violations"] == []


async def test_an_edit_of_the_limits_is_in_the_record(emulator: Emulator, http: httpx.AsyncClient) -> None:
    emulator.configure(requests_per_minute=10)
    for _ in range(3):
        await post(http)
    emulator.configure(requests_per_minute=2)
    assert emulator.record()["violations"] == []
    assert (await post(http)).status_code == 429
    record = emulator.record()
    assert [edit["requests"] for edit in record["limit_edits"]] == [None, 10, 2]
    assert record["violations"][0]["limit_since"] == record["limit_edits"][2]["at"]

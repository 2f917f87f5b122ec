"""Providers that hang, trickle or break off, under the timeouts of their models."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.chaos.aftermath import Trial
from tests.worker_process import WorkerProcess

TIMEOUTS = """
UPDATE llm_models SET connect_timeout_seconds = $1, read_timeout_seconds = $2, total_timeout_seconds = $3
"""


async def _run(trial: Trial, count: int, *, stream: bool) -> dict[str, int]:
    with WorkerProcess(trial.work.dsn):
        await trial.submit(count, stream=stream)
        return dict(await trial.check())


async def _codes(trial: Trial) -> list[str]:
    codes: list[str] = await trial.work.value(
        "SELECT array_agg(DISTINCT error ->> 'code') FROM request_attempts WHERE status = 'FAILED'"
    )
    return codes


@pytest.mark.parametrize("stream", [False, True])
async def test_a_provider_that_hangs_is_left_after_the_model_s_read_timeout(trial: Trial, stream: bool) -> None:
    await trial.work.execute(TIMEOUTS, 5, 0.3, 5)
    trial.work.configure(fault="hang", errors_first=3)
    assert await _run(trial, 4, stream=stream) == {"COMPLETED": 4}
    assert await _codes(trial) == ["TIMEOUT"]
    hung = [call for call in trial.work.record()["calls"] if call["outcome"] == "abandoned"]
    assert len(hung) == 3
    assert all(0.25 <= call["ended"] - call["arrived"] < 3 for call in hung), hung


async def test_a_stream_that_falls_silent_is_charged_what_had_come(trial: Trial) -> None:
    await trial.work.execute(TIMEOUTS, 5, 0.3, 5)
    trial.work.configure(fault="hang_midway", errors_first=3, output_tokens=20)
    assert await _run(trial, 4, stream=True) == {"COMPLETED": 4}
    assert await _codes(trial) == ["TIMEOUT"]
    estimates = await trial.work.value(
        "SELECT count(DISTINCT (request_id, lease_id)) FROM ledger_entries WHERE is_estimated"
    )
    assert estimates == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_trickles_is_left_after_the_model_s_total_timeout(trial: Trial, stream: bool) -> None:
    await trial.work.execute(TIMEOUTS, 5, 5, 0.8)
    trial.work.configure(fault="trickle", errors_first=3, trickle_ms=20, output_tokens=20)
    assert await _run(trial, 4, stream=stream) == {"COMPLETED": 4}
    assert await _codes(trial) == ["TIMEOUT"]
    left = [call for call in trial.work.record()["calls"] if call["outcome"] == "abandoned"]
    assert len(left) == 3
    assert all(0.3 <= call["ended"] - call["arrived"] < 3 for call in left), left


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_breaks_off_is_tried_again(trial: Trial, stream: bool) -> None:
    trial.work.configure(fault="disconnect_midway", errors_first=3, output_tokens=20)
    assert await _run(trial, 4, stream=stream) == {"COMPLETED": 4}
    assert await _codes(trial) == ["CONNECTION_FAILED"]


async def test_a_provider_that_takes_no_connection_is_left_after_the_model_s_connect_timeout(trial: Trial) -> None:
    # An address that answers nothing: of a network that is for documentation (RFC 5737).
    await trial.work.execute("UPDATE llm_providers SET base_url = 'http://192.0.2.1:9/v1'")
    await trial.work.execute(TIMEOUTS, 0.2, 60, 60)
    assert await _run(trial, 1, stream=False) == {"FAILED": 1}
    assert await _codes(trial) == ["CONNECTION_FAILED"]
    longest = await trial.work.value("SELECT max(finished_at - started_at) FROM request_attempts")
    assert longest < timedelta(seconds=5)
    assert trial.work.record()["arrivals"] == 0


async def test_a_clock_that_was_set_back_admits_nothing_too_early_and_holds_nothing_up(trial: Trial) -> None:
    trial.work.configure(latency_ms=(50, 200))
    with trial.worker():
        # What a claim sees after the server's clock was set back: the clock of its last claim is ahead.
        await trial.work.execute("UPDATE limit_states SET clock = clock_timestamp() + interval '3 seconds'")
        ids = await trial.submit(40)
        assert await trial.check() == {"COMPLETED": 40}
    assert {attempt.status for id in ids for attempt in await trial.work.attempts(id)} == {"SUCCEEDED"}

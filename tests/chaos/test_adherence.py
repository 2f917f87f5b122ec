"""A limit is a limit: workers are killed under load and limits are edited, and no window is ever over."""

from __future__ import annotations

import pytest

from app.db.pool import Database
from tests.chaos.adherence import Findings, Limits, Scenario, run_scenario
from tests.emulator import Emulator

SHORT = Scenario(
    before=Limits(max_parallel=6, requests=40, tokens=2000),
    after=Limits(max_parallel=3, requests=30, tokens=1200),
    window_seconds=2,
    delivery_seconds=0.4,
    requests=200,
)
LONG = Scenario(
    before=Limits(max_parallel=12, requests=120, tokens=7000),
    after=Limits(max_parallel=5, requests=60, tokens=3000),
    window_seconds=60,
    delivery_seconds=0.6,
    requests=500,
    kills=60,
    kill_every_seconds=6,
    latency_ms=(100, 3000),
    timeout_seconds=900,
)


def _check(findings: Findings, scenario: Scenario) -> None:
    assert sum(findings.record["violation_counts"].values()) == 0, findings.record["violations"][:5]
    assert findings.replayed(scenario.window_seconds) == []
    assert findings.statuses == {"COMPLETED": scenario.requests}
    assert set(findings.charged_leases.values()) == {1}
    assert findings.lost_attempts > 0, "no kill hit a running call: the scenario proves nothing"
    assert findings.record["peak_parallel"] > scenario.after.max_parallel


async def test_no_limit_is_exceeded_while_workers_are_killed_and_limits_edited(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    _check(await run_scenario(SHORT, database, database_dsn, emulator, seed=20261120), SHORT)


@pytest.mark.soak
async def test_no_limit_is_exceeded_over_many_minutes(
    database: Database, database_dsn: str, emulator: Emulator
) -> None:
    _check(await run_scenario(LONG, database, database_dsn, emulator, seed=7), LONG)

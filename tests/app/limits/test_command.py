"""`tollgate limits` as a process of its own: export, check, and the check of an export."""

from __future__ import annotations

import asyncio
import csv
import json
import subprocess
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.db.pool import Connection
from tests.app.limits.queue import Queue
from tests.catalog_rows import insert_model
from tests.tollgate_process import run_command

NOWHERE = "postgresql://tollgate@127.0.0.1:9/tollgate"
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)

Runs = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
def tollgate(database_dsn: str, tmp_path: Path) -> Runs:
    """Runs the command in an empty directory, on the test's database."""

    async def run(*arguments: str, dsn: str = database_dsn) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(run_command, *arguments, data_dir=tmp_path / "data", DATABASE_URL=dsn)

    return run


async def insert_starts(connection: Connection, provider_id: str, *seconds: float, lasts: float = 1) -> None:
    await connection.execute(
        """
        INSERT INTO provider_starts (provider_id, sequence, request_id, lease_id, started_at, ended_at, reserved_tokens,
                                     settled_tokens)
        SELECT $1, place, 'r' || place, 'l', at, at + $3 * interval '1 second', 100, 7
          FROM unnest($2::timestamptz[]) WITH ORDINALITY AS starts(at, place)
        """,
        provider_id,
        [BEGIN + timedelta(seconds=second) for second in seconds],
        lasts,
    )


def written(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_file()]


async def test_what_was_admitted_is_exported_and_proven(tollgate: Runs, connection: Connection, tmp_path: Path) -> None:
    queue = await Queue.create(connection, at=None, max_parallel=3, requests_per_minute=4, tokens_per_minute=400)
    await queue.submit(9)
    claimed = (await queue.claim()).requests
    await queue.finish(claimed[:1], settled_tokens=10)
    await queue.edit(requests_per_minute=2)
    await insert_model(connection, provider="idle")

    checked = await tollgate("limits", "check")
    assert checked.returncode == 0, checked.stderr
    at = (await connection.fetchval("SELECT max(started_at) FROM provider_starts")).isoformat(timespec="microseconds")
    at = at.replace("+00:00", "Z")
    assert checked.stdout.splitlines() == [
        f"acme: 3 starts from {at} to {at}",
        f"  parallel  3 of 3, at {at}",
        f"  requests  3 of 4, at {at}",
        f"  tokens    210 of 400, at {at}",
        "  no window exceeded a limit",
        "idle: no starts",
    ]
    for arguments in (["-o", "log.ndjson"], ["--format", "csv", "-o", "log.csv"]):
        exported = await tollgate("limits", "export", *arguments)
        assert (exported.returncode, exported.stdout) == (0, ""), exported.stderr
        again = await tollgate("limits", "check", "--file", arguments[-1], dsn=NOWHERE)
        assert (again.returncode, again.stdout) == (0, checked.stdout), again.stderr

    lines = [json.loads(line) for line in (tmp_path / "log.ndjson").read_text().splitlines()]
    assert [(line["kind"], line["provider"]) for line in lines] == [
        *[("limits", "acme")] * 2,
        *[("start", "acme")] * 3,
        ("limits", "idle"),
    ]
    assert [line["requestsPerMinute"] for line in lines[:2]] == [4, 2]
    assert [(line["sequence"], line["settledTokens"], line["endedAt"] is None) for line in lines[2:5]] == [
        (1, 10, False),
        (2, None, True),
        (3, None, True),
    ]
    with (tmp_path / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["requestId"] for row in rows if row["kind"] == "start"] == [line["requestId"] for line in lines[2:5]]


async def test_a_window_over_its_limit_is_an_exit_code_and_a_line(tollgate: Runs, connection: Connection) -> None:
    broken = await insert_model(connection, provider="broken", max_parallel=2, requests_per_minute=3)
    await insert_starts(connection, broken.provider_id, 0, 10, 20, 60, 61, 69.999999, lasts=8.5)
    kept = await insert_model(connection, provider="kept", max_parallel=2, requests_per_minute=3)
    await insert_starts(connection, kept.provider_id, 0, 20, 40, 60, 80)

    ended = await tollgate("limits", "check")
    assert ended.returncode == 1
    assert ended.stdout.splitlines()[:7] == [
        "broken: 6 starts from 2026-03-01T00:00:00.000000Z to 2026-03-01T00:01:09.999999Z",
        "  parallel  2 of 2, at 2026-03-01T00:01:01.000000Z",
        "  requests  5 of 3, at 2026-03-01T00:01:09.999999Z",
        "  tokens    35, not limited, at 2026-03-01T00:01:09.999999Z",
        "  2 times a limit was exceeded:",
        "    2026-03-01T00:01:01.000000Z  start 5: requests 4 of 3",
        "    2026-03-01T00:01:09.999999Z  start 6: requests 5 of 3",
    ]
    assert "kept: 5 starts" in ended.stdout
    only = await tollgate("limits", "check", "kept")
    assert (only.returncode, "broken" in only.stdout) == (0, False)
    wider = await tollgate("limits", "check", "kept", "--window", "2m")
    assert wider.returncode == 1
    assert "start 4: requests 4 of 3" in wider.stdout


async def test_a_part_of_the_log_is_exported_with_what_its_windows_need(
    tollgate: Runs, connection: Connection, tmp_path: Path
) -> None:
    row = await insert_model(connection, max_parallel=2, requests_per_minute=3)
    await insert_starts(connection, row.provider_id, 0, 100, 150, 151, 152, 200)
    since = ["--since", "2026-03-01T00:02:32Z"]
    whole = await tollgate("limits", "export", "acme")
    assert [json.loads(line)["kind"] for line in whole.stdout.splitlines()] == ["limits", *["start"] * 6]
    part = await tollgate("limits", "export", "acme", *since, "--until", "2026-03-01 00:03:20")
    assert [json.loads(line).get("sequence") for line in part.stdout.splitlines()] == [None, 2, 3, 4, 5]
    await tollgate("limits", "export", *since, "-o", "part.ndjson")
    checked = await tollgate("limits", "check", *since)
    assert checked.stdout.startswith("acme: 2 starts from 2026-03-01T00:02:32.000000Z")
    assert checked.returncode == 1
    of_file = await tollgate("limits", "check", "--file", "part.ndjson", *since, dsn=NOWHERE)
    assert (of_file.returncode, of_file.stdout) == (1, checked.stdout)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "nobody"], "no LlmProvider 'nobody'"),
        (["export", "nobody"], "no LlmProvider 'nobody'"),
        (["check", "--since", "lately"], "--since must be an ISO 8601 time, or a whole number of s, m, h, d or w"),
        (["export", "--until", "2026-02-30"], "--until must be an ISO 8601 time, or a whole number"),
        (["check", "--window", "60"], "--window must be a whole number of s, m, h, d or w, such as 90d, not '60'"),
        (["check", "--file", "gone.ndjson"], "gone.ndjson cannot be read: no such file or directory"),
        (["check", "--file", "empty.ndjson"], "empty.ndjson holds no start log"),
        (["check", "--file", "broken.ndjson"], "broken.ndjson:1: this is no line of a start log: "),
        (["check", "other", "--file", "good.ndjson"], "no LlmProvider 'other'"),
        (["export", "-o", "no/where.ndjson"], "no/where.ndjson cannot be written: no such file or directory"),
    ],
)
async def test_a_mistake_ends_with_one_clear_sentence(
    tollgate: Runs, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    (tmp_path / "empty.ndjson").touch()
    (tmp_path / "broken.ndjson").write_text("{}\n")
    (tmp_path / "good.ndjson").write_text(
        '{"kind":"limits","provider":"acme","since":"2026-03-01T00:00:00Z","maxParallelRequests":8,'
        '"requestsPerMinute":2,"tokensPerMinute":null}\n'
    )
    ended = await tollgate("limits", *arguments)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith(f"tollgate: {expected}"), ended.stderr
    assert ended.stderr.count("\n") == 1
    assert {path.suffix for path in written(tmp_path)} == {".ndjson"}

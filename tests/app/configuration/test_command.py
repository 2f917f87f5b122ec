"""The commands as processes of their own: what they print, and how they end."""

from __future__ import annotations

import asyncio
import os
import pty
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from app.configuration.schema import print_schema
from app.db.pool import Database
from tests.app.configuration.conftest import COMMAND, Runs, fetch

FILE = """
providers:
  - name: acme
    displayName: Acme
    limits: {requestsPerMinute: "${ACME_RPM:-60}"}
    models:
      - {modelId: a, displayName: A, isDefault: true, prices: {inputTokens: 0.15, outputTokens: 0.60}}
settings:
  infra_model_summarization: acme:a
"""
Writes = Callable[[str, str], Path]


async def test_plan_then_apply_then_plan_again(tollgate: Runs, write: Writes, database: Database) -> None:
    write("tollgate.yaml", FILE)
    plan = await tollgate("plan", "-f", "tollgate.yaml", "--detailed-exitcode")
    assert plan.code == 2, plan.errors
    assert plan.output.splitlines() == [
        "+ provider acme",
        "    displayName: Acme",
        "    limits.requestsPerMinute: 60",
        "+ model acme:a",
        "    displayName: A",
        "    isDefault: true",
        "    prices.inputTokens: 0.15",
        "    prices.outputTokens: 0.6",
        "+ setting infra_model_summarization",
        "    value: acme:a",
        "Plan: 3 to add, 0 to change, 0 to remove.",
    ]
    assert (await tollgate("plan")).code == 0
    assert await fetch(database, "SELECT 1 FROM llm_providers") == []
    applied = await tollgate("apply", "-f", "tollgate.yaml", "--yes")
    assert (applied.code, applied.output.splitlines()[-1]) == (0, "Applied: 3 added, 0 changed, 0 removed.")
    same = await tollgate("plan", "--detailed-exitcode")
    assert (same.code, same.output) == (0, "Nothing differs: the catalog is as the file says.\n")
    other = await tollgate("apply", environment={"ACME_RPM": "90"})
    assert "    limits.requestsPerMinute: 60 -> 90" in other.output
    assert await fetch(database, "SELECT requests_per_minute FROM llm_providers") == [(90,)]


async def test_a_wrong_file_is_told_apart_from_a_difference(tollgate: Runs, write: Writes) -> None:
    write("tollgate.yaml", "providers:\n- name: acme\n  displayname: Acme\n")
    for arguments, code in ((("plan",), 2), (("apply", "--yes"), 2), (("plan", "--detailed-exitcode"), 1)):
        ended = await tollgate(*arguments)
        assert ended.code == code
        assert ended.errors.splitlines()[-1] == (
            "tollgate: tollgate.yaml:3: providers[acme] has an unknown key 'displayname'; did you mean 'displayName'?"
        )
    missing = await tollgate("plan", "-f", "gone.yaml")
    assert (missing.code, missing.errors.splitlines()[-1]) == (
        2,
        "tollgate: the configuration gone.yaml cannot be read: no such file or directory",
    )


async def test_an_export_is_applied_elsewhere(
    tollgate: Runs, write: Writes, database: Database, tmp_path: Path
) -> None:
    write("tollgate.yaml", FILE)
    await tollgate("apply")
    printed = await tollgate("export")
    assert printed.output.startswith("# yaml-language-server: $schema=tollgate.schema.json\n")
    assert yaml.safe_load(printed.output)["providers"][0]["models"][0]["prices"] == {
        "inputTokens": 0.15,
        "outputTokens": 0.6,
    }
    assert (await tollgate("export", "-o", "exported.yaml")).code == 0
    assert (tmp_path / "exported.yaml").read_text() == printed.output
    assert (await tollgate("plan", "-f", "exported.yaml", "--prune", "--detailed-exitcode")).code == 0
    async with database.connection() as connection:
        await connection.execute("DELETE FROM llm_providers")
        await connection.execute("DELETE FROM system_settings")
    assert (await tollgate("apply", "-f", "exported.yaml")).code == 0
    assert (await tollgate("export")).output == printed.output


async def test_the_schema_is_written_without_a_database(tollgate: Runs, tmp_path: Path) -> None:
    ended = await tollgate(
        "export", "--schema", "-o", "tollgate.schema.json", environment={"DATABASE_URL": "postgresql://127.0.0.1:1/x"}
    )
    assert ended.code == 0
    assert (tmp_path / "tollgate.schema.json").read_text() == print_schema()


async def test_a_file_that_cannot_be_written_is_named(tollgate: Runs) -> None:
    ended = await tollgate("export", "-o", "gone/tollgate.yaml")
    assert ended.code == 2
    assert ended.errors.splitlines()[-1] == "tollgate: gone/tollgate.yaml cannot be written: no such file or directory"


@pytest.mark.parametrize(("answer", "code", "applied"), [("y", 0, True), ("n", 1, False)])
async def test_on_a_terminal_it_shows_the_plan_and_asks(
    database_dsn: str, database: Database, write: Writes, tmp_path: Path, answer: str, code: int, applied: bool
) -> None:
    write("tollgate.yaml", FILE)
    terminal, other_end = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "apply",
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": database_dsn, "NO_COLOR": "1"},
        stdin=other_end,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    os.close(other_end)
    assert process.stdout is not None
    shown = await process.stdout.readuntil(b"Apply this?")
    assert b"+ model acme:a" in shown
    assert await fetch(database, "SELECT 1 FROM llm_providers") == []
    os.write(terminal, answer.encode() + b"\n")
    await process.communicate()
    os.close(terminal)
    assert process.returncode == code
    assert bool(await fetch(database, "SELECT 1 FROM llm_providers")) is applied


async def test_what_changed_while_it_asked_is_not_applied(
    database_dsn: str, database: Database, write: Writes, tmp_path: Path, tollgate: Runs
) -> None:
    write("tollgate.yaml", FILE)
    terminal, other_end = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "apply",
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": database_dsn, "NO_COLOR": "1"},
        stdin=other_end,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    os.close(other_end)
    assert process.stdout is not None
    await process.stdout.readuntil(b"Apply this?")
    write("other.yaml", "providers: [{name: acme, displayName: Meanwhile}]")
    await tollgate("apply", "-f", "other.yaml")
    os.write(terminal, b"y\n")
    output, _ = await process.communicate()
    os.close(terminal)
    assert process.returncode == 2
    assert b"the catalog has changed since the plan was shown: nothing was applied" in output
    assert await fetch(database, "SELECT display_name FROM llm_providers") == [("Meanwhile",)]

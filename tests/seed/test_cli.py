"""The `tollgate seed` command, as a process of its own."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from app.db.pool import Database
from tests.seed.test_reference import fetch

COMMAND = str(Path(sys.executable).with_name("tollgate"))


async def tollgate_seed(dsn: str, *arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        COMMAND,
        "seed",
        *arguments,
        env={**os.environ, "DATABASE_URL": dsn, "NO_COLOR": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


def counts(output: str, kind: str) -> list[int]:
    (line,) = [line for line in output.splitlines() if line.strip("│ ").startswith(kind)]
    return [int(cell) for cell in line.strip("│ ").split("│")[1:]]


async def test_a_dry_run_then_a_seed_then_the_seed_again(database_dsn: str, database: Database) -> None:
    code, output = await tollgate_seed(database_dsn, "--dry-run")
    assert (code, counts(output, "models")) == (0, [17, 0, 0, 0])
    assert "model default/openai:gpt-4o-mini" in output
    assert await fetch(database, "SELECT count(*) FROM llm_models") == [(0,)]
    code, output = await tollgate_seed(database_dsn)
    assert (code, counts(output, "models")) == (0, [17, 0, 0, 0])
    code, output = await tollgate_seed(database_dsn)
    assert (code, counts(output, "models")) == (0, [0, 0, 17, 0])


async def test_an_unknown_source_is_refused(database_dsn: str) -> None:
    code, output = await tollgate_seed(database_dsn, "--from", "nowhere")
    assert code == 2
    assert "genai-prices" in output

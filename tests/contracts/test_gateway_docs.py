"""The gateway's guide can be pasted, and names each path, option and header there is."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import anthropic
import openai

from app.db.pool import Database
from app.gateway.options import KNOWN_OPTIONS
from app.gateway.routes import DIALECTS
from app.gateway.videos import PATH as VIDEOS
from seed import service as seed
from tests.contracts.markdown import REPOSITORY, blocks_of
from tests.emulator import Emulator
from tests.tollgate_process import environment, free_port, tollgate
from tests.worker_process import WorkerProcess

GUIDE = "docs/gateway.md"


async def test_the_guide_can_be_pasted(
    database: Database, database_dsn: str, tmp_path: Path, emulator: Emulator
) -> None:
    await seed.seed_reference(database)
    data_dir, port = tmp_path / ".tollgate", free_port()
    variables = {"DATABASE_URL": database_dsn, "TOLLGATE_EMULATOR_URL": emulator.base_url}
    with (
        tollgate("serve", data_dir=data_dir, TOLLGATE_PORT=str(port), **variables) as process,
        WorkerProcess(database_dsn, **variables),
    ):
        await asyncio.to_thread(process.wait_for, "Tollgate serves at ")
        token = (data_dir / "admin-token").read_text().strip()
        commands = [(block.line, ["bash", "-euc"], block.text) for block in blocks_of(GUIDE, "sh")]
        commands += [(block.line, [sys.executable, "-c"], block.text) for block in blocks_of(GUIDE, "python")]
        for line, command, text in commands:
            ran = await asyncio.to_thread(
                subprocess.run,
                [*command, text.replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
                cwd=tmp_path,
                env=environment(data_dir, TOKEN=token),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert ran.returncode == 0, f"line {line}: {ran.stdout}{ran.stderr}"
            expected = "completed 4" if "videos" in text else "Hello from the emulator."
            assert expected in ran.stdout, f"line {line}: {ran.stdout}{ran.stderr}"
    assert re.search(r"^\w{20,} 0\.0+\d+ USD$", ran.stdout, re.MULTILINE)


def test_the_guide_names_every_path_and_option() -> None:
    text = (REPOSITORY / GUIDE).read_text()
    assert set(re.findall(r"^\| `POST ([\w/]+)`", text, re.MULTILINE)) == {
        *DIALECTS,
        "/v1/messages/count_tokens",
        VIDEOS,
    }
    options = text.partition("## What a call may say")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `x-tollgate-([\w-]+)`", options, re.MULTILINE)) == set(KNOWN_OPTIONS)


def test_the_guide_names_classes_that_the_sdks_have() -> None:
    text = (REPOSITORY / GUIDE).read_text().partition("## Errors")[2]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \| `(\w+)` \|", text, re.MULTILINE)
    assert len(rows) > 5
    for _, of_openai, of_anthropic in rows:
        assert hasattr(openai, of_openai)
        assert hasattr(anthropic, of_anthropic) or hasattr(anthropic._exceptions, of_anthropic)

"""The server audits of npm's graphql-http: conformance with the GraphQL over HTTP specification."""

from __future__ import annotations

import asyncio
import fcntl
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.serving import ADMIN_TOKEN, serve_api

_AUDIT = Path(__file__).parent / "graphql_http"


@pytest.mark.skipif(shutil.which("npm") is None, reason="the audits need node and npm")
async def test_every_audit_of_graphql_http_passes(database_dsn: str, tmp_path: Path) -> None:
    await asyncio.to_thread(_lock_and_run_npm_ci)
    async with serve_api(database_dsn, tmp_path) as api:
        audit = await asyncio.create_subprocess_exec(
            "node", "audit.mjs", f"{api.url}/graphql", ADMIN_TOKEN, cwd=_AUDIT, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await audit.communicate()
    assert audit.returncode == 0
    results = [json.loads(line) for line in output.splitlines()]
    assert [result for result in results if result["status"] != "ok"] == []
    assert len(results) == 61


def _lock_and_run_npm_ci() -> None:
    """Installs what package-lock.json pins, once, however many test processes ask for it."""
    with (_AUDIT / "package-lock.json").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (_AUDIT / "node_modules" / "graphql-http").exists():
            subprocess.run(["npm", "ci", "--ignore-scripts"], cwd=_AUDIT, check=True, capture_output=True)

"""Other gateways, installed by the name of their package into a directory that is kept, and run as processes."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from app.db.pool import Database
from bench.place import free_port, wait_ready

MODEL = "gpt-4o"
LITELLM = "LiteLLM"
PORTKEY = "Portkey"
_LITELLM_VERSION = "1.106.2"
_PORTKEY_VERSION = "1.15.2"
_PORTKEY_SERVER_VERSION = "1.14.1"
"""Of @hono/node-server, of which Portkey takes the newest 1.x. From 1.14.2 on a Response that is made after a fetched
one shares its headers, which are immutable; Portkey appends to them, and answers 500 to every stream:
https://github.com/Portkey-AI/gateway/issues/1389"""
_INSTALLED = "installed"
"""A file that tells what was installed, once that was done."""
_INSTALL_SECONDS = 600
_KEY = "sk-bench-0123456789"


@dataclass(frozen=True, slots=True)
class Gateway:
    """Where chat completions can be had. `pid` None: what runs there is not measured."""

    name: str
    port: int
    path: str
    model: str = MODEL
    token: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    pid: int | None = None
    database: Database | None = None
    version: str = ""


class PeerMissing(Exception):
    """It could not be installed or started; the message says why."""


def peers() -> dict[str, Callable[[str], AbstractAsyncContextManager[Gateway]]]:
    """By name; each takes the base URL of the provider that it passes calls on to."""
    return {LITELLM: litellm, PORTKEY: portkey}


@asynccontextmanager
async def litellm(base_url: str) -> AsyncIterator[Gateway]:
    """Its proxy with one worker and no database."""
    home = _kept("litellm")
    program = home / "bin" / "litellm"
    if _is_outdated(home, _LITELLM_VERSION):
        await _output_of([sys.executable, "-m", "venv", "--clear", str(home)])
        await _output_of([str(home / "bin" / "pip"), "install", "--quiet", f"litellm[proxy]=={_LITELLM_VERSION}"])
        (home / _INSTALLED).write_text(_LITELLM_VERSION)
    port = free_port()
    settings = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {"model": f"openai/{MODEL}", "api_base": base_url, "api_key": "demo"},
            }
        ],
        "general_settings": {"master_key": _KEY},
    }
    configuration = home / "bench.json"
    configuration.write_text(json.dumps(settings))
    environment = {
        **{name: value for name, value in os.environ.items() if name != "DATABASE_URL"},
        # Its table of prices as it comes with the package, not downloaded.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    }
    command = [str(program), "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
    async with _running(command, f"http://127.0.0.1:{port}/health/liveliness", environment, 120) as pid:
        yield Gateway(LITELLM, port, "/v1/chat/completions", token=_KEY, pid=pid, version=_LITELLM_VERSION)


@asynccontextmanager
async def portkey(base_url: str) -> AsyncIterator[Gateway]:
    home = _kept("portkey")
    package = json.dumps(
        {
            "private": True,
            "dependencies": {"@portkey-ai/gateway": _PORTKEY_VERSION},
            "overrides": {"@hono/node-server": _PORTKEY_SERVER_VERSION},
        }
    )
    if _is_outdated(home, package):
        if shutil.which("npm") is None:
            raise PeerMissing("npm is needed")
        shutil.rmtree(home)
        home.mkdir()
        (home / "package.json").write_text(package)
        await _output_of(["npm", "install", "--silent", "--omit=dev", "--prefix", str(home)])
        (home / _INSTALLED).write_text(package)
    port = free_port()
    script = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
    command = ["node", str(script), f"--port={port}", "--headless"]
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": base_url}
    version = f"{_PORTKEY_VERSION} on Node {await _output_of(['node', '--version'])}"
    async with _running(command, f"http://127.0.0.1:{port}/", dict(os.environ), 60) as pid:
        yield Gateway(PORTKEY, port, "/v1/chat/completions", token="demo", headers=headers, pid=pid, version=version)


def _kept(name: str) -> Path:
    given = os.environ.get("TOLLGATE_BENCH_PEERS")
    home = Path(given) if given else Path.home() / ".cache" / "tollgate-bench"
    (home / name).mkdir(parents=True, exist_ok=True)
    return home / name


def _is_outdated(home: Path, wanted: str) -> bool:
    mark = home / _INSTALLED
    return not mark.exists() or mark.read_text() != wanted


async def _output_of(command: list[str]) -> str:
    try:
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, check=False, timeout=_INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PeerMissing(f"{command[0]}: {type(error).__name__}") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["failed"]
        raise PeerMissing(f"{Path(command[0]).name}: {lines[-1]}")
    return done.stdout.decode(errors="replace").strip()


def _start(command: list[str], environment: dict[str, str], output: int | None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)


@asynccontextmanager
async def _running(command: list[str], url: str, environment: dict[str, str], seconds: float) -> AsyncIterator[int]:
    output = None if "BENCH_VERBOSE" in os.environ else subprocess.DEVNULL
    try:
        started = _start(command, environment, output)
    except OSError as error:
        raise PeerMissing(f"{command[0]}: {error.strerror}") from None
    try:
        try:
            await wait_ready(started, url, seconds=seconds)
        except RuntimeError as error:
            raise PeerMissing(str(error)) from None
        yield started.pid
    finally:
        started.terminate()
        try:
            await asyncio.to_thread(started.wait, 15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()

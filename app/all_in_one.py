"""`tollgate run`: the database, its migrations and first seed, the API, one worker and, for a demo, the emulator."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from app.access.service import AdminToken
from app.bootstrap import ensure_admin_token, open_database
from app.config import Config
from app.db.pool import Database
from app.errors import ConfigurationError
from app.serving import bind, serving, url_of
from app.signals import Signals

_RESTART_SECONDS = 1.0

_log = structlog.get_logger(__name__)


async def run_all(config: Config, *, demo: bool, until_stdin_closes: bool = False, tell: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM; a second one does not wait for calls. `tell` gets what a person should read."""
    signals = Signals.of_this_process()
    if until_stdin_closes:
        _watch_stdin(asyncio.get_running_loop(), signals.stop)
    listener = bind(config)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        database = await stack.enter_async_context(open_database(config, size=2))
        if await _is_empty(database):
            await _seed()
        token = await ensure_admin_token(config, database)
        if demo:
            emulator_url = await stack.enter_async_context(_emulator(signals))
            config = config.model_copy(update={"emulator_url": emulator_url})
        await stack.enter_async_context(_kept_running("work", _worker_arguments(config), signals))
        await stack.enter_async_context(serving(config, listener, hurry=signals.hurry))
        tell(_welcome(url_of(listener), config, token))
        await signals.stop.wait()
        tell("Stopping: running calls may end first. Ctrl-C once more does not wait for them.")


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    def readable() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin.fileno())
            stop.set()

    loop.add_reader(sys.stdin.fileno(), readable)


async def _is_empty(database: Database) -> bool:
    async with database.connection() as connection:
        return not await connection.fetchval("SELECT EXISTS (SELECT FROM llm_providers)")


async def _seed() -> None:
    """In a process of its own: the seed is a package that the application does not import."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "app.cli", "seed", "--if-empty")
    if await process.wait() != 0:
        raise ConfigurationError("the catalog could not be seeded; see above")


def _worker_arguments(config: Config) -> list[str]:
    return [] if config.emulator_url is None else ["--emulator-url", config.emulator_url]


@asynccontextmanager
async def _emulator(signals: Signals) -> AsyncIterator[str]:
    """A provider emulator that answers slowly enough to be watched; yields its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "app.cli", "emulate", "--port", "0", "--latency-ms", "300,1500", "--until-stdin-closes"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise ConfigurationError("the provider emulator did not start; see above")
    try:
        yield str(json.loads(line)["url"])
    finally:
        await _end(process, signals)


@asynccontextmanager
async def _kept_running(command: str, arguments: list[str], signals: Signals) -> AsyncIterator[None]:
    """A child that is started again where it ends too early. It sees the end of this process on its stdin.

    In a session of its own, it has nothing of a terminal's Ctrl-C: this process decides who stops when.
    """
    children: dict[str, asyncio.subprocess.Process] = {}

    async def keep() -> None:
        while True:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "app.cli", command, "--until-stdin-closes", *arguments),
                stdin=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
            children[command] = child
            code = await child.wait()
            if signals.stop.is_set():
                return
            _log.error("child_ended", command=command, exit_code=code, restart_seconds=_RESTART_SECONDS)
            await asyncio.sleep(_RESTART_SECONDS)

    task = asyncio.create_task(keep(), name=f"keep {command} running")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if command in children:
            await _end(children[command], signals)


async def _end(process: asyncio.subprocess.Process, signals: Signals) -> None:
    """Lets it end by itself, unless there is hurry: what it had claimed then comes back when its leases run out."""
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    ended = asyncio.create_task(process.wait())
    hurry = asyncio.create_task(signals.hurry.wait())
    await asyncio.wait({ended, hurry}, return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not ended.done():
        process.kill()
    await ended


def _welcome(url: str, config: Config, token: AdminToken) -> str:
    made = f"Admin token (shown this once): {token.token}\n" if token.token is not None else ""
    if config.admin_token is not None:
        place, kept = "$TOLLGATE_ADMIN_TOKEN", ""
    elif token.path is not None:
        place, kept = f"$(cat {shlex.quote(str(token.path))})", f"The admin token is kept in {token.path}\n"
    else:
        place, kept = "$TOKEN", "The database has an admin token already; `tollgate token create NAME` makes another.\n"
    demo = "Calls go to the built-in provider emulator: no key is needed, and nothing is charged.\n"
    keys = "Provider keys are taken from the environment (OPENAI_API_KEY, ...); `--demo` needs none.\n"
    post = f'curl -s {url}/graphql -H "Authorization: Bearer {place}" -H "Content-Type: application/json" -d'
    return (
        f"\nTollgate is ready at {url}\n{made}"
        f"{kept}"
        f"{demo if config.emulator_url else keys}"
        "\nThree things to try:\n"
        f"1. Look at the catalog in a browser: {url}/graphql\n"
        f"2. Submit a request:\n   {post} '{_submit_example()}'\n"
        f"3. See what came of it, and what it cost:\n   {post} '{_requests_example()}'\n\n"
        "Ctrl-C stops everything.\n"
    )


def _submit_example() -> str:
    selection = "__typename ... on ModelRequest { id status } ... on Error { code message }"
    query = (
        'mutation { submitRequest(input: {model: "openai:gpt-4o-mini", '
        f'messages: [{{role: USER, content: "Say hello."}}]}}) {{ {selection} }} }}'
    )
    return json.dumps({"query": query})


def _requests_example() -> str:
    return json.dumps({"query": "{ requests(first: 3) { nodes { id status outputText cost { total currency } } } }"})

"""`tollgate run`: the database, its migrations and first seed, the API, one worker and, for a demo, the emulator."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from app.bootstrap import ensure_admin_token, open_database
from app.config import Config
from app.db.pool import Database
from app.errors import ConfigurationError
from app.serving import bind, serving, url_of

_RESTART_SECONDS = 1.0

_log = structlog.get_logger(__name__)


async def run_all(config: Config, *, demo: bool, tell: Callable[[str], None]) -> None:
    """Until SIGINT or SIGTERM. `tell` gets what a person should read."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    listener = bind(config)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        database = await stack.enter_async_context(open_database(config, size=2))
        if await _is_empty(database):
            await _seed()
        token = await ensure_admin_token(config, database)
        if demo:
            emulator_url = await stack.enter_async_context(_emulator())
            config = config.model_copy(update={"emulator_url": emulator_url})
        await stack.enter_async_context(_kept_running("work", _worker_arguments(config), stop))
        await stack.enter_async_context(serving(config, listener))
        tell(_welcome(url_of(listener), config, is_preset=config.admin_token is not None, token=token.token))
        await stop.wait()
        tell("Stopping: running calls may end first.")


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
async def _emulator() -> AsyncIterator[str]:
    """A provider emulator that answers slowly enough to be watched; yields its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "app.cli", "emulate", "--port", "0", "--latency-ms", "300,1500", "--until-stdin-closes"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line:
        raise ConfigurationError("the provider emulator did not start; see above")
    try:
        yield str(json.loads(line)["url"])
    finally:
        await _end(process)


@asynccontextmanager
async def _kept_running(command: str, arguments: list[str], stop: asyncio.Event) -> AsyncIterator[None]:
    """A child that is started again where it ends before `stop`. It sees the end of this process on its stdin."""
    children: dict[str, asyncio.subprocess.Process] = {}

    async def keep() -> None:
        while True:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "app.cli", command, "--until-stdin-closes", *arguments),
                stdin=asyncio.subprocess.PIPE,
            )
            children[command] = child
            code = await child.wait()
            if stop.is_set():
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
            await _end(children[command])


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        await process.wait()


def _welcome(url: str, config: Config, *, is_preset: bool, token: str | None) -> str:
    place = "$TOLLGATE_ADMIN_TOKEN" if is_preset else f"$(cat {config.data_dir / 'admin-token'})"
    kept = "" if is_preset else f"The admin token is kept in {config.data_dir / 'admin-token'}\n"
    made = f"Admin token (shown this once): {token}\n" if token is not None else ""
    demo = "Calls go to the built-in provider emulator: no key is needed, and nothing is charged.\n"
    keys = "Workers take provider keys from the environment (OPENAI_API_KEY, ...); `--demo` needs none.\n"
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

"""The `tollgate` command. Commands of other packages come in by name, through entry points.

What a command needs is imported when it runs, so that `tollgate --help` answers at once.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from importlib.metadata import entry_points, version
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from app.errors import DatabaseUnavailable, TollgateError

if TYPE_CHECKING:
    from app.config import Config

app = typer.Typer(
    name="tollgate",
    help="A self-hosted LLM catalog and execution plane: limits that hold, costs that are exact.",
    epilog="Begin with: tollgate run --demo. Configured by the environment: TOLLGATE_HOST (127.0.0.1), TOLLGATE_PORT "
    "(8000), TOLLGATE_DATA_DIR (.tollgate), TOLLGATE_ADMIN_TOKEN, DATABASE_URL (without it Tollgate runs a PostgreSQL "
    "of its own). All variables: docs/operations.md.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
tokens = typer.Typer(
    help="Create, list and revoke access tokens.\n\nOnly their hashes are kept, in the database of DATABASE_URL or "
    "else in TOLLGATE_DATA_DIR. Every process that serves from it knows of a change at once.",
    no_args_is_help=True,
)
app.add_typer(tokens, name="token")


class Role(StrEnum):
    ADMIN = "admin"
    OPERATOR = "operator"
    READER = "reader"


def main() -> None:
    """Runs a command. An error that Tollgate knows ends it with one sentence on stderr and exit code 2."""
    _mount_commands()
    try:
        app()
    except TollgateError as error:
        sys.stderr.write(f"tollgate: {error.message}{_whereabouts(error)}\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def _whereabouts(error: TollgateError) -> str:
    """Which server it was that did not answer: its host only, since a URL may hold a password."""
    if not isinstance(error, DatabaseUnavailable) or "DATABASE_URL" in error.message:
        return ""
    try:
        parts = urlsplit(os.environ.get("DATABASE_URL", ""))
        return f" (DATABASE_URL names {parts.hostname}:{parts.port or 5432})" if parts.hostname else ""
    except ValueError:
        return ""


def _mount_commands() -> None:
    from app.configuration.command import apply, discover, export, plan
    from app.limits.command import commands as limits
    from app.providers.emulator.command import emulate
    from app.requests.command import prune

    for entry_point in entry_points(group="tollgate.commands"):
        app.command(entry_point.name)(entry_point.load())
    for command in (plan, apply, export, discover, prune, emulate):
        app.command(command.__name__)(command)
    app.add_typer(limits, name="limits")


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"tollgate {version('tollgate')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """What is common to all commands."""


def _configured() -> Config:
    from app.config import Config
    from app.logs import configure_logs

    config = Config.load()
    configure_logs(config)
    return config


@app.command()
def run(
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Send calls to the built-in provider emulator: no key is needed, nothing is charged."
        ),
    ] = False,
    until_stdin_closes: Annotated[
        bool, typer.Option("--until-stdin-closes", help="Stop when the process that started this one is gone.")
    ] = False,
) -> None:
    """Run everything on this machine: database, migrations, first seed, API and worker.

    Without DATABASE_URL it runs a PostgreSQL of its own in TOLLGATE_DATA_DIR.
    The first start makes an admin token, and prints it and where it is kept.

    Without any provider's key:  tollgate run --demo

    With keys:  OPENAI_API_KEY=... tollgate run

    Ctrl-C lets running calls end (TOLLGATE_DRAIN_SECONDS) and stops all of it;
    another Ctrl-C does not wait. After a crash the next start recovers.
    """
    config = _configured()
    import uvloop

    from app.all_in_one import run_all

    uvloop.run(run_all(config, demo=demo, until_stdin_closes=until_stdin_closes, tell=typer.echo))


@app.command()
def serve() -> None:
    """Serve the API only: GraphQL at /graphql, the gateway at /v1, health at /healthz, metrics at /metrics.

    Start one on each machine that should answer clients, and `tollgate work`
    where the queue should be run. They meet in the database of DATABASE_URL:

    DATABASE_URL=postgresql://user:password@host/database tollgate serve

    Calls of the gateway are run here, with provider keys from the environment
    (OPENAI_API_KEY, ...). It brings the schema up to date first. SIGTERM lets
    running calls end (TOLLGATE_DRAIN_SECONDS); a second one does not wait.
    """
    config = _configured()
    import uvloop

    uvloop.run(_serve(config, typer.echo))


async def _serve(config: Config, tell: Callable[[str], None]) -> None:
    from app.bootstrap import ensure_admin_token, open_database
    from app.serving import bind, serving, url_of
    from app.signals import Signals

    signals = Signals.of_this_process()
    listener = bind(config)
    try:
        async with open_database(config, size=2) as database:
            token = await ensure_admin_token(config, database)
            async with serving(config, listener, hurry=signals.hurry):
                if token.token is not None:
                    tell(f"Admin token (shown this once): {token.token}\nIt is kept in {token.path}")
                tell(f"Tollgate serves at {url_of(listener)}")
                await signals.stop.wait()
    finally:
        listener.close()


@app.command()
def migrate() -> None:
    """Bring the database's schema up to date, and say what was applied.

    Every other command does so too: this one is for those who want it done
    beforehand, by itself. Safe to run from several machines at once. A migration
    that was edited after it was applied, or is missing here, is refused.
    """
    config = _configured()
    asyncio.run(_migrate(config, typer.echo))


async def _migrate(config: Config, tell: Callable[[str], None]) -> None:
    from app.bootstrap import open_database
    from app.db.migrate import migrate as apply

    async with open_database(config, size=2, migrated=False) as database:
        applied = await apply(database)
    for name in applied:
        tell(f"applied {name}")
    tell("The schema is up to date.")


@tokens.command("create")
def create_token(
    name: Annotated[str, typer.Argument(help="What it is for, such as the name of the program that will use it.")],
    role: Annotated[
        Role, typer.Option(help="admin: everything. operator: submit requests, and read. reader: read.")
    ] = Role.READER,
    expires_in_days: Annotated[float | None, typer.Option(min=0.001, help="By default it does not expire.")] = None,
) -> None:
    """Create an access token and print it, this once: only its hash is stored.

    For a program that submits requests:  tollgate token create my-app --role operator
    """
    from app.access.records import AccessRole
    from app.bootstrap import open_database

    expires_at = datetime.now(UTC) + timedelta(days=expires_in_days) if expires_in_days is not None else None

    async def create(config: Config) -> str:
        from app.access.service import AccessService

        async with open_database(config, size=2) as database:
            return (await AccessService(database).create(name, AccessRole[role.name], expires_at=expires_at)).token

    typer.echo(asyncio.run(create(_configured())))


@tokens.command("list")
def list_tokens() -> None:
    """List the access tokens, oldest first, with the expired and the revoked.

    The tokens themselves are not known: their first characters tell them apart.
    """
    from rich.console import Console
    from rich.table import Table

    from app.access.records import AccessToken
    from app.bootstrap import open_database

    async def read(config: Config) -> tuple[AccessToken, ...]:
        from app.access.service import AccessService

        async with open_database(config, size=2) as database:
            return await AccessService(database).list()

    table = Table("id", "name", "role", "token", "expires", "revoked")
    for row in asyncio.run(read(_configured())):
        table.add_row(
            row.id,
            row.name,
            row.role.lower(),
            f"{row.token_prefix}…",
            row.expires_at.isoformat(timespec="seconds") if row.expires_at else "never",
            row.revoked_at.isoformat(timespec="seconds") if row.revoked_at else "",
        )
    Console().print(table)


@tokens.command("revoke")
def revoke_token(id: Annotated[str, typer.Argument(help="The token's id, as `tollgate token list` shows it.")]) -> None:
    """Revoke an access token, at once and in every process.

    Open subscriptions of it are closed. There is no way back: create another.
    """
    from app.bootstrap import open_database

    async def revoke(config: Config) -> str:
        from app.access.service import AccessService

        async with open_database(config, size=2) as database:
            return (await AccessService(database).revoke(id)).name

    typer.echo(f"revoked {asyncio.run(revoke(_configured()))}")


if __name__ == "__main__":
    main()

"""The commands of configuration as code: plan, apply, export and discover."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.errors import TollgateError

if TYPE_CHECKING:
    from rich.console import Console

    from app.config import Config
    from app.configuration.records import Document, Plan

_File = Annotated[Path, typer.Option("--file", "-f", help="The configuration; files that it includes come with it.")]
_Prune = Annotated[
    bool,
    typer.Option(
        "--prune",
        help="Also delete what the file does not name, in each section that it has; models that requests refer to "
        "are deprecated instead.",
    ),
]
_DIFFERENT = 2
_FAILED = 1
_DEFAULT = Path("tollgate.yaml")


def plan(
    file: _File = _DEFAULT,
    prune: _Prune = False,
    detailed_exitcode: Annotated[
        bool, typer.Option("--detailed-exitcode", help="Exit with 0: nothing differs, 1: an error, 2: it differs.")
    ] = False,
) -> None:
    """Show what `tollgate apply` would change: + new, ~ changed, - removed.

    Changes nothing itself: review its output, then apply the same file.
    """
    try:
        config, document = _prepare(file)
        made = asyncio.run(_plan(config, document, prune))
    except TollgateError as error:
        if not detailed_exitcode:
            raise
        sys.stderr.write(f"tollgate: {error.message}\n")
        raise typer.Exit(_FAILED) from None
    _print(made)
    if made.changes and detailed_exitcode:
        raise typer.Exit(_DIFFERENT)


def apply(
    file: _File = _DEFAULT,
    prune: _Prune = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask. Without a terminal nobody is asked.")] = False,
) -> None:
    """Make the catalog as the file says, in one transaction.

    What the file leaves out stays as it is. On a terminal it shows the plan
    and asks first; if the catalog changes in between, nothing is applied.
    """
    config, document = _prepare(file)
    raise typer.Exit(asyncio.run(_apply(config, document, prune, ask=not yes and sys.stdin.isatty())))


def export(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="By default it is printed.")] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Write the JSON Schema of configuration files instead, for editors.")
    ] = False,
) -> None:
    """Write the catalog as a configuration file, which `tollgate plan` finds no difference to.

    For an editor that knows the fields, put the schema beside it:

    tollgate export --schema -o tollgate.schema.json
    """
    from app.configuration.schema import print_schema

    _write(print_schema() if schema else asyncio.run(_export(_configured())), output)


def discover(
    provider: Annotated[str, typer.Argument(help="The provider's name in the catalog.")],
    write: Annotated[
        Path | None, typer.Option("--write", help="A file that is not there yet; by default it is printed.")
    ] = None,
) -> None:
    """Ask a provider for its own list of models, and propose what the catalog lacks.

    Needs the provider's key in the environment, such as OPENAI_API_KEY.
    Changes nothing: add prices to what it writes, then `tollgate apply`.
    """
    if write is not None and write.exists():
        raise typer.BadParameter(f"{write} is there already", param_hint="--write")
    text, summary = asyncio.run(_discover(_configured(), provider))
    _write(text, write)
    typer.echo(summary, err=True)


def _configured() -> Config:
    from app.config import Config
    from app.logs import configure_logs

    config = Config.load()
    configure_logs(config)
    return config


def _prepare(file: Path) -> tuple[Config, Document]:
    from app.configuration.files import load

    config = _configured()
    return config, load(file)


async def _plan(config: Config, document: Document, prune: bool) -> Plan:
    from app.bootstrap import open_database
    from app.configuration.service import ConfigurationService

    async with open_database(config, size=2) as database:
        return await ConfigurationService(database).plan(document, prune=prune)


async def _apply(config: Config, document: Document, prune: bool, *, ask: bool) -> int:
    from app.bootstrap import open_database
    from app.configuration.service import ConfigurationService

    async with open_database(config, size=2) as database:
        service = ConfigurationService(database)
        shown = None
        if ask:
            shown = await service.plan(document, prune=prune)
            _print(shown)
            if not shown.changes:
                return 0
            if not await asyncio.to_thread(typer.confirm, "Apply this?"):
                typer.echo("Nothing was applied.")
                return _FAILED
        applied = await service.apply(document, prune=prune, shown=shown)
    if shown is None:
        _print(applied, applied=True)
    else:
        typer.echo("Applied.")
    return 0


async def _export(config: Config) -> str:
    from app.bootstrap import open_database
    from app.configuration.service import ConfigurationService

    async with open_database(config, size=2) as database:
        return await ConfigurationService(database).export()


async def _discover(config: Config, name: str) -> tuple[str, str]:
    from app.bootstrap import open_database
    from app.catalog.records import DEFAULT_WORKSPACE
    from app.configuration.discovery import propose, write_proposal
    from app.configuration.listing import list_models
    from app.configuration.service import ConfigurationService
    from app.credentials.environment import EnvironmentCredentials
    from app.errors import ConfigurationError, NotFound
    from app.execution.steps import CatalogEndpoints, EmulatorEndpoints
    from app.providers.registry import ADAPTERS

    async with open_database(config, size=2) as database:
        snapshot = await ConfigurationService(database).snapshot()
    provider = snapshot.provider_by_name(DEFAULT_WORKSPACE, name)
    if provider is None:
        raise NotFound("LlmProvider", name)
    emulator = EmulatorEndpoints(config.emulator_url) if config.emulator_url is not None else None
    adapter = provider.adapter
    known = ADAPTERS.get(adapter)
    base_url = None if known is None else (emulator or CatalogEndpoints()).base_url(provider, known)
    if base_url is None:
        raise ConfigurationError(f"provider {name!r} has no base URL to ask")
    credential = (emulator or EnvironmentCredentials()).for_provider(name)
    present = snapshot.models_of(provider.id)
    proposal = propose(await list_models(adapter, base_url, credential), present)
    summary = f"{name}: {len(proposal.new)} new, {len(proposal.gone)} of the catalog's not listed"
    return write_proposal(name, proposal), summary


def _print(plan: Plan, *, applied: bool = False) -> None:
    from app.configuration.report import print_plan

    print_plan(_console(), plan, applied=applied)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)


def _write(text: str, output: Path | None) -> None:
    """A file is replaced whole, or not at all."""
    from app.errors import ConfigurationError

    if output is None:
        sys.stdout.write(text)
        return
    unfinished = output.with_name(output.name + ".unfinished")
    try:
        unfinished.write_text(text)
        unfinished.replace(output)
    except OSError as error:
        raise ConfigurationError(f"{output} cannot be written: {(error.strerror or str(error)).lower()}") from None
    typer.echo(f"wrote {output}", err=True)

"""The `tollgate seed` command."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from app.db.pool import Database
    from seed.plan import Plan


class SeedSource(StrEnum):
    REFERENCE = "reference"
    GENAI_PRICES = "genai-prices"


def seed(
    source: Annotated[
        SeedSource,
        typer.Option(
            "--from",
            help="reference: six providers with 17 models, their limits, and settings to start with. "
            "genai-prices: every provider and model that the installed genai-prices package knows.",
        ),
    ] = SeedSource.REFERENCE,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be written, row by row, and write nothing.")
    ] = False,
    if_empty: Annotated[
        bool, typer.Option("--if-empty", help="Do nothing where the catalog has a provider already.")
    ] = False,
) -> None:
    """Fill the catalog with providers, models, prices and settings.

    Safe to run again at any time, in one transaction: it writes what is new
    at the source, and leaves alone what you edited, deleted or made yourself.
    A price that the source does not know is unknown: never taken for zero.

    See what it would do:  tollgate seed --dry-run

    All that is known of:  tollgate seed --from genai-prices
    """
    asyncio.run(_run(source, dry_run=dry_run, if_empty=if_empty))


async def _run(source: SeedSource, *, dry_run: bool, if_empty: bool) -> None:
    # Imported here, so that `tollgate --help` need not wait for it.
    from rich.console import Console

    from app import bootstrap
    from app.config import Config
    from seed import report
    from seed.service import is_empty

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    async with bootstrap.open_database(Config.load()) as database:
        if if_empty and not await is_empty(database):
            console.print("The catalog is not empty: nothing seeded.")
            return
        plan = await _seed(database, source, dry_run, console)
    if dry_run:
        report.print_plan(console, plan)
    report.print_counts(console, plan, dry_run=dry_run)
    if not dry_run:
        report.print_kept(console, plan)


async def _seed(database: Database, source: SeedSource, dry_run: bool, console: Console) -> Plan:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from seed import service

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=dry_run or not console.is_terminal) as bar:
        task = bar.add_task(f"Seeding from {source}", total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if source is SeedSource.GENAI_PRICES:
            return await service.seed_genai_prices(database, dry_run=dry_run, progress=advance)
        return await service.seed_reference(database, dry_run=dry_run, progress=advance)

"""The command of retention: `tollgate prune`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from app.durations import parse_duration

if TYPE_CHECKING:
    from datetime import timedelta

    from app.config import Config
    from app.requests.pruning import Pruned


def prune(
    older_than: Annotated[
        str,
        typer.Option("--older-than", help="What ended so long ago: 90d, 12w, 36h. At least 1h.", show_default=False),
    ],
    keep_requests: Annotated[
        bool, typer.Option("--keep-requests", help="Delete from the start log only, and keep requests and attempts.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count what would be deleted, and delete nothing.")
    ] = False,
    batch: Annotated[int, typer.Option("--batch", min=1, max=100_000, help="Rows of one transaction.")] = 5000,
) -> None:
    """Delete requests that ended long ago, with their attempts, inputs and outputs, and the starts of their calls.

    What calls cost stays: the ledger is not touched, and summaries of usage
    stay the same. What waits or runs stays, and so do starts that a limit
    still counts. An idempotency key is free again when its request is gone:
    keep requests for longer than clients may submit them again.

    It can run beside everything else, in short transactions; what was deleted
    stays deleted when it is interrupted. From cron, each night:

    0 3 * * * tollgate prune --older-than 90d
    """
    age = parse_duration(older_than, "--older-than", at_least="1h")
    from app.config import Config
    from app.logs import configure_logs

    config = Config.load()
    configure_logs(config)
    pruned = asyncio.run(_prune(config, age, keep_requests=keep_requests, dry_run=dry_run, batch=batch))
    typer.echo(f"{'Would delete' if dry_run else 'Deleted'} {_summary(pruned)}.")


async def _prune(config: Config, age: timedelta, *, keep_requests: bool, dry_run: bool, batch: int) -> Pruned:
    from rich.console import Console

    from app.bootstrap import open_database
    from app.requests.pruning import PruningService

    async with open_database(config, size=2) as database:
        # Shown on a terminal only.
        with Console(stderr=True).status("Pruning") as status:
            return await PruningService(database).prune(
                age,
                keep_requests=keep_requests,
                dry_run=dry_run,
                batch=batch,
                tell=lambda pruned: status.update(f"Pruning {_summary(pruned)}"),
            )


def _summary(pruned: Pruned) -> str:
    before = pruned.before.isoformat(timespec="seconds").replace("+00:00", "Z")
    counts = f"requests {pruned.requests:,}, attempts {pruned.attempts:,}, starts {pruned.starts:,}"
    return f"what ended before {before}: {counts}"

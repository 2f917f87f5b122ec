"""The `tollgate` command. Commands of other packages come in by name, through entry points."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from importlib.metadata import entry_points
from typing import Any

import typer

from app.errors import TollgateError

app = typer.Typer(
    name="tollgate",
    help="A self-hosted LLM catalog and execution plane: limits that hold, costs that are exact.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main() -> None:
    """Runs a command. An error that Tollgate knows ends it with one sentence on stderr and exit code 2."""
    for entry_point in entry_points(group="tollgate.commands"):
        app.command(entry_point.name)(entry_point.load())
    try:
        app()
    except TollgateError as error:
        sys.stderr.write(f"tollgate: {error.message}\n")
        raise SystemExit(2) from None


def run_async(main: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    asyncio.run(main())


if __name__ == "__main__":
    main()

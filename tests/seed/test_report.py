"""What `tollgate seed` prints."""

from __future__ import annotations

import io

import typer
from rich.console import Console
from typer.testing import CliRunner

from seed import report
from seed.cli import seed
from seed.plan import Catalog, Identity, Item, Kind, Source, decide
from seed.reference import load_reference

PROVIDER = Identity(Kind.PROVIDER, "default/acme")


def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(target: Console) -> str:
    assert isinstance(target.file, io.StringIO)
    return target.file.getvalue()


def cells(target: Console) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("│┃ ").split("│")] for line in printed(target).splitlines()]


def test_counts_are_given_by_kind() -> None:
    output = console()
    report.print_counts(output, decide(Source.REFERENCE, load_reference(), Catalog()), dry_run=False)
    assert ["models", "17", "0", "0", "0"] in cells(output)
    assert ["total", "24", "0", "0", "0"] in cells(output)


def test_a_dry_run_says_per_row_what_changes_and_what_stays_and_why() -> None:
    output = console()
    first = decide(Source.REFERENCE, [Item(PROVIDER, {"display_name": "Acme", "requests_per_minute": 60})], Catalog())
    (action,) = first.actions
    assert action.record is not None
    present = {"display_name": "Acme [ours]", "requests_per_minute": 60}
    catalog = Catalog({PROVIDER: present}, {PROVIDER: action.record})
    wanted = [
        Item(PROVIDER, {"display_name": "ACME", "requests_per_minute": 90}),
        Item(Identity(Kind.MODEL, "default/acme:m[1]"), {"display_name": "M", "description": None}, PROVIDER),
    ]
    report.print_plan(output, decide(Source.REFERENCE, wanted, catalog))
    rows = cells(output)
    assert [
        "update",
        "provider default/acme",
        "display_name: Acme [ours] stays, not ACME (edited by an operator)",
    ] in rows
    assert ["requests_per_minute: 60 -> 90"] in rows
    assert ["create", "model default/acme:m[1]", "display_name: M, description: unknown"] in rows


def test_kept_rows_are_named_with_the_reason() -> None:
    output = console()
    catalog = Catalog({PROVIDER: {"display_name": "Mine"}})
    report.print_kept(output, decide(Source.REFERENCE, [Item(PROVIDER, {"display_name": "Acme"})], catalog))
    assert printed(output) == "kept default/acme: made by an operator\n"


def test_help_teaches_both_sources_and_the_dry_run() -> None:
    application = typer.Typer()
    application.command()(seed)
    result = CliRunner().invoke(application, ["--help"], env={"COLUMNS": "160", "NO_COLOR": "1"})
    assert result.exit_code == 0
    assert all(word in result.output for word in ("--from", "genai-prices", "--dry-run", "never taken for zero"))

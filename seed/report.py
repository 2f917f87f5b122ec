"""A plan, printed: the counts by kind, and for a dry run each row that is not as it is wanted."""

from __future__ import annotations

from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from seed.plan import Action, Difference, Kind, Outcome, Plan

_SHOWN_KEPT: Final = 10
_LONGEST_VALUE: Final = 60
_STYLES: Final = {Outcome.CREATE: "green", Outcome.UPDATE: "yellow", Outcome.KEPT: "cyan"}


def print_counts(console: Console, plan: Plan, *, dry_run: bool) -> None:
    table = Table(title=f"Seed from {plan.source}" + (" (dry run: nothing written)" if dry_run else ""))
    table.add_column("")
    for heading in ("to create", "to update") if dry_run else ("created", "updated"):
        table.add_column(heading, justify="right")
    table.add_column("unchanged", justify="right")
    table.add_column("kept", justify="right")
    for kind in Kind:
        table.add_row(f"{kind}s", *(str(plan.count(kind, outcome)) for outcome in Outcome))
    table.add_section()
    table.add_row("total", *(str(plan.total(outcome)) for outcome in Outcome))
    console.print(table)


def print_kept(console: Console, plan: Plan) -> None:
    """The first rows that hold something that the seed would have written otherwise, and why they were left."""
    kept = [action for action in plan.actions if action.outcome is Outcome.KEPT]
    for action in kept[:_SHOWN_KEPT]:
        console.print(Text(f"kept {action.item.identity.key}: {_reason(action)}", style=_STYLES[Outcome.KEPT]))
    if len(kept) > _SHOWN_KEPT:
        console.print(f"and {len(kept) - _SHOWN_KEPT} more; --dry-run lists them all")


def print_plan(console: Console, plan: Plan) -> None:
    table = Table("action", "what", "fields: old -> new", show_lines=False)
    for action in plan.actions:
        if action.outcome is not Outcome.UNCHANGED:
            identity = action.item.identity
            table.add_row(
                Text(action.outcome, style=_STYLES[action.outcome]),
                Text(f"{identity.kind} {identity.key}"),
                Text(_fields(action)),
            )
    if table.row_count:
        console.print(table)


def _fields(action: Action) -> str:
    if not action.differences:
        return _reason(action)
    separator = ", " if action.outcome is Outcome.CREATE else "\n"
    return separator.join(_line(action.outcome, difference) for difference in action.differences)


def _line(outcome: Outcome, difference: Difference) -> str:
    old, new = _show(difference.old), _show(difference.new)
    if difference.kept is not None:
        return f"{difference.field}: {old} stays, not {new} ({difference.kept})"
    if outcome is Outcome.CREATE:
        return f"{difference.field}: {new}"
    return f"{difference.field}: {old} -> {new}"


def _reason(action: Action) -> str:
    return action.reason or "; ".join(f"{item.field} {item.kept}" for item in action.differences)


def _show(value: Any) -> str:
    text = "unknown" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."

"""A plan, printed: a sign and a name for each row, its fields from old to new, and the counts."""

from __future__ import annotations

from typing import Any, Final

import orjson
from rich.console import Console
from rich.text import Text

from app.configuration.records import Action, Change, Difference, Plan

_LONGEST_VALUE: Final = 100
_STYLES: Final = {Action.CREATE: "green", Action.UPDATE: "yellow", Action.DELETE: "red"}


def print_plan(console: Console, plan: Plan, *, applied: bool = False) -> None:
    """Lines are not wrapped, so that each can be searched for."""
    for change in plan.changes:
        style = _STYLES[change.action]
        note = f"  ({change.note})" if change.note else ""
        _print(console, Text(f"{change.action} {change.kind} {change.key}{note}", style=style))
        for difference in change.differences:
            _print(console, Text(_line(change, difference)))
    words = ("added", "changed", "removed") if applied else ("to add", "to change", "to remove")
    if not plan.changes:
        _print(console, Text("Nothing differs: the catalog is as the file says."))
        return
    counts = [f"{plan.count(action)} {word}" for action, word in zip(Action, words, strict=True)]
    _print(console, Text(("Applied: " if applied else "Plan: ") + ", ".join(counts) + ".", style="bold"))


def _print(console: Console, text: Text) -> None:
    console.print(text, soft_wrap=True)


def _line(change: Change, difference: Difference) -> str:
    note = f"  ({difference.note})" if difference.note else ""
    new = _show(difference.new)
    if change.action is Action.CREATE or " from " in difference.path:
        return f"    {difference.path}: {new}{note}"
    return f"    {difference.path}: {_show(difference.old)} -> {new}{note}"


def _show(value: Any) -> str:
    text = "null" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
    text = text.replace("\n", "\\n")
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."

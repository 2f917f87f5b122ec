"""What was measured, as rows of one table: on the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_HEADINGS = ("what", "ours", "peer", "ratio", "target", "met")


@dataclass(frozen=True, slots=True)
class Row:
    """`met` is None where there is no target, or nothing was measured."""

    what: str
    ours: str
    peer: str = ""
    ratio: str = ""
    target: str = ""
    met: bool | None = None

    @property
    def cells(self) -> tuple[str, ...]:
        met = "" if self.met is None else "yes" if self.met else "no"
        return (self.what, self.ours, self.peer, self.ratio, self.target, met)


def rate(value: float) -> str:
    return f"{value:,.0f}/s"


def compared(what: str, ours: float, peer: float, at_least: float | None = None, *, note: str = "") -> Row:
    """Two rates of the same work in the same run; `at_least` is the target of their ratio."""
    ratio = ours / peer
    return Row(
        what,
        rate(ours) + note,
        rate(peer),
        f"{ratio:,.1f}x",
        "" if at_least is None else f">= {at_least:g}x",
        None if at_least is None else ratio >= at_least,
    )


def at_least(what: str, value: float, target: float) -> Row:
    return Row(what, rate(value), target=f">= {rate(target)}", met=value >= target)


def at_most(what: str, value: float, target: float, unit: str, *, note: str = "") -> Row:
    return Row(what, f"{_figure(value)} {unit}{note}", target=f"<= {target:g} {unit}", met=value <= target)


def measured(what: str, value: float, unit: str) -> Row:
    return Row(what, f"{_figure(value)} {unit}")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def print_table(console: Console, rows: Sequence[Row]) -> None:
    table = Table(show_edge=False, pad_edge=False)
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for row in rows:
        style = "red" if row.met is False else None
        table.add_row(*row.cells, style=style)
    console.print(table)


def as_markdown(rows: Sequence[Row]) -> str:
    lines = [_HEADINGS, ("---", *["---:"] * (len(_HEADINGS) - 1)), *(row.cells for row in rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)

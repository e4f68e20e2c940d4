"""The doctor's checks on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from engine.records import Check, Diagnosis
from engine.safe_rich import Text


def diagnosis(out: Console, result: Diagnosis) -> None:
    """The doctor's checks."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1)
    grid.add_column(width=max((len(check.name) for check in result.checks), default=0), no_wrap=True)
    grid.add_column(overflow="fold")
    for check in result.checks:
        grid.add_row(check_mark(check), Text(check.name, "bold"), check_in_words(check))
    out.print(grid)


def check_mark(check: Check) -> Text:
    """✓, ✗, · for measured, ? for a doubt."""
    if check.ok is None:
        return Text("?", "bold yellow") if check.remedy else Text("·", "dim")
    return Text("✓", "green") if check.ok else Text("✗", "bold red")


def check_in_words(check: Check) -> Text:
    """What a check found, and what to do on lines of its own."""
    text = Text(check.detail)
    return text.append(f"\n→ {check.remedy}", "bold") if check.remedy else text

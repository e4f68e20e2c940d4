"""The doctor's checks as a page: a mark, a name, what was found, and what to do on a line of its own."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from engine.records import Check, Diagnosis
from engine.records.words.rich_text import Text
from tui.health import in_doubt, red
from tui.words import count_in_words


def checks_page(diagnosis: Diagnosis) -> RenderableType:
    """What failed first, then everything in the doctor's order."""
    names = red(diagnosis)
    if names:
        verdict = Text(f"{count_in_words(len(names), 'check')} failed: {', '.join(names)}.\n", "bold")
    else:
        verdict = Text("Nothing speaks against this wiring.\n", "bold")
    table = Table.grid(padding=(0, 1))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in sorted(diagnosis.checks, key=lambda check: check.ok is not False):
        words = Text(check.detail)
        if check.remedy:
            words.append(f"\n→ {check.remedy}", "bold")
        table.add_row(mark(check), Text(check.name, "bold"), words)
    legend = Text("\n✓ passed  ✗ failed  ? in doubt  · measured, nothing to compare it with", "dim")
    return Group(verdict, table, legend)


def mark(check: Check) -> Text:
    """✓, ✗, ? or ·."""
    if check.ok is None:
        return Text("?", "bold yellow") if in_doubt(check) else Text("·", "dim")
    return Text("✓", "green") if check.ok else Text("✗", "bold red")

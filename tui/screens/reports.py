"""The contents of report pages: the doctor's report and the table of probes."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table

from engine.records import Check, Diagnosis, ProbeRow, ProbeTable
from engine.records.words.numbers import count
from engine.records.words.rich_text import Text
from tui.state.texts import differing, without_end
from tui.widgets.health import in_doubt, red


def checks_page(diagnosis: Diagnosis) -> RenderableType:
    """Return the doctor's report: the verdict, then the checks, failed ones first, else in the doctor's order."""
    names = red(diagnosis)
    if names:
        verdict = Text(f"{count(len(names), 'check')} failed: {', '.join(names)}.\n", "bold")
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
    """Return a check's mark: ✓, ✗, ? or ·."""
    if check.ok is None:
        return Text("?", "bold yellow") if in_doubt(check) else Text("·", "dim")
    return Text("✓", "green") if check.ok else Text("✗", "bold red")


def probe_table(result: ProbeTable) -> Table:
    """Return the table of probes: both texts and the probabilities of the tracked answers."""
    table = Table(show_lines=True, expand=True, header_style="bold", padding=(0, 1, 0, 0))
    for name, ratio in (("probe", 3), ("baseline", 4), ("edited", 4)):
        table.add_column(name, ratio=ratio)
    table.add_column("answer", no_wrap=True)
    for name in ("base", "edit"):
        table.add_column(name, justify="right", no_wrap=True, min_width=4)
    for row in result.rows:
        names = "\n".join(a.name + (" (unclean split)" if row.flags else "") for a in row.answers)
        table.add_row(
            Text(row.probe.text),
            *arms(row),
            Text(names),
            "\n".join(f"{a.baseline:.2f}" for a in row.answers),
            "\n".join(f"{a.edited:.2f}" for a in row.answers),
        )
    return table


def arms(row: ProbeRow) -> tuple[Text, Text]:
    """Return the baseline and the edited text, with differing tokens marked."""
    texts = (without_end(row.generated.baseline), without_end(row.generated.edited))
    marked_texts = []
    for tokens, differs in zip(texts, differing(*texts), strict=True):
        text = Text()
        for token, marked in zip(tokens, differs, strict=True):
            text.append(token, "bold underline" if marked else "")
        marked_texts.append(text)
    return marked_texts[0], marked_texts[1]

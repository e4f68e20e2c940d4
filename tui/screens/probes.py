"""All probes as one table: what the model says, baseline and edited, and the tracked answers' probabilities."""

from __future__ import annotations

from rich.table import Table

from engine.records import ProbeRow, ProbeTable
from engine.records.words.rich_text import Text
from tui.pairs import differing, without_end


def probe_table(result: ProbeTable) -> Table:
    """The table."""
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
    """Both texts, differing tokens marked."""
    texts = (without_end(row.generated.baseline), without_end(row.generated.edited))
    found = []
    for tokens, differs in zip(texts, differing(*texts), strict=True):
        text = Text()
        for token, marked in zip(tokens, differs, strict=True):
            text.append(token, "bold underline" if marked else "")
        found.append(text)
    return found[0], found[1]

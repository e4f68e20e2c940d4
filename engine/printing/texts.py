"""Generated texts and probes on a terminal, baseline and edited side by side."""

from __future__ import annotations

from itertools import zip_longest

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine.export import edits_in_words
from engine.printing.signs import short, visible
from engine.records import Generated, ProbeTable


def generated(out: Console, result: Generated, compare: bool) -> None:
    """Both arms side by side with differing tokens marked, or the edited text alone."""
    if not compare:
        out.print(Text((result.edited if result.edits else result.baseline).text))
        return
    table = Table(expand=True)
    table.add_column("baseline", ratio=1)
    table.add_column(f"edited: {escape(short(edits_in_words(result.edits)))}", ratio=1)
    table.add_row(marked(result, edited=False), marked(result, edited=True))
    out.print(table)
    divergence = "none" if result.first_divergence is None else f"token {result.first_divergence + 1}"
    kl = f"{sum(result.kl) / len(result.kl):.4f}" if result.kl else "–"
    out.print(
        f"[dim]first difference: {divergence} · mean KL {kl} nats a token on the baseline's tokens · "
        f"edit inactive at {result.inactive_positions} of {result.positions} positions · "
        f"{result.tokens_per_second:.0f} tokens/s[/dim]"
    )
    untouched = [visible(t) for t, m in zip(result.prompt.tokens, result.prompt.edit_mask, strict=True) if not m]
    spared = escape(" ".join(untouched)) or "none"
    fed = f"prompt fed as {len(result.prompt.tokens)} tokens, never edited: {spared}"
    out.print(f"[dim]{fed} · ids and masks: --json[/dim]")
    if result.edits and result.positions and result.inactive_positions == result.positions:
        out.print("[yellow]The edited features were silent everywhere: the edit changed nothing.[/yellow]")


def probe_table(out: Console, result: ProbeTable) -> None:
    """Every probe × baseline/edited."""
    table = Table(show_lines=True)
    for name in ("probe", "baseline", "edited", "answer", "p baseline", "p edited"):
        table.add_column(name, justify="right" if name.startswith("p ") else "left")
    for row in result.rows:
        cells = [Text(row.probe.text), Text(row.generated.baseline.text), marked(row.generated, edited=True)]
        names = [a.name + (" (unclean split)" if row.flags else "") for a in row.answers]
        table.add_row(
            *cells,
            "\n".join(names),
            "\n".join(f"{a.baseline:.3f}" for a in row.answers),
            "\n".join(f"{a.edited:.3f}" for a in row.answers),
        )
    out.print(table)
    out.print(f"[dim]edits: {escape(edits_in_words(result.edits))} · answers scored after the prefill[/dim]")


def marked(result: Generated, edited: bool) -> Text:
    """One arm's text, tokens that differ from the other arm's at the same index emphasised."""
    own, other = (result.edited, result.baseline) if edited else (result.baseline, result.edited)
    text = Text()
    for index, (token, theirs) in enumerate(zip_longest(own.tokens, other.tokens)):
        if token is None or (index == len(own.tokens) - 1 and token.strip() and token not in own.text):
            continue  # the end token is not part of the text
        text.append(token, style="" if token == theirs else "bold")
    return text

"""Generated texts and probes on a terminal, baseline and edited side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from rich.console import Console
from rich.table import Table

from engine.cli.printing.layout import short
from engine.records import Arm, Generated, ProbeTable
from engine.records.texts import Comparison, comparisons, edits_in_force
from engine.records.words.edits import edit_notes, edits_in_words
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible
from engine.records.words.texts import story

MOST = 90
"""Most characters of the edits to show above a column; longer ones are shown in full below the table."""


def alone(out: Console, result: Generated) -> None:
    """Print the edited text, or the baseline's if there are no edits."""
    out.print(Text((result.edited if result.edits else result.baseline).text))


def compared(out: Console, result: Generated) -> None:
    """Print all arms, marking tokens that differ from the same sample's baseline, and the facts about them."""
    out.print(both_arms(result))
    for index in range(len(result.variants)):
        out.print(variant(result, index))
    for line in facts(result):
        out.print(Text(line, style="dim"))
    for line in warnings(result):
        out.print(Text(line, style="yellow"))


def both_arms(result: Generated) -> Table:
    """Return a table of baseline and edited side by side, a row per sample."""
    pairs = [pair for pair in comparisons(result) if pair.variant is None]
    table = numbered(pairs)
    table.add_column("baseline", ratio=1)
    table.add_column(Text(f"edited: {short(edits_in_words(result.edits), MOST)}"), ratio=1)
    for pair in pairs:
        add_row(table, pair, marked(pair.baseline, pair.edited), marked(pair.edited, pair.baseline))
    return table


def variant(result: Generated, index: int) -> Table:
    """Return a table of one variant's texts, a row per sample, as wide as the terminal."""
    pairs = [pair for pair in comparisons(result) if pair.variant == index]
    table = numbered(pairs)
    table.add_column(Text(f"variant {index + 1}: {edits_in_words(result.variants[index])}"), ratio=1)
    for pair in pairs:
        add_row(table, pair, marked(pair.edited, pair.baseline))
    return table


def numbered(pairs: Sequence[Comparison]) -> Table:
    """Return an empty table, with a column for numbers if there are several rows."""
    table = Table(expand=True, show_lines=True)
    if len(pairs) > 1:
        table.add_column("", justify="right")
    return table


def add_row(table: Table, pair: Comparison, *texts: Text) -> None:
    """Add a sample to the table, with its number if the table has a column for it."""
    table.add_row(*[str(pair.sample + 1)] * (len(table.columns) > len(texts)), *texts)


def facts(result: Generated) -> list[str]:
    """Return where the arms part, how far apart they are, and how the text came about."""
    divergence = "none" if result.first_divergence is None else f"token {result.first_divergence + 1}"
    kl = f"{sum(result.kl) / len(result.kl):.4f}" if result.kl else "–"
    first = "of sample 1: " if any(other.sample for other in result.more) else ""
    words = edits_in_words(result.edits)
    return [
        *([f"edits: {words}"] if len(words) > MOST else []),
        f"{first}first difference: {divergence} · mean KL {kl} nats a token on the baseline's tokens · "
        f"edit inactive at {result.inactive_positions} of {result.positions} positions · "
        f"{result.tokens_per_second:.0f} tokens/s",
        *(f"variant {n}: inactive at {inactive} of {total} positions" for n, inactive, total in variants(result)),
        *story(result),
        fed(result),
        *edit_notes(edits_in_force(result)),
    ]


def variants(result: Generated) -> list[tuple[int, int, int]]:
    """Return each variant's number, how many positions it was inactive at, and of how many, over its samples."""
    rows = []
    for index in range(len(result.variants)):
        own = [pair for pair in comparisons(result) if pair.variant == index]
        rows.append((index + 1, sum(p.inactive_positions for p in own), sum(p.positions for p in own)))
    return rows


def fed(result: Generated) -> str:
    """Return how the prompt was fed, and which of its tokens are edited by first-step alone or never."""
    prompt = result.prompt
    spared = [visible(t) for t, m in zip(prompt.tokens, prompt.edit_mask, strict=True) if not m]
    only = any(edit.at == "first-step" for edit in edits_in_force(result))
    which = f"{'edited by first-step alone' if only else 'never edited'}: {' '.join(spared) or 'none'}"
    return f"prompt fed as {len(prompt.tokens)} tokens, {which} · ids and masks: --json"


def warnings(result: Generated) -> list[str]:
    """Return the text's own warnings, and one for each arm whose edits changed nothing."""
    counts = [("edited features", result.inactive_positions, result.positions)] if result.edits else []
    counts += [(f"features of variant {number}", inactive, total) for number, inactive, total in variants(result)]
    silent = [name for name, inactive, total in counts if total and inactive == total]
    return [
        *result.warnings,
        *(f"The {name} were silent everywhere: the edit changed nothing." for name in silent),
    ]


def probe_table(out: Console, result: ProbeTable) -> None:
    """Print every probe's results, baseline and edited."""
    table = Table(show_lines=True)
    for name in ("probe", "baseline", "edited", "answer", "p baseline", "p edited"):
        table.add_column(name, justify="right" if name.startswith("p ") else "left")
    for row in result.rows:
        cells = [
            Text(row.probe.text),
            Text(row.generated.baseline.text),
            marked(row.generated.edited, row.generated.baseline),
        ]
        names = [a.name + (" (unclean split)" if row.flags else "") for a in row.answers]
        table.add_row(
            *cells,
            Text("\n".join(names)),
            "\n".join(f"{a.baseline:.3f}" for a in row.answers),
            "\n".join(f"{a.edited:.3f}" for a in row.answers),
        )
    out.print(table)
    out.print(Text(f"edits: {edits_in_words(result.edits)} · answers scored after the prefill", style="dim"))
    for note in edit_notes(result.edits):
        out.print(Text(note, style="dim"))
    for warning in dict.fromkeys(warning for row in result.rows for warning in row.generated.warnings):
        out.print(Text(warning, style="yellow"))


def marked(own: Arm, other: Arm) -> Text:
    """Return an arm's text, emphasising tokens that differ from the other arm's at the same index."""
    text = Text()
    for index, (token, theirs) in enumerate(zip_longest(own.tokens, other.tokens)):
        if token is None or (index == len(own.tokens) - 1 and token.strip() and token not in own.text):
            continue  # the end token is not part of the text
        text.append(token, style="" if token == theirs else "bold")
    return text

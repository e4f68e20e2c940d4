"""Features on a terminal: the leaderboard and coloured tokens."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import asdict
from rich.console import Console

from engine.cli.printing.layout import Column, print_table
from engine.records import RANK_COLUMNS, FedPrompt, Ranking, Shown
from engine.records.features import RankColumn
from engine.records.words.features import tokens_in_words
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible
from engine.records.words.shades import STEPS, shade

EVIDENCE = "associated, no more: these features tell the two sets apart; only an edit shows whether they have influence"


def ranking(out: Console, result: Ranking) -> None:
    """Print the leaderboard."""
    print_table(out, columns(result))
    weight = "on" if result.density_weight else "off"
    out.print(
        f"{result.n_positive} against {result.n_negative} prompts · {result.n_active_features:,} features "
        f"fire · by {result.by}, pooled by {result.pool} · density weight {weight} · "
        f"p floor {result.p_floor:.2g} ({result.labelings:,} labelings){columns_in_words(result)}",
        style="dim",
    )
    tokens = "every token counted" if result.include_masked else counted(result.prompts)
    out.print(f"{tokens} · {EVIDENCE}", style="dim")
    for warning in result.warnings:
        out.print(Text(warning, style="yellow"))


def columns(result: Ranking) -> list[Column]:
    """Return the leaderboard's columns.

    The column that rows are sorted by is never dropped. One that features cannot be ranked by is left out if no row has
    a number.
    """
    rows = result.features
    shown_columns = [
        Column("feature", [str(row.feature) for row in rows]),
        Column("fires most on", [tokens_in_words(row.tokens) for row in rows], flexible=True),
    ]
    for heading in dict.fromkeys(map(heading_of, RANK_COLUMNS)):
        parts = [column for column in RANK_COLUMNS if heading_of(column) == heading]
        numbers = [getattr(row, part.name) for part in parts for row in rows]
        if any(part.ranks for part in parts) or any(number is not None for number in numbers):
            cells = ["/".join(part.cell(row) for part in parts) for row in rows]
            sorts = result.by in [part.name for part in parts]
            shown_columns.append(Column(heading, cells, drop=0 if sorts else parts[0].drop))
    return shown_columns


def heading_of(column: RankColumn) -> str:
    """Return a column's heading on a terminal."""
    return column.heading or column.name


def columns_in_words(result: Ranking) -> str:
    """Return the notes on columns that have a number in any row."""
    there = [c for c in RANK_COLUMNS if c.note and any(c.value(row) is not None for row in result.features)]
    return "".join(f" · {column.note.format(**asdict(result))}" for column in there)


def counted(prompts: Sequence[FedPrompt]) -> str:
    """Return how many of the prompts' tokens the rank mask let through."""
    total, kept = sum(len(p.tokens) for p in prompts), sum(sum(p.rank_mask) for p in prompts)
    return f"{kept} of {total} tokens counted (special and sink tokens are not)"


def shown(out: Console, result: Shown, n_positive: int) -> None:
    """Print coloured tokens, a line per prompt, with each prompt's strongest token."""
    for index, (fed, row) in enumerate(zip(result.prompts, result.activations, strict=True)):
        line = Text().append("+ " if index < n_positive else "− ", style="bold")
        best = max(range(len(row)), key=lambda t: row[t] if fed.rank_mask[t] else -1.0)
        for token, value, counts in zip(fed.tokens, row, fed.rank_mask, strict=True):
            line.append(visible(token), style=shade(value, result.maximum) if counts else "dim")
            if out.color_system is None and counts and value > 0:
                line.append(f"⟨{value:.1f}⟩")
        if fed.rank_mask[best] and row[best] > 0:
            line.append(f"   {row[best]:.2f} on {fed.tokens[best]!r}", style="dim")
        out.print(line, soft_wrap=True)
    if out.color_system is None:
        out.print("⟨n⟩: activation of the token before it; masked tokens have none")
        return
    legend = Text("0 ")
    for step in range(STEPS + 1):
        legend.append(" ", style=shade(result.maximum * step / STEPS, result.maximum))
    out.print(legend.append(f" {result.maximum:.2f}   dim: masked, not counted", style="dim"))

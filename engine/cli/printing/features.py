"""Features on a terminal: the leaderboard and coloured tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rich.console import Console

from engine.cli.printing.layout import STEPS, Column, print_table, shade, tokens_in_words
from engine.records import FedPrompt, Ranking, Shown
from engine.records.words.rich_text import Text
from engine.records.words.tokens import visible

EVIDENCE = "associated, no more: these features tell the two sets apart; only an edit shows whether they have influence"


def ranking(out: Console, result: Ranking) -> None:
    """The leaderboard."""
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
    """The columns; the one that the rows are sorted by stays whatever the width, p and loo come where there are any."""
    rows = result.features
    cover = [f"{row.coverage_positive:.0%}/{row.coverage_negative:.0%}" for row in rows]
    found = [
        Column("feature", [str(row.feature) for row in rows]),
        Column("fires most on", [tokens_in_words(row.tokens) for row in rows], flexible=True),
        Column("score", [f"{row.score:.3f}" for row in rows]),
        Column("diff", [f"{row.diff:.3f}" for row in rows], drop=7),
        Column("auroc", [f"{row.auroc:.2f}" for row in rows]),
        Column("t", [f"{row.t:.2f}" for row in rows], drop=1),
        Column("g", ["–" if row.g is None else f"{row.g:.2f}" for row in rows], drop=6),
        Column("p", ["–" if row.p is None else f"{row.p:.3f}" for row in rows], drop=4),
        Column("loo", ["–" if row.loo is None else str(row.loo) for row in rows], drop=5),
        Column("cover +/−", cover, drop=3),
        Column("density", [f"{row.density:.2%}" for row in rows], drop=2),
        Column("seed", [f"{row.seed:.1f}" for row in rows], drop=8),
    ]
    sorted_by = "cover +/−" if result.by.startswith("coverage") else result.by
    empty = {name for name in ("p", "loo") if all(getattr(row, name) is None for row in rows)}
    kept = [column for column in found if column.name not in empty]
    return [replace(column, drop=0) if column.name == sorted_by else column for column in kept]


def columns_in_words(result: Ranking) -> str:
    """What p and loo are, where there are any."""
    said = ""
    if result.permutations:
        said += f" · p over {result.permutations:,} labelings, corrected for all features"
    if any(row.loo is not None for row in result.features):
        said += " · loo: worst rank by score when a prompt is left out"
    return said


def counted(prompts: Sequence[FedPrompt]) -> str:
    """How many of the prompts' tokens the rank mask let through."""
    total, kept = sum(len(p.tokens) for p in prompts), sum(sum(p.rank_mask) for p in prompts)
    return f"{kept} of {total} tokens counted (special and sink tokens are not)"


def shown(out: Console, result: Shown, n_positive: int) -> None:
    """Coloured tokens, a line a prompt, with each prompt's strongest token."""
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

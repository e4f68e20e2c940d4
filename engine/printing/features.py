"""Features on a terminal: the leaderboard, coloured tokens, one feature's card."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from engine.printing.signs import STEPS, one_line, shade, tokens_in_words, visible
from engine.records import Described, FedPrompt, Ranking, Shown

EVIDENCE = "associated: these features tell the two sets apart; only an edit shows whether they have influence"


def ranking(out: Console, result: Ranking) -> None:
    """The leaderboard."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("feature", "fires most on", "score", "diff", "auroc", "t", "g", "cover +/−", "density", "seed")
    for name in names:
        table.add_column(name, justify="left" if name == "fires most on" else "right", no_wrap=True)
    for row in result.features:
        table.add_row(
            str(row.feature),
            tokens_in_words(row.tokens),
            f"{row.score:.3f}",
            f"{row.diff:.3f}",
            f"{row.auroc:.2f}",
            f"{row.t:.2f}",
            "–" if row.g is None else f"{row.g:.2f}",
            f"{row.coverage_positive:.0%}/{row.coverage_negative:.0%}",
            f"{row.density:.2%}",
            f"{row.seed:.1f}",
        )
    out.print(table)
    weight = "on" if result.density_weight else "off"
    out.print(
        f"[dim]{result.n_positive} against {result.n_negative} prompts · {result.n_active_features:,} features "
        f"fire · by {result.by}, pooled by {result.pool} · density weight {weight} · "
        f"p floor {result.p_floor:.2g} ({result.labelings:,} labelings)[/dim]"
    )
    tokens = "every token counted" if result.include_masked else counted(result.prompts)
    out.print(f"[dim]{tokens} · {EVIDENCE}[/dim]")
    for warning in result.warnings:
        out.print(f"[yellow]{escape(warning)}[/yellow]")


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


def described(out: Console, result: Described) -> None:
    """A feature's card."""
    out.print(
        f"[bold]feature {result.feature}[/bold]  density {result.density:.3%} "
        f"(fires on {result.reference_count:,} of {result.reference_tokens:,} reference tokens, "
        f"maximum {result.reference_maximum:.2f})"
    )
    if not result.strongest:
        out.print("It fires nowhere in the prompts or the reference text.")
    for strong in result.strongest:
        line = Text(f"{strong.activation:7.2f}  {strong.source:9}  …{one_line(strong.before)}", style="dim")
        line.append(visible(strong.token), style="bold reverse").append(one_line(strong.after) + "…")
        out.print(line, soft_wrap=True, no_wrap=True)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("promotes", "logit", "suppresses", "logit"):
        table.add_column(name, justify="right" if name == "logit" else "left")
    for up, down in zip(result.promoted, result.suppressed, strict=True):
        table.add_row(escape(repr(up.token)), f"{up.logit:+.2f}", escape(repr(down.token)), f"{down.logit:+.2f}")
    out.print(table)

"""Attributions and minimal sets on a terminal: what a measure depends on, and the smallest set that carries it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from engine.cli.printing.layout import Column, print_table
from engine.records import Attribution, Measure, MinimalSet
from engine.records import attribution as measures
from engine.records.attribution import ablated, listed
from engine.records.words.attribution import attribution_notes, measure_in_words, set_notes, set_title
from engine.records.words.features import tokens_in_words
from engine.records.words.numbers import percent
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible


def attribution(out: Console, result: Attribution, rows: int | None = None) -> None:
    """Print the measure, its value on each probe, and the features; `rows` None prints those that were ablated."""
    title(out, result.request.measure, len(result.probes), result.slope)
    probes(out, result)
    out.print(Text(f"baseline {result.baseline:+.4g} {measures.unit_of(result.slope)}\n", style="bold"))
    features(out, result, rows)
    notes(out, attribution_notes(result), result.warnings)


def title(out: Console, measure: Measure, n_probes: int, slope: bool) -> None:
    """Print what is measured."""
    out.print(Text(measure_in_words(measure, n_probes, slope), style="bold"))


def probes(out: Console, result: Attribution) -> None:
    """Print the measure on each probe, marking where both answers together are improbable."""
    texts = [visible(p.fed.text) for p in result.probes]
    masses = [Text(f"{p.mass:.3f}", style="yellow" if p.mass < measures.LOW_MASS else "") for p in result.probes]
    marks = ["low" if p.mass < measures.LOW_MASS else "" for p in result.probes]
    columns = [
        Column("nats", [f"{p.value:+.2f}" for p in result.probes]),
        Column("p of both", masses),
        Column("", marks, flexible=True),
        Column("covariate", ["–" if p.covariate is None else f"{p.covariate:+.2f}" for p in result.probes]),
        Column("probe", texts, flexible=True),
    ]
    print_table(out, [c for c in columns if c.name != "covariate" or result.slope])


def features(out: Console, result: Attribution, rows: int | None) -> None:
    """Print the table of features."""
    every = listed(result)
    shown = ablated(result) if rows is None else every[:rows]
    words = [measures.evidence(row, result.n_controls) for row in shown]
    columns = [
        Column("feature", [str(row.feature) for row in shown]),
        Column("fires most on", [tokens_in_words(row.tokens) for row in shown], flexible=True),
        Column("estimate", [f"{row.estimate:+.4f}" for row in shown], drop=2),
        Column("exact", ["–" if row.exact is None else f"{row.exact:+.4f}" for row in shown]),
        Column("share", [percent(measures.share_of_baseline(result, row)) for row in shown]),
        Column("activation", [f"{row.activation:.1f}" for row in shown], drop=4),
        Column("density", [f"{row.density:.2%}" for row in shown], drop=3),
        Column("percentile", [percent(row.percentile) for row in shown], drop=1),
        Column("evidence", [Text(word, style="bold" if word == "influences" else "dim") for word in words]),
    ]
    print_table(out, columns)
    if len(shown) < len(every):
        out.print(Text(f"{len(every) - len(shown)} more with estimates alone: --top {len(every)}, or --json", "dim"))


def minimal_set(out: Console, result: MinimalSet) -> None:
    """Print the set below an attribution, a line per member in the order in which they were chosen."""
    out.print()
    out.print(Text(set_title(result), style="bold"))
    members = result.members
    if members:
        columns = [
            Column("feature", [str(m.feature) for m in members]),
            Column("fires most on", [tokens_in_words(m.tokens) for m in members], flexible=True),
            Column("share with", [percent(m.share_with) for m in members]),
            Column("share without", [percent(m.share_without) for m in members]),
        ]
        print_table(out, columns)
        edit = " ".join(f"--ablate {m.feature}" for m in members)
        out.print(Text(f"to see it: saescope generate PROMPT --compare {edit}", style="dim"), soft_wrap=True)
    notes(out, set_notes(result), result.warnings)


def notes(out: Console, sentences: Sequence[str], warnings: Sequence[str]) -> None:
    """Print notes dim and warnings yellow, a line each."""
    for sentence in sentences:
        out.print(Text(sentence, style="dim"))
    for warning in warnings:
        out.print(Text(warning, style="yellow"))

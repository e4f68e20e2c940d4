"""One feature's card on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from engine.cli.printing.layout import bar, tokens_in_words
from engine.records import Described, Effect, Measure
from engine.records.attribution import unit_of
from engine.records.words.attribution import measure_in_words
from engine.records.words.numbers import percent
from engine.records.words.rich_text import Text
from engine.records.words.tokens import visible

BAR = 24
"""Width of the histogram's longest bar."""


def described(out: Console, result: Described, page: str) -> None:
    """Everything about a feature; `page` is its SAE's on Neuronpedia, "" where there is none."""
    facts = (
        f"  density {result.density:.3%} (fires on {result.reference_count:,} of {result.reference_tokens:,} reference "
        f"tokens, maximum {result.reference_maximum:.2f})"
    )
    out.print(Text.assemble((f"feature {result.feature}", "bold"), facts))
    if page:
        out.print(Text(f"https://www.neuronpedia.org/{page}/{result.feature}"), soft_wrap=True)
    if not result.strongest:
        out.print("It fires nowhere in the prompts or the reference text.")
    for strong in result.strongest:
        line = Text(f"{strong.activation:7.2f}  {strong.source:9}  …{visible(strong.before)}", style="dim")
        line.append(visible(strong.token), style="bold reverse").append(visible(strong.after) + "…")
        out.print(line, soft_wrap=True, no_wrap=True)
    logit_lens(out, result)
    if result.histogram:
        histogram(out, result)
    relations(out, result)
    if result.effect is not None:
        effect(out, result.effect)


def logit_lens(out: Console, result: Described) -> None:
    """Tokens whose logits the feature raises and lowers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("promotes", "logit", "suppresses", "logit"):
        table.add_column(name, justify="right" if name == "logit" else "left")
    for up, down in zip(result.promoted, result.suppressed, strict=True):
        table.add_row(Text(repr(up.token)), f"{up.logit:+.2f}", Text(repr(down.token)), f"{down.logit:+.2f}")
    out.print(table)


def histogram(out: Console, result: Described) -> None:
    """How many tokens have which activation: in the reference text, with bars, and in the prompts."""
    most = max(b.reference for b in result.histogram)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("activation", "reference", "tokens", "prompts"):
        table.add_column(name, justify="left" if name == "reference" else "right", no_wrap=True)
    for b in result.histogram:
        values = f"{b.lower:.2f} – {b.upper:.2f}"
        table.add_row(values, bar(b.reference, most, BAR), f"{b.reference:,}", f"{b.prompts:,}" if b.prompts else "")
    out.print(table)
    out.print(f"the prompts: it fires on {result.prompt_count:,} of their counted tokens", style="dim")


def relations(out: Console, result: Described) -> None:
    """Features that point the same or the other way, and those that fire together with it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name in ("what", "feature", "how near", "tokens"):
        table.add_column(justify="right" if name in ("feature", "how near") else "left", no_wrap=True)
    for row in related(result):
        table.add_row(*row)
    if table.row_count:
        out.print(table)


def related(result: Described) -> Iterator[tuple[Text, str, str, Text]]:
    """Rows: what they are to it, once; number; cosine or tokens in common; what they fire on."""
    for what, found in (("points alike", result.neighbours), ("points away", result.antipodes)):
        for index, near in enumerate(found):
            yield heading(what, index), str(near.feature), f"cosine {near.cosine:+.2f}", tokens_in_words(near.tokens)
    for index, other in enumerate(result.co_active):
        shared = f"{other.both:,} tokens, Jaccard {other.jaccard:.2f}"
        yield heading("fires with it", index), str(other.feature), shared, tokens_in_words(other.tokens)


def heading(what: str, index: int) -> Text:
    """The heading of a list, in its first row only."""
    return Text("" if index else what, style="bold")


def effect(out: Console, found: Effect) -> None:
    """What ablating it does; one effect has nothing to be compared with, so no more is said."""
    measure = Measure((), found.toward, found.against)
    out.print(Text(measure_in_words(measure, found.n_probes, found.slope), style="bold"))
    share = 1 - found.ablated / found.baseline if found.baseline else 0.0
    changed = f"{percent(share)} taken away" if share >= 0 else f"{percent(-share)} more of it"
    out.print(f"ablating the feature: {found.baseline:+.4g} → {found.ablated:+.4g} {unit_of(found.slope)}, {changed}")
    out.print(
        Text("whether that is more than other features do: saescope attribute, with features to compare", style="dim")
    )

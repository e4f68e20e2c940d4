"""One feature's card on a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from engine.cli.printing.layout import bar
from engine.records import Described, Effect, Measure
from engine.records.attribution import unit_of
from engine.records.words.attribution import measure_in_words
from engine.records.words.features import NO_LENS, tokens_in_words
from engine.records.words.numbers import percent
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible

BAR = 24
"""Width of the histogram's longest bar."""


def described(out: Console, result: Described, page: str = "") -> None:
    """Print everything known about a feature; `page` is the path of its SAE on Neuronpedia, "" if there is none."""
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
    """Print the tokens whose logits the feature raises and lowers most."""
    if not result.promoted:
        out.print(NO_LENS)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("promotes", "logit", "suppresses", "logit"):
        table.add_column(name, justify="right" if name == "logit" else "left")
    for up, down in zip(result.promoted, result.suppressed, strict=True):
        table.add_row(Text(repr(up.token)), f"{up.logit:+.2f}", Text(repr(down.token)), f"{down.logit:+.2f}")
    out.print(table)


def histogram(out: Console, result: Described) -> None:
    """Print how many tokens have which activation: in the reference text, with bars, and in the prompts."""
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
    """Print the features that point the same or the opposite way, and those that fire together with it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name in ("what", "feature", "how near", "tokens"):
        table.add_column(justify="right" if name in ("feature", "how near") else "left", no_wrap=True)
    for row in related(result):
        table.add_row(*row)
    if table.row_count:
        out.print(table)


def related(result: Described) -> Iterator[tuple[Text, str, str, Text]]:
    """Yield rows: the relation, in its first row only; feature; cosine or tokens in common; tokens it fires on."""
    for what, neighbours in (("points alike", result.neighbours), ("points away", result.antipodes)):
        for index, near in enumerate(neighbours):
            yield (
                heading(what, index),
                str(near.feature),
                f"cosine {near.cosine:+.2f}",
                Text(tokens_in_words(near.tokens)),
            )
    for index, other in enumerate(result.co_active):
        shared = f"{other.both:,} tokens, Jaccard {other.jaccard:.2f}"
        yield heading("fires with it", index), str(other.feature), shared, Text(tokens_in_words(other.tokens))


def heading(what: str, index: int) -> Text:
    """Return the heading of a list for its first row, an empty text for the others."""
    return Text("" if index else what, style="bold")


def effect(out: Console, result: Effect) -> None:
    """Print what ablating the feature does. One effect has nothing to be compared with, so no more is claimed."""
    measure = Measure((), result.toward, result.against)
    out.print(Text(measure_in_words(measure, result.n_probes, result.slope), style="bold"))
    share = 1 - result.ablated / result.baseline if result.baseline else 0.0
    changed = f"{percent(share)} taken away" if share >= 0 else f"{percent(-share)} more of it"
    out.print(
        f"ablating the feature: {result.baseline:+.4g} → {result.ablated:+.4g} {unit_of(result.slope)}, {changed}"
    )
    out.print(
        Text("whether that is more than other features do: saescope attribute, with features to compare", style="dim")
    )

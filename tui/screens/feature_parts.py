"""The parts of a feature's page: plain functions from records to text."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, log1p

from rich.console import RenderableType
from rich.table import Table

from engine.records import Bin, CoActive, Described, Effect, FeatureRow, Neighbour
from engine.records import attribution as measures
from engine.records.words.features import NO_LENS, tokens_in_words
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible
from tui.state.effects import Effects, effect_in_words, number, percent

AROUND = 30
"""Characters of text shown on either side of a strong token."""

BLOCKS = " ▁▂▃▄▅▆▇█"

BAR_LINES = 3

RELATED = 8
"""How many neighbours, antipodes and features that fire together are shown."""


def ranked(row: FeatureRow | None, place: int, rows: int) -> Text:
    """Return the line on a feature's place in the leaderboard."""
    if row is None:
        return Text("Not in the leaderboard.\n", "dim")
    words = f"Score {row.score:.2f}, place {place} of the {rows} shown · t {row.t:.2f} · auroc {row.auroc:.2f}"
    if row.p is not None:
        words += f" · p {row.p:.2g}"
    if row.loo is not None:
        words += f" · worst place with a prompt left out: {row.loo}"
    return Text(words + "\n")


def effect(feature: int, effects: Effects | None, single: Effect | None) -> Text:
    """Return the line on what ablating the feature does to the chosen answers, in words no stronger than the evidence.

    `effects` are those of the last attribution; `single` is the exact effect that the user asked for on this page.
    """
    row = effects.row(feature) if effects is not None else None
    text = Text()
    if effects is not None and row is not None:
        measure = effects.found.request.measure
        change = f"Ablated: {effect_in_words(effects.found, row)} of {measure.toward} against {measure.against}"
        if row.exact is not None:
            after = effects.found.baseline + row.exact
            change += (
                f", {number(effects.found.baseline, 3)} → {number(after, 3)} {measures.unit_of(effects.found.slope)}"
            )
            beaten = "" if row.percentile is None else f" · more than {row.percentile:.0%} of features about as active"
            return text.append(f"{change}{beaten} · {effects.evidence(feature)}\n", "bold")
        text.append(f"{change}, estimated", "bold")
    if single is not None:
        share = -1.0 if not single.baseline else single.ablated / single.baseline - 1
        change = f"{number(single.baseline, 3)} → {number(single.ablated, 3)} {measures.unit_of(single.slope)}"
        also = " · exact: " if text else "Ablated: "
        by = f"{percent(share)} of " if single.baseline else ""
        return text.append(f"{also}{by}{single.toward} against {single.against}, {change}; nothing compared\n", "bold")
    text.append(" · " if text else "")
    return text.append("e: ablates it for certain, to see what that does to the answer\n", "dim")


def fires(described: Described) -> Text:
    """Return the lines on how often the feature fires."""
    text = Text(
        f"Fires on {described.reference_count:,} of {described.reference_tokens:,} tokens of neutral text "
        f"({described.density:.3%}), maximum there {described.reference_maximum:.2f}; "
        f"on {described.prompt_count:,} tokens of your prompts.\n"
    )
    if not described.strongest:
        text.append("It fires nowhere in your prompts or the neutral text: a dead feature, or a very rare one.\n")
    return text


def histogram(bins: Sequence[Bin]) -> Text:
    """Return histograms of the activations above zero, on neutral text and on the prompts; bars show log counts."""
    if not bins:
        return Text()
    text = Text("How strongly (bars: logarithm of the count)\n", "bold", no_wrap=True)
    for name, counts in (("neutral", [b.reference for b in bins]), ("prompts", [b.prompts for b in bins])):
        lines = bars(counts)
        for at, line in enumerate(lines):
            label = name if at == len(lines) - 1 else ""
            text.append(f"{label:>8} ", "not bold dim").append(line, "not bold")
            text.append(f" {max(counts):,} at most\n" if at == 0 else "\n", "not bold dim")
    width = 2 * len(bins)
    low, high = f"{bins[0].lower:.2f}", f"{bins[-1].upper:.2f}"
    gap = " " * max(1, width - len(low) - len(high))
    return text.append(f"{'':9}{low}{gap}{high}\n", "not bold dim")


def bars(counts: Sequence[int]) -> list[str]:
    """Return the lines of a bar chart: two columns per count, BAR_LINES lines high; counts above zero are visible."""
    top = max(log1p(max(counts)), 1e-9)
    eighths = [ceil(8 * BAR_LINES * log1p(count) / top) for count in counts]
    return [
        "".join(2 * BLOCKS[max(0, min(8, height - 8 * line))] for height in eighths)
        for line in reversed(range(BAR_LINES))
    ]


def strongest(described: Described) -> Text:
    """Return the tokens on which the feature fires most, in context."""
    text = Text("Strongest tokens\n" if described.strongest else "", "bold", no_wrap=True, overflow="ellipsis")
    for strong in described.strongest:
        text.append(f"{strong.activation:6.2f} {strong.source:9} ", "not bold dim")
        text.append(visible(strong.before)[-AROUND:].rjust(AROUND), "not bold dim")
        text.append(visible(strong.token), "bold reverse")
        text.append(visible(strong.after)[:AROUND] + "\n", "not bold dim")
    return text


def lens(described: Described) -> RenderableType:
    """Return the table of the logit lens: the tokens that the feature's direction promotes and suppresses."""
    if not described.promoted:
        return Text(NO_LENS)
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left", title_style="bold")
    table.title = "Logit lens: what its direction does to the next token"
    for name in ("promotes", "", "suppresses", ""):
        table.add_column(name, justify="left" if name else "right", min_width=18 if name else 8)
    for up, down in zip(described.promoted, described.suppressed, strict=True):
        table.add_row(
            Text(f"“{visible(up.token)}”"), number(up.logit),
            Text(f"“{visible(down.token)}”"), number(down.logit),
        )  # fmt: skip
    return table


def related(described: Described, name_of: dict[int, str]) -> RenderableType:
    """Return a table of features in the same or opposite direction, and of those firing on the same prompt tokens."""
    lists = (
        ("closest (cosine)", [neighbour(n, name_of) for n in described.neighbours]),
        ("opposite", [neighbour(n, name_of) for n in described.antipodes]),
        ("fires with it (tokens)", [companion(c, name_of) for c in described.co_active]),
    )
    shown = [(heading, lines[:RELATED]) for heading, lines in lists if lines]
    if not shown:
        return Text()
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for heading, _ in shown:
        table.add_column(heading, no_wrap=True, overflow="ellipsis", ratio=1)
    for at in range(max(len(lines) for _, lines in shown)):
        table.add_row(*(lines[at] if at < len(lines) else Text() for _, lines in shown))
    return table


def neighbour(other: Neighbour, name_of: dict[int, str]) -> Text:
    """Return the line of a neighbour or antipode: its cosine, number and name."""
    words = name_of.get(other.feature) or tokens_in_words(other.tokens)
    return Text(f"{number(other.cosine)}  #{other.feature} {words}")


def companion(other: CoActive, name_of: dict[int, str]) -> Text:
    """Return the line of a co-active feature: Jaccard index and number of the tokens where both fire, number, name."""
    words = name_of.get(other.feature) or tokens_in_words(other.tokens)
    return Text(f"{other.jaccard:4.0%} ({other.both})  #{other.feature} {words}")

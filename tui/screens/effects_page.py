"""The page of an attribution: the measure, how far to trust the estimates, and every feature's effect."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.table import Table
from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from engine.records import AttributedFeature, Attribution, Loaded
from engine.records import attribution as measures
from engine.records.attribution import listed
from engine.records.words.attribution import measure_in_short
from engine.records.words.numbers import count
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import visible
from tui.services.context import Context
from tui.state.effects import Effects, effect_in_words, number
from tui.widgets.page import Report
from tui.widgets.table_page import TablePage, name_cell, right

BEFORE = (("mark", "", -2), ("feature", "feature", 8))

COLUMNS = (
    ("share", "effect", 8),
    ("evidence", "evidence", 12),
    ("exact", "exact", 9),
    ("estimate", "estimate", 10),
    ("percentile", "beats", 7),
    ("activation", "activation", 12),
    ("density", "density", 9),
)

ALWAYS = 5
"""How many of COLUMNS must fit without scrolling."""

HINT = "enter read it · space ablate · f its page · m smallest set · M the last set · p probes · ←→ columns · esc"

LEGEND = "effect: −12% takes 12% of the measure away · beats: share of the controls · influences: it beats 95% of them"


class CausesScreen(TablePage):
    """The effects by size, the exact ones first, the controls last."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "ablate", "Ablate", id="causes.ablate", tooltip="Ablate the feature; again: off, on"),
        Binding("f", "describe", "About", id="causes.describe", tooltip="The feature's page"),
        Binding("m", "find_set", "Smallest set", id="causes.set", tooltip="Find the smallest set that carries it"),
        Binding("M", "last_set", "Last set", id="causes.last_set", tooltip="The last smallest set again"),
        Binding("p", "probes", "Probes", id="causes.probes", tooltip="The measure on every probe"),
    ]

    def __init__(
        self,
        attribution: Attribution,
        pair: Loaded | None,
        context: Context,
        *,
        warning: str,
        read: Callable[[int], None],
        describe: Callable[[int, list[int]], None],
        find_set: Callable[[], None],
        last_set: Callable[[], None],
    ) -> None:
        self.found, self.context = attribution, context
        self.pair = pair
        """The pair that the effects were measured with; another one may be loaded in the meantime."""
        self._read, self._describe, self._find_set, self._last_set = read, describe, find_set, last_set
        super().__init__("Which features influence the answer?", about(attribution, warning), HINT, LEGEND)

    def on_mount(self) -> None:
        effects = Effects(self.found)
        self._name_width = self.name_width((*BEFORE, *COLUMNS), (*BEFORE, *COLUMNS[:ALWAYS]))
        self.add_columns((*BEFORE, ("name", " fires most on", -self._name_width), *COLUMNS))
        self._listed = {row.feature for row in listed(self.found)}
        for row in self.found.features:
            self.table.add_row(*self._cells(row, effects), key=str(row.feature))
        self.table.focus()

    def _cells(self, row: AttributedFeature, effects: Effects) -> list[Text]:
        kind = "control" if row.feature not in self._listed else "estimated" if row.exact is None else ""
        evidence = kind or effects.evidence(row.feature)
        name = self.context.name_of(row.feature) or " · ".join(row.tokens)
        return [
            self._mark(row.feature),
            right(f"{row.feature} "),
            name_cell(name, self._name_width),
            right(("≈" if row.exact is None else "") + effect_in_words(self.found, row)),
            Text(evidence.rjust(12), "bold" if evidence == "influences" else ""),
            right("–" if row.exact is None else number(row.exact, 4)),
            right(number(row.estimate, 4)),
            right("–" if row.percentile is None else f"{row.percentile:.0%}"),
            right(f"{row.activation:,.1f}"),
            right(f"{row.density:.2%}"),
        ]

    def _mark(self, feature: int) -> Text:
        slot = self.context.study.edits.slot(feature)
        return Text(" " if slot is None else "▣" if slot.on else "▢")

    # ---- keys

    @on(DataTable.RowSelected)
    def read(self) -> None:
        """On enter, close the page and show the feature on the prompts."""
        feature = self.feature()
        if feature is not None and self.is_current:
            self.action_leave()
            self._read(feature)

    def action_ablate(self) -> None:
        """Ablate the feature, or switch its edit on or off."""
        feature = self.feature()
        if feature is not None:
            self.context.study.edits.toggle(feature)
            self.table.update_cell(str(feature), "mark", self._mark(feature))

    def action_describe(self) -> None:
        """Open the feature's page, whose ← and → go through this page's features."""
        feature = self.feature()
        if feature is not None:
            self._describe(feature, self.features())

    def on_screen_resume(self) -> None:
        """Update the marks: edits may have changed on a page that covered this one."""
        for feature in self.features():
            self.table.update_cell(str(feature), "mark", self._mark(feature))

    def action_find_set(self) -> None:
        self._find_set()

    def action_last_set(self) -> None:
        self._last_set()

    def action_probes(self) -> None:
        self.app.push_screen(Report("The measure on every probe", probes_page(self.found)))


def about(attribution: Attribution, stale: str) -> Text:
    """Return the lines above the table: what was measured, and how far to trust it."""
    measure = attribution.request.measure
    text = Text()
    text.append(measure_in_short(measure), "bold")
    text.append(f"\nBaseline {number(attribution.baseline, 3)} {measures.unit_of(attribution.slope)}")
    if attribution.probes:
        values, masses = [p.value for p in attribution.probes], [p.mass for p in attribution.probes]
        text.append(f" · probes {span(values, number)} · mass of both answers {span(masses, plain)}\n")
    exact = sum(row.exact is not None for row in attribution.features)
    text.append(f"{exact} ablated for certain, {count(attribution.n_controls, 'control')} among them")
    text.append(f" · Spearman with the exact effect: estimate {correlation(attribution.spearman)}")
    text.append(f", activation {correlation(attribution.spearman_activation)} · {attribution.dtype}")
    for warning in (*attribution.warnings, *filter(None, [stale])):
        text.append(f"\n⚠ {warning}", "bold")
    return text


def correlation(value: float | None) -> str:
    """Format a correlation with two decimals; "–" if it is None."""
    return "–" if value is None else number(value)


def plain(value: float) -> str:
    """Format a probability with two decimals."""
    return f"{value:.2f}"


def span(values: list[float], words: object) -> str:
    """Format the range of values by `words`, a function of a number; one number if both ends read the same."""
    assert callable(words)
    low, high = words(min(values)), words(max(values))
    return str(low) if low == high else f"{low} to {high}"


def probes_page(attribution: Attribution) -> Table:
    """Return a table with a row per probe: the measure, the probability mass of both answers, the covariate."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("measure", "mass", "covariate"):
        table.add_column(name, justify="right")
    table.add_column("probe, with what is put into the model's mouth", overflow="fold")
    for probe in attribution.probes:
        mass = f"{probe.mass:.3f}" + (" ⚠" if probe.mass < measures.LOW_MASS else "")
        covariate = "–" if probe.covariate is None else number(probe.covariate)
        table.add_row(number(probe.value, 3), mass, covariate, Text(visible(probe.fed.text)))
    return table

"""An attribution as a page: what was measured, how far the estimates can be trusted, and every feature's effect."""

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
from engine.records.words.numbers import count_in_words
from engine.records.words.rich_text import Text
from engine.records.words.tokens import visible
from tui.services.context import Context
from tui.state.effects import Effects, effect_in_words, measure_in_words, number
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
"""So many of them are seen without scrolling."""

HINT = "enter read it · space ablate · f its page · m smallest set · M the last set · p probes · ←→ columns · esc"

LEGEND = "effect: −12% takes 12% of the measure away · beats: share of the controls · influences: it beats 95% of them"


class CausesScreen(TablePage):
    """Rows by size of effect, the exact ones first, the controls last."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "ablate", "Ablate", id="causes.ablate", tooltip="Ablate the feature; again: off, on"),
        Binding("f", "describe", "About", id="causes.describe", tooltip="The feature's page"),
        Binding("m", "find_set", "Smallest set", id="causes.set", tooltip="Find the smallest set that carries it"),
        Binding("M", "last_set", "Last set", id="causes.last_set", tooltip="The last smallest set again"),
        Binding("p", "probes", "Probes", id="causes.probes", tooltip="The measure on every probe"),
    ]

    def __init__(
        self,
        found: Attribution,
        pair: Loaded | None,
        context: Context,
        *,
        warning: str,
        read: Callable[[int], None],
        describe: Callable[[int, list[int]], None],
        find_set: Callable[[], None],
        last_set: Callable[[], None],
    ) -> None:
        self.found, self.context = found, context
        self.pair = pair
        """What the effects were found with; another one may be loaded while they are read."""
        self._read, self._describe, self._find_set, self._last_set = read, describe, find_set, last_set
        super().__init__("Which features influence the answer?", about(found, warning), HINT, LEGEND)

    def on_mount(self) -> None:
        """Fills the table."""
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
        """Enter: the feature is read token by token."""
        feature = self.feature()
        if feature is not None and self.is_current:
            self.action_leave()
            self._read(feature)

    def action_ablate(self) -> None:
        """Ablates the feature, or switches its edit."""
        feature = self.feature()
        if feature is not None:
            self.context.study.edits.toggle(feature)
            self.table.update_cell(str(feature), "mark", self._mark(feature))

    def action_describe(self) -> None:
        """The feature's page; from there to the next one of these."""
        feature = self.feature()
        if feature is not None:
            self._describe(feature, self.features())

    def on_screen_resume(self) -> None:
        """Edits may have changed on a page that lay over this one."""
        for feature in self.features():
            self.table.update_cell(str(feature), "mark", self._mark(feature))

    def action_find_set(self) -> None:
        """The smallest set."""
        self._find_set()

    def action_last_set(self) -> None:
        """The last one again."""
        self._last_set()

    def action_probes(self) -> None:
        """The measure on every probe."""
        self.app.push_screen(Report("The measure on every probe", probes_page(self.found)))


def about(found: Attribution, stale: str) -> Text:
    """What was measured, and how far to trust it."""
    measure = found.request.measure
    text = Text()
    text.append(measure_in_words(measure), "bold")
    text.append(f"\nBaseline {number(found.baseline, 3)} {measures.unit_of(found.slope)}")
    if found.probes:
        values, masses = [p.value for p in found.probes], [p.mass for p in found.probes]
        text.append(f" · probes {span(values, number)} · mass of both answers {span(masses, plain)}\n")
    exact = sum(row.exact is not None for row in found.features)
    text.append(f"{exact} ablated for certain, {count_in_words(found.n_controls, 'control')} among them")
    text.append(f" · Spearman with the exact effect: estimate {correlation(found.spearman)}")
    text.append(f", activation {correlation(found.spearman_activation)} · {found.dtype}")
    for warning in (*found.warnings, *filter(None, [stale])):
        text.append(f"\n⚠ {warning}", "bold")
    return text


def correlation(value: float | None) -> str:
    """Two decimals; "–" where there is none."""
    return "–" if value is None else number(value)


def plain(value: float) -> str:
    """A probability."""
    return f"{value:.2f}"


def span(values: list[float], words: object) -> str:
    """The smallest and the largest; one where they are the same."""
    assert callable(words)
    low, high = words(min(values)), words(max(values))
    return str(low) if low == high else f"{low} to {high}"


def probes_page(found: Attribution) -> Table:
    """A row a probe: the measure there, how likely both answers are, and the covariate."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("measure", "mass", "covariate"):
        table.add_column(name, justify="right")
    table.add_column("probe, with what is put into the model's mouth", overflow="fold")
    for probe in found.probes:
        mass = f"{probe.mass:.3f}" + (" ⚠" if probe.mass < measures.LOW_MASS else "")
        covariate = "–" if probe.covariate is None else number(probe.covariate)
        table.add_row(number(probe.value, 3), mass, covariate, Text(visible(probe.fed.text)))
    return table

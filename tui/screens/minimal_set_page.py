"""The page of a smallest set: which features carry the answer, at what cost, and whether random sets do as much."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.widgets import DataTable

from engine.records import MinimalSet
from engine.records import attribution as measures
from engine.records.attribution import beaten, set_evidence
from engine.records.words.attribution import measure_in_short
from engine.records.words.numbers import count
from engine.records.words.rich_text import Text
from tui.state.effects import number
from tui.widgets.table_page import TablePage, name_cell, right

FACTS_KEPT = 0.9
"""The kept share of the right answers' log-odds below which the page warns that facts suffer."""

BEFORE = (("place", "", 3), ("feature", "feature", 8))

COLUMNS = (("with", "with", 9), ("added", "added", 9), ("without", "without", 10), ("carries", "carries", 9))

HINT = "enter ablates the whole set: then g generates with it · f the feature's page · esc"

LEGEND = "with: share taken away up to this feature · without: by the whole set but this one · carries: the difference"


class MinimalSetScreen(TablePage):
    """The set's features in the order in which they were chosen."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "take", "Ablate all", id="set.ablate", tooltip="Ablate the whole set"),
        Binding("f", "describe", "About", id="set.describe", tooltip="The feature's page"),
    ]

    def __init__(
        self,
        minimal_set: MinimalSet,
        name_of: Callable[[int], str],
        *,
        describe: Callable[[int, list[int]], None],
        ablate: Callable[[list[int]], None],
    ) -> None:
        self.found, self._name_of, self._describe, self._ablate = minimal_set, name_of, describe, ablate
        super().__init__("The smallest set that carries the answer", about(minimal_set), HINT, LEGEND)

    def on_mount(self) -> None:
        width = self.name_width((*BEFORE, *COLUMNS))
        self.add_columns((*BEFORE, ("name", " fires most on", -width), *COLUMNS))
        before = 0.0
        for place, member in enumerate(self.found.members, 1):
            name = self._name_of(member.feature) or " · ".join(member.tokens)
            self.table.add_row(
                right(f"{place}"),
                right(f"{member.feature} "),
                name_cell(name, width),
                right(f"{member.share_with:.1%}"),
                right(f"{member.share_with - before:.1%}"),
                right(f"{member.share_without:.1%}"),
                right(f"{self.found.share - member.share_without:.1%}"),
                key=str(member.feature),
            )
            before = member.share_with
        self.table.focus()

    @on(DataTable.RowSelected)
    def action_take(self) -> None:
        """Close the page and ablate the whole set."""
        if self.is_current and self.found.members:
            self.action_leave()
            self._ablate([member.feature for member in self.found.members])

    def action_describe(self) -> None:
        """Open the feature's page, whose ← and → go through this page's features."""
        feature = self.feature()
        if feature is not None:
            self._describe(feature, self.features())


def about(result: MinimalSet) -> Text:
    """Return the lines above the table: what the set does, its harm, and what random sets do."""
    request = result.request
    text = Text()
    members = count(len(result.members), "feature")
    reached = "reached" if result.reached else "not reached"
    change = f"{number(result.baseline, 3)} → {number(result.ablated, 3)} {measures.unit_of(result.slope)}"
    text.append(
        f"{members}: {result.share:.0%} of the measure taken away ({request.share:.0%} wanted: {reached})", "bold"
    )
    text.append(f"\n{measure_in_short(request.measure)} · {change}")
    text.append(f"\n{harm(result)} · {result.n_tried:,} sets tried, each by running the layers above the hook")
    text.append(f" in {result.dtype}\n")
    text.append(controls(result))
    text.append("\nChosen on these very probes: whether it holds on others is not shown.", "dim")
    warnings = list(result.warnings)
    if result.facts_kept is not None and result.facts_kept < FACTS_KEPT:
        warnings.append("Facts suffer: a penalty for harm (m again) looks for another set.")
    for warning in warnings:
        text.append(f"\n⚠ {warning}", "bold")
    return text


def harm(result: MinimalSet) -> str:
    """Say what the set does to the questions of fact and to neutral text."""
    kept = "no questions of fact" if result.facts_kept is None else f"facts kept {result.facts_kept:.0%}"
    return kept + (" · KL not measured" if result.kl is None else f" · KL {result.kl:.3g} nats a token of neutral text")


def controls(result: MinimalSet) -> str:
    """Say how the set compares with random ones, and what evidence that is."""
    shares = result.control_shares
    if not shares:
        return "No random sets to compare with: associated, no more."
    return (
        f"{len(shares)} random sets of its size, about as active: {min(shares):.0%} to {max(shares):.0%}; it does more "
        f"than {beaten(result)} of them: {set_evidence(result)}"
    )

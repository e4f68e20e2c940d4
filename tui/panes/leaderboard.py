"""The leaderboard: features ranked by contrast of positive and negative prompts, with the effects of ablating them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from engine.records import RANK_COLUMNS, FeatureRow, Ranking
from engine.records.features import NO_NUMBER
from engine.records.words.features import tokens_in_words
from engine.records.words.rich_text import Text
from tui.panes.leaderboard_columns import COLUMNS, EFFECT, Column, chance_in_words, meanings, sortable, sorts_rows
from tui.services.context import Context
from tui.state.effects import Effects
from tui.state.study import Study
from tui.widgets.fields import LineField

NOTHING = """\
Which features tell your prompts apart?

r ranks all of them. Then: enter reads one, space ablates it, p pins it, f tells more about it.

A finds which ones influence an answer."""

TOKENS_WIDTH = 16
"""The least width of the column of tokens."""

FIXED_WIDTH = 11
"""The width of the columns of marks and of feature numbers."""

FALLBACK_WIDTH = 48


class FeatureTable(DataTable[Text]):
    """The table of features. Home and end go to the first and last row: there is no column cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "scroll_top", "First", show=False),
        Binding("end", "scroll_bottom", "Last", show=False),
    ]

    class Resized(Message):
        """The table's width has changed."""

    _width_before = 0

    def on_resize(self) -> None:
        """Post Resized if the width has changed."""
        if self.size.width != self._width_before:
            self._width_before = self.size.width
            self.post_message(self.Resized())


class Nothing(Static, can_focus=True):
    """The text in place of the table while nothing is ranked; it takes the focus."""


class LeaderboardPane(Vertical):
    """Pane 3: the ranking, with marks of pinned, labelled and edited features."""

    DEFAULT_CSS = """
    LeaderboardPane {
        & FeatureTable { height: 1fr; background: $surface; scrollbar-size-vertical: 1; scrollbar-size-horizontal: 0; }
        & #features-empty { height: 1fr; color: $text-muted; }
        & #features-note { height: auto; max-height: 3; color: $text-muted; }
        & #features-search { display: none; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "read", "Read", id="features.read", tooltip="Read the feature token by token"),
        Binding("slash", "search", "Search", key_display="/", id="features.search", tooltip="Search"),
        Binding("o", "sort(1)", "Sort", id="features.sort", tooltip="Sort by the next column"),
        Binding("O", "sort(-1)", "Sort back", show=False, id="features.sort_back", tooltip="Sort by the last column"),
        Binding("w", "weight", "Weight", show=False, id="features.weight",
                tooltip="Rank with, or without, the weight towards rare features"),
    ]  # fmt: skip
    HELP = f"""\
A feature high up is associated with the behaviour, no more: A finds which ones influence an answer. effect: what
ablating it does to the measure of the last attribution (−12%: it takes 12% of it away), ≈ where it is only estimated ·
evidence: influences where the exact effect is larger than that of 95% of features about as active, else associated ·
{meanings(RANK_COLUMNS)}. w ranks with, or without, the weight. ▣ edited, ▢ its edit is off, • pinned. # jumps to any
feature by its number."""

    @dataclass
    class FeatureMoved(Message):
        """The cursor has moved to another feature."""

        feature: int

    def __init__(self, context: Context, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.context = context
        self._ranking: Ranking | None = None
        self._effects: Effects | None = None
        self._here = ""
        """The key by which the pane has sorted its rows; "" for the ranking's own order."""
        self._marks: dict[int, str] = {}
        self._pinned: tuple[int, ...] = ()
        self._labels: dict[int, str] = {}

    def compose(self) -> ComposeResult:
        yield Nothing(NOTHING, id="features-empty", markup=False)
        table = FeatureTable(id="feature-table", cursor_type="row", fixed_columns=2, cell_padding=0)
        table.display = False
        yield table
        yield LineField(placeholder="number, token or label; enter keeps, escape clears", id="features-search")
        yield Static(id="features-note", markup=False)

    def on_mount(self) -> None:
        self.border_title = "3 Features"

    @property
    def table(self) -> FeatureTable:
        """The table, which takes the focus once there is a ranking."""
        return self.query_one(FeatureTable)

    def take_focus(self) -> None:
        """Focus the table, or the text in its place."""
        self.screen.set_focus(self.query_one(Nothing) if self._ranking is None else self.table)

    def feature(self) -> int | None:
        """Return the feature under the cursor; None if there is none."""
        table = self.table
        if not table.display or not table.is_valid_row_index(table.cursor_row):
            return None
        return int(table.ordered_rows[table.cursor_row].key.value or 0)

    def shown(self) -> list[int]:
        """Return the features of the table's rows, top down."""
        return [int(row.key.value or 0) for row in self.table.ordered_rows] if self.table.display else []

    # ---- showing

    def redraw(self) -> None:
        """Show the study's ranking with pins, labels and edits. The cursor stays on its feature."""
        study = self.context.study
        ranking, self._effects = study.ranking(), study.effects()
        self._pinned, self._labels = study.work.pinned, self.context.labels
        if self._effects is None and self._here == EFFECT:
            self._here = ""
        self._mark_edits()
        self._ranking = ranking
        had_focus = self.table.has_focus or self.query_one(Nothing).has_focus
        self.query_one(Nothing).display = ranking is None
        self.table.display = ranking is not None
        if ranking is not None:
            self._fill(ranking)
        if had_focus:
            self.take_focus()
        self._show_staleness()
        wanted = self.context.wanted
        if wanted is not None and self.go_to(wanted):
            self.context.wanted = None

    def redraw_for_prompts(self) -> None:
        """Show whether the ranking is out of date; remove effects of other probes."""
        self._show_staleness()
        effects = self.context.study.effects()
        if self._ranking is not None and (effects is None) != (self._effects is None):
            self.redraw()

    def redraw_marks(self) -> None:
        """Update the marks of edited features in place."""
        self._mark_edits()
        for row in self.table.ordered_rows:
            feature = int(row.key.value or 0)
            self.table.update_cell(row.key, "mark", self._mark(feature))

    def _show_staleness(self) -> None:
        words = staleness(self.context.study)
        self.set_class(bool(words), "-stale")
        self.border_subtitle = words
        if not words and self._ranking is not None:
            self.border_subtitle = f"{self._ranking.n_positive} vs {self._ranking.n_negative}"

    def _mark_edits(self) -> None:
        slots = self.context.study.work.edits
        self._marks = {slot.feature: "▣" if slot.on else "▢" for slot in slots}

    def _mark(self, feature: int) -> Text:
        return Text(self._marks.get(feature, " ") + ("•" if feature in self._pinned else " "))

    def _fill(self, ranking: Ranking) -> None:
        table = self.table
        before, row_before = self.feature(), table.cursor_row
        with self.prevent(DataTable.RowHighlighted):
            table.clear(columns=True)
            table.add_column("", width=3, key="mark")
            table.add_column("feature ", width=8, key="feature")
            columns = self._columns(ranking)
            tokens_width = self._tokens_width(columns)
            table.add_column("fires most on", width=tokens_width + 1, key="tokens")
            for column in columns:
                sorted_by = column.by == (self._here or ranking.by)
                name = column.heading + ("▾" if sorted_by else "")
                heading = Text(name.rjust(column.width), style="bold" if sorted_by else "")
                table.add_column(heading, width=column.width, key=column.heading)
            for row in self._rows(ranking):
                label = self._labels.get(row.feature)
                tokens = Text(f"“{label}”" if label else tokens_in_words(row.tokens), style="italic" if label else "")
                tokens.truncate(tokens_width, overflow="ellipsis")
                cells = [Text(c.cell(row, self._effects), self._style(row, c), justify="right") for c in columns]
                number = Text(f"{row.feature:>7} ")
                table.add_row(self._mark(row.feature), number, tokens, *cells, key=str(row.feature))
            if before is None or not self.go_to(before):
                table.move_cursor(row=min(row_before, table.row_count - 1))
        now = self.feature()
        if before is not None and now is not None and now != before:
            self.post_message(self.FeatureMoved(now))
        self._note(ranking)

    def _style(self, row: FeatureRow, column: Column) -> str:
        """Return bold for the effects of a feature shown to influence: the column of evidence may not fit."""
        effects = self._effects if column.of_effects else None
        return "bold" if effects is not None and effects.evidence(row.feature) == "influences" else ""

    def _columns(self, ranking: Ranking) -> list[Column]:
        """Return the columns to show, those without a number in any row last."""
        columns = [c for c in COLUMNS if self._effects is not None or not c.of_effects]
        empty = {c for c in columns if all(c.cell(row, self._effects) == NO_NUMBER for row in ranking.features)}
        return sorted(columns, key=lambda c: c in empty)

    def _tokens_width(self, columns: list[Column]) -> int:
        """Return the width left for the tokens when as many whole columns are shown as fit."""
        left = (self.table.size.width or FALLBACK_WIDTH) - FIXED_WIDTH - 2
        for column in columns:
            if left - column.width < TOKENS_WIDTH:
                break
            left -= column.width
        return max(TOKENS_WIDTH, left)

    @on(FeatureTable.Resized)
    def fit_columns(self) -> None:
        if self._ranking is not None:
            self._fill(self._ranking)

    def _rows(self, ranking: Ranking) -> list[FeatureRow]:
        """Return the rows that match the search, sorted, each feature once."""
        wanted = self.query_one("#features-search", Input).value.strip().lower()
        rows = sorted(ranking.features, key=self._place)
        by_feature = {row.feature: row for row in rows}
        return [row for row in by_feature.values() if not wanted or wanted in self._searched(row)]

    def _place(self, row: FeatureRow) -> tuple[bool, float]:
        """Return a row's sort key: pinned features first; equal keys keep the ranking's order."""
        place = 0.0
        if self._here == EFFECT and self._effects is not None:
            place = -self._effects.size(row.feature)
        elif self._here:
            number = getattr(row, self._here)
            place = inf if number is None else number
        return row.feature not in self._pinned, place

    def _searched(self, row: FeatureRow) -> str:
        return " ".join((str(row.feature), tokens_in_words(row.tokens), self._labels.get(row.feature, ""))).lower()

    def _note(self, ranking: Ranking) -> None:
        verdict = "associated, no more"
        if self._effects is not None:
            influence = self._effects.influence([row.feature for row in ranking.features])
            verdict = f"{influence} of {len(ranking.features)} shown to influence the answer"
        parts = [verdict, chance_in_words(ranking), f"{ranking.n_active_features:,} features fire"]
        if not ranking.density_weight:
            parts.append("density weight off: w")
        # chance_in_words says already how few labelings there are
        parts += [f"⚠ {words}" for words in ranking.warnings if "labelings" not in words]
        self.query_one("#features-note", Static).update(Text(" · ".join(filter(None, parts))))

    def go_to(self, feature: int) -> bool:
        """Move the cursor to a feature; return False if it has no row."""
        table = self.table
        if str(feature) not in table.rows:
            return False
        table.move_cursor(row=table.get_row_index(str(feature)), animate=False)
        return True

    # ---- what the user does

    @on(DataTable.RowHighlighted)
    def tell_feature(self, event: DataTable.RowHighlighted) -> None:
        event.stop()
        feature = self.feature()
        if feature is not None:
            self.post_message(self.FeatureMoved(feature))

    @on(DataTable.RowSelected)
    def action_read(self) -> None:
        """Show the feature under the cursor on the prompts, and focus the tokens pane."""
        feature = self.feature()
        if feature is not None:
            from tui.commands import features

            features.read(self.context, feature)
            self.context.desk.action_pane("tokens")

    @on(DataTable.HeaderSelected)
    def sort_by_heading(self, event: DataTable.HeaderSelected) -> None:
        """Sort by the column whose heading was clicked."""
        by = next((c.by for c in COLUMNS if c.heading == event.column_key.value), None)
        if by is not None:
            self._sort_by(by)

    def action_sort(self, step: int) -> None:
        """Sort by the next sortable column, or the previous one if `step` is -1."""
        if self._ranking is None:
            self.notify("Nothing is ranked yet: r")
            return
        order = sortable(self._ranking, self._effects)
        now = self._here or self._ranking.by
        at = order.index(now) if now in order else -1
        self._sort_by(order[(at + step) % len(order)])

    def _sort_by(self, by: str) -> None:
        ranking = self._ranking
        if ranking is None:
            return
        self._here = by if sorts_rows(by) else ""
        if self._here or by == ranking.by:
            self._fill(ranking)
        else:
            from tui.commands import features

            features.rank(self.context, by=by)

    def action_weight(self) -> None:
        """Rank again with the weight towards rare features switched."""
        if self._ranking is None:
            self.notify("Nothing is ranked yet: r")
        else:
            from tui.commands import features

            features.rank(self.context, weight=not self._ranking.density_weight)

    def action_search(self) -> None:
        search = self.query_one("#features-search", Input)
        search.display = True
        search.focus()

    @on(Input.Changed, "#features-search")
    def search(self, event: Input.Changed) -> None:
        event.stop()
        if self._ranking is not None:
            self._fill(self._ranking)

    @on(Input.Submitted, "#features-search")
    def keep_search(self, event: Input.Submitted) -> None:
        """On enter, focus the table and keep the search."""
        event.stop()
        if not event.value:
            event.input.display = False
        self.table.focus()

    @on(events.Key)
    def leave_search(self, event: events.Key) -> None:
        """On escape, end the search."""
        search = self.query_one("#features-search", Input)
        if event.key == "escape" and search.display:
            event.stop()
            search.value = ""
            search.display = False
            self.table.focus()


def staleness(study: Study) -> str:
    """Say what of the leaderboard is out of date and which key renews it; "" if nothing is."""
    if study.ranking_is_stale():
        return "prompts changed: r ranks again"
    if study.attribution() is not None and study.differences_from(study.results.loaded):
        return "effects of another pair: A measures again"
    if study.attribution() is not None and study.effects() is None:
        return "probes changed: A measures effects again"
    return ""

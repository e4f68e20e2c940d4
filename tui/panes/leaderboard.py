"""The leaderboard: features by how well they tell positive from negative prompts, and what ablating them does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.message import Message
from textual.widgets import DataTable, Input, Static

from engine.records import FeatureRow, Ranking
from engine.records.words.rich_text import Text
from engine.records.words.tokens import tokens_in_words
from tui.services.context import Context
from tui.state.effects import Effects
from tui.state.study import Study
from tui.widgets.fields import LineField

NOTHING = """\
Which features tell your prompts apart?

r ranks all of them. Then: enter reads one, space ablates it, p pins it, f tells more about it.

A finds which ones influence an answer."""

Cell = Callable[[FeatureRow, Effects | None], str]


@dataclass(frozen=True)
class Column:
    """A column: its heading, what it is sorted by (None: not at all), and a row's cell."""

    heading: str
    by: str | None
    cell: Cell
    width: int
    of_effects: bool = False
    """It is there once there is an attribution."""


def number(name: str, form: str = ".2f") -> Cell:
    """A cell with a number of the row; NONE where there is none."""

    def cell(row: FeatureRow, effects: Effects | None) -> str:
        value = getattr(row, name)
        return NONE if value is None else format(value, form)

    return cell


NONE = "–"

TOKENS_WIDTH = 16
"""At least."""

FIXED_WIDTH = 11
"""Of the marks and the number."""

FALLBACK_WIDTH = 48

COLUMNS = (
    Column("score", "score", number("score"), 7),
    Column("effect", "effect", lambda row, effects: effects.words(row.feature) if effects else NONE, 8, True),
    Column("evidence", None, lambda row, effects: effects.evidence(row.feature) if effects else NONE, 11, True),
    Column("p", None, number("p", ".2g"), 8),
    Column("t", "t", number("t"), 6),
    Column("auroc", "auroc", number("auroc"), 7),
    Column("diff", "diff", number("diff"), 6),
    Column("density", "density", number("density", ".2%"), 9),
    Column("loo", "loo", number("loo", "d"), 6),
    Column("+fires", "coverage_positive", number("coverage_positive", ".0%"), 8),
    Column("−fires", "coverage_negative", number("coverage_negative", ".0%"), 8),
    Column("g", "g", number("g"), 6),
    Column("seed", "seed", number("seed", ".1f"), 7),
)
"""In the order in which they are shown as far as they fit; one without any number goes last."""

FEW_LABELINGS = 1000

HERE = ("effect", "loo")
"""What the rows there are get sorted by here, without ranking again."""


class FeatureTable(DataTable[Text]):
    """The rows. Home and end go to the first and last one: there is no cursor for columns."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "scroll_top", "First", show=False),
        Binding("end", "scroll_bottom", "Last", show=False),
    ]

    class Resized(Message):
        """There is more or less room than before."""

    _width_before = 0

    def on_resize(self) -> None:
        """Tells of another width."""
        if self.size.width != self._width_before:
            self._width_before = self.size.width
            self.post_message(self.Resized())


class Nothing(Static, can_focus=True):
    """Stands in for the rows, and takes the focus, while nothing is ranked."""


class LeaderboardPane(Vertical):
    """The ranking, and what is pinned, labelled and edited."""

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
    HELP = """\
A feature high up is associated with the behaviour, no more: A finds which ones influence an answer. score: t, weighted
towards rare features (w: with or without) · effect: what ablating it does to the measure of the last attribution (−12%:
it takes 12% of it away), ≈ where it is only estimated · evidence: influences where the exact effect is larger than that
of 95% of features about as active, else associated · p: how often shuffled sets have any feature with such a score; –
where too few shuffles are possible · t: difference of means over its standard error · auroc: share of (positive,
negative) pairs in which the positive is higher · diff: difference of means · density: share of neutral tokens on which
it fires · loo: its worst rank when one prompt is left out · +fires, −fires: share of prompts in which it fires · g:
Hedges' g · seed: plain sum over positives, leading token included. ▣ edited, ▢ its edit is off, • pinned. # jumps to
any feature by its number."""

    @dataclass
    class FeatureMoved(Message):
        """The cursor is on another feature."""

        feature: int

    def __init__(self, context: Context, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.context = context
        self._ranking: Ranking | None = None
        self._effects: Effects | None = None
        self._here = ""
        """Which of HERE the rows are sorted by; "" for the ranking's own order."""
        self._marks: dict[int, str] = {}
        self._pinned: tuple[int, ...] = ()
        self._labels: dict[int, str] = {}

    def compose(self) -> ComposeResult:
        """The table, a search line, and a note on the ranking."""
        yield Nothing(NOTHING, id="features-empty", markup=False)
        table = FeatureTable(id="feature-table", cursor_type="row", fixed_columns=2, cell_padding=0)
        table.display = False
        yield table
        yield LineField(placeholder="number, token or label; enter keeps, escape clears", id="features-search")
        yield Static(id="features-note", markup=False)

    def on_mount(self) -> None:
        """The title."""
        self.border_title = "3 Features"

    @property
    def table(self) -> FeatureTable:
        """The rows, which have the focus."""
        return self.query_one(FeatureTable)

    def take_focus(self) -> None:
        """Focuses the rows."""
        self.screen.set_focus(self.query_one(Nothing) if self._ranking is None else self.table)

    def feature(self) -> int | None:
        """The feature under the cursor."""
        table = self.table
        if not table.display or not table.is_valid_row_index(table.cursor_row):
            return None
        return int(table.ordered_rows[table.cursor_row].key.value or 0)

    def shown(self) -> list[int]:
        """The features there are rows of, top down."""
        return [int(row.key.value or 0) for row in self.table.ordered_rows] if self.table.display else []

    # ---- showing

    def look(self) -> None:
        """Shows the study's ranking, and what is pinned, labelled and edited. The cursor stays on its feature."""
        study = self.context.study
        ranking, self._effects = study.ranking(), study.effects()
        self._pinned, self._labels = study.work.pinned, self.context.labels
        if self._effects is None and self._here == "effect":
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

    def look_at_prompts(self) -> None:
        """Says what no longer holds of the prompts; effects of other probes go."""
        self._show_staleness()
        effects = self.context.study.effects()
        if self._ranking is not None and (effects is None) != (self._effects is None):
            self.look()

    def look_at_edits(self) -> None:
        """Shows which features are edited, changed in place."""
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
        """Influence is bold, also where there is no room for the column that says so."""
        effects = self._effects if column.of_effects else None
        return "bold" if effects is not None and effects.evidence(row.feature) == "influences" else ""

    def _columns(self, ranking: Ranking) -> list[Column]:
        """The columns there is something to say in, then those that have no number in any row."""
        found = [c for c in COLUMNS if self._effects is not None or not c.of_effects]
        empty = {c for c in found if all(c.cell(row, self._effects) == NONE for row in ranking.features)}
        return sorted(found, key=lambda c: c in empty)

    def _tokens_width(self, columns: list[Column]) -> int:
        """What is left for the tokens when as many whole columns are shown as fit."""
        left = (self.table.size.width or FALLBACK_WIDTH) - FIXED_WIDTH - 2
        for column in columns:
            if left - column.width < TOKENS_WIDTH:
                break
            left -= column.width
        return max(TOKENS_WIDTH, left)

    @on(FeatureTable.Resized)
    def fit_columns(self) -> None:
        """Other columns fit."""
        if self._ranking is not None:
            self._fill(self._ranking)

    def _rows(self, ranking: Ranking) -> list[FeatureRow]:
        """The rows that the search lets through, each feature once."""
        wanted = self.query_one("#features-search", Input).value.strip().lower()
        rows = sorted(ranking.features, key=self._place)
        found = {row.feature: row for row in rows}
        return [row for row in found.values() if not wanted or wanted in self._searched(row)]

    def _place(self, row: FeatureRow) -> tuple[bool, float]:
        """Pinned ones first; equal places stay in the ranking's order."""
        place = 0.0
        if self._here == "effect" and self._effects is not None:
            place = -self._effects.size(row.feature)
        elif self._here == "loo":
            place = inf if row.loo is None else row.loo
        return row.feature not in self._pinned, place

    def _searched(self, row: FeatureRow) -> str:
        return " ".join((str(row.feature), tokens_in_words(row.tokens), self._labels.get(row.feature, ""))).lower()

    def _note(self, ranking: Ranking) -> None:
        said = "associated, no more"
        if self._effects is not None:
            influence = self._effects.influence([row.feature for row in ranking.features])
            said = f"{influence} of {len(ranking.features)} shown to influence the answer"
        found = [said, chance_in_words(ranking), f"{ranking.n_active_features:,} features fire"]
        if not ranking.density_weight:
            found.append("density weight off: w")
        # how few labelings there are is said already
        found += [f"⚠ {words}" for words in ranking.warnings if "labelings" not in words]
        self.query_one("#features-note", Static).update(Text(" · ".join(filter(None, found))))

    def go_to(self, feature: int) -> bool:
        """Puts the cursor on a feature; False where it has no row."""
        table = self.table
        if str(feature) not in table.rows:
            return False
        table.move_cursor(row=table.get_row_index(str(feature)), animate=False)
        return True

    # ---- what the user does

    @on(DataTable.RowHighlighted)
    def tell_feature(self, event: DataTable.RowHighlighted) -> None:
        """The cursor moved."""
        event.stop()
        feature = self.feature()
        if feature is not None:
            self.post_message(self.FeatureMoved(feature))

    @on(DataTable.RowSelected)
    def action_read(self) -> None:
        """The tokens get the focus."""
        feature = self.feature()
        if feature is not None:
            from tui.commands import features

            features.read(self.context, feature)
            self.context.desk.action_pane("tokens")

    @on(DataTable.HeaderSelected)
    def sort_by_heading(self, event: DataTable.HeaderSelected) -> None:
        """A click on a heading sorts by it."""
        by = next((c.by for c in COLUMNS if c.heading == event.column_key.value), None)
        if by is not None:
            self._sort_by(by)

    def action_sort(self, step: int) -> None:
        """Sorts by the next column."""
        if self._ranking is None:
            self.notify("Nothing is ranked yet: r")
            return
        order = [c.by for c in COLUMNS if c.by and (self._effects is not None or not c.of_effects)]
        if min(self._ranking.n_positive, self._ranking.n_negative) < 4:
            order.remove("g")
        if all(row.loo is None for row in self._ranking.features):
            order.remove("loo")
        now = self._here or self._ranking.by
        at = order.index(now) if now in order else -1
        self._sort_by(order[(at + step) % len(order)])

    def _sort_by(self, by: str) -> None:
        ranking = self._ranking
        if ranking is None:
            return
        self._here = by if by in HERE else ""
        if by in HERE or by == ranking.by:
            self._fill(ranking)
        else:
            from tui.commands import features

            features.rank(self.context, by=by)

    def action_weight(self) -> None:
        """Ranks with the weight, or without it."""
        if self._ranking is None:
            self.notify("Nothing is ranked yet: r")
        else:
            from tui.commands import features

            features.rank(self.context, weight=not self._ranking.density_weight)

    def action_search(self) -> None:
        """Opens the search line."""
        search = self.query_one("#features-search", Input)
        search.display = True
        search.focus()

    @on(Input.Changed, "#features-search")
    def search(self, event: Input.Changed) -> None:
        """Filters as it is typed."""
        event.stop()
        if self._ranking is not None:
            self._fill(self._ranking)

    @on(Input.Submitted, "#features-search")
    def keep_search(self, event: Input.Submitted) -> None:
        """Enter goes back to the rows, the search stays."""
        event.stop()
        if not event.value:
            event.input.display = False
        self.table.focus()

    @on(events.Key)
    def leave_search(self, event: events.Key) -> None:
        """Escape ends the search."""
        search = self.query_one("#features-search", Input)
        if event.key == "escape" and search.display:
            event.stop()
            search.value = ""
            search.display = False
            self.table.focus()


def chance_in_words(ranking: Ranking) -> str:
    """What p was counted over, or why there is none."""
    if ranking.permutations:
        every = "all " if ranking.permutations == ranking.labelings else ""
        return f"p: {every}{ranking.permutations:,} labelings, {1 / ranking.permutations:.1g} at least"
    if ranking.labelings < FEW_LABELINGS:
        return f"{ranking.labelings} labelings: no p below {ranking.p_floor:.2g}"
    return ""


def staleness(study: Study) -> str:
    """What of the leaderboard no longer holds, and which key mends it; "" if all does."""
    if study.ranking_is_stale():
        return "prompts changed: r ranks again"
    if study.attribution() is not None and study.other_than(study.results.loaded):
        return "effects of another pair: A measures again"
    if study.attribution() is not None and study.effects() is None:
        return "probes changed: A measures effects again"
    return ""

"""The leaderboard's columns: those of the ranking, and those of an attribution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from engine.records import RANK_COLUMNS, FeatureRow, Ranking
from engine.records.features import BY_NAME, NO_NUMBER, RankColumn
from tui.state.effects import Effects

Cell = Callable[[FeatureRow, Effects | None], str]


@dataclass(frozen=True)
class Column:
    """A column: its heading, the sort key (None: not sortable), and the function that makes a row's cell."""

    heading: str
    by: str | None
    cell: Cell
    width: int
    of_effects: bool = False
    """Whether the column is shown only once there is an attribution."""


EFFECT = "effect"
"""The sort key of the effects."""


def shown(column: RankColumn) -> Column:
    """Return the pane's column for a column of the ranking."""
    by = column.name if column.ranks or column.sorts_rows else None
    heading = column.app_heading or column.name
    return Column(heading, by, lambda row, effects: column.cell(row, column.app_form), column.width)


def sorts_rows(by: str) -> bool:
    """Return whether the pane sorts its rows by this key itself, without ranking again."""
    return by == EFFECT or BY_NAME[by].sorts_rows


def of_effects(say: Callable[[Effects, int], str]) -> Cell:
    """Return a cell function that calls `say` on the effects and the row's feature."""
    return lambda row, effects: say(effects, row.feature) if effects else NO_NUMBER


def columns(ranked: Sequence[RankColumn]) -> tuple[Column, ...]:
    """Return the columns of the ranking in their order, and after the first one those of an attribution."""
    first, *rest = map(shown, sorted(ranked, key=lambda column: column.place))
    return (
        first,
        Column("effect", EFFECT, of_effects(Effects.words), 8, True),
        Column("evidence", None, of_effects(Effects.evidence), 11, True),
        *rest,
    )


COLUMNS = columns(RANK_COLUMNS)
"""All columns, in the order in which as many are shown as fit; columns without any number go last."""


def meanings(ranked: Sequence[RankColumn]) -> str:
    """Explain these columns for the help, in their order."""
    in_place = sorted(ranked, key=lambda column: column.place)
    return " · ".join(f"{column.app_heading or column.name}: {column.meaning}" for column in in_place)


def sortable(ranking: Ranking, effects: Effects | None) -> list[str]:
    """Return the keys by which a ranking's rows can be sorted, in the columns' order."""
    missing = {c.name for c in RANK_COLUMNS if not c.has_prompts(ranking.n_positive, ranking.n_negative)}
    missing |= {c.name for c in RANK_COLUMNS if c.sorts_rows and all(c.value(r) is None for r in ranking.features)}
    columns = [c for c in COLUMNS if effects is not None or not c.of_effects]
    return [c.by for c in columns if c.by and c.by not in missing]


FEW_LABELINGS = 1000


def chance_in_words(ranking: Ranking) -> str:
    """Say how many labelings p was counted over, or why there is no p."""
    if ranking.permutations:
        every = "all " if ranking.permutations == ranking.labelings else ""
        return f"p: {every}{ranking.permutations:,} labelings, {1 / ranking.permutations:.1g} at least"
    if ranking.labelings < FEW_LABELINGS:
        return f"{ranking.labelings} labelings: no p below {ranking.p_floor:.2g}"
    return ""

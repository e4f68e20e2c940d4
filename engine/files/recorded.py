"""The table of the kinds of results that a session keeps: how each is exported, run again and compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from engine.files import replays
from engine.files.export import markdown, tables
from engine.files.session import Session
from engine.records import (
    Attribution,
    Generated,
    MinimalSet,
    ProbeTable,
    Ranking,
    Recorded,
    Replayable,
    Replayed,
    Request,
)


@dataclass(frozen=True)
class Replaying:
    """How a result is run again."""

    request_of: Callable[[Any], Request]
    compare: Callable[[Any, Any], Replayed]
    """Compares the recorded result with the new one."""
    in_words: Callable[[Any, Replayed], list[str]]
    """Returns what was run again and how it compares; the lines after the first are details."""
    is_remembered: bool = True
    """Whether the engine remembers what the result was computed from, and is to forget it first."""


@dataclass(frozen=True)
class KindOfResult:
    """Everything about a kind of result that a session keeps."""

    table: str
    """Name of its csv table."""
    rows: Callable[[Any], Iterator[dict[str, Any]]]
    """Yields a result's rows of that table, without the number of the result."""
    number: str
    """Name of the table's first column, the number of the result."""
    section: Callable[[Any], list[str]]
    """Returns a result's section of the markdown report."""
    replaying: Replaying | None = None
    parts: Callable[[Any], Sequence[Replayable]] = lambda result: (result,)
    """Returns what is run again in place of the result, where it has no `replaying` of its own."""


RECORDED: dict[type[Recorded], KindOfResult] = {
    Ranking: KindOfResult(
        "features",
        tables.feature_rows,
        "ranking",
        markdown.ranking_section,
        Replaying(replays.ranking_again, replays.compare_rankings, replays.ranking_in_words),
    ),
    Generated: KindOfResult(
        "generations",
        tables.generation_rows,
        "generation",
        markdown.generation_section,
        Replaying(replays.text_again, replays.compare_texts, replays.text_in_words, is_remembered=False),
    ),
    ProbeTable: KindOfResult(
        "probes",
        tables.probe_rows,
        "table",
        markdown.probe_section,
        parts=lambda table: [row.generated for row in table.rows],
    ),
    Attribution: KindOfResult(
        "attributions",
        tables.attribution_rows,
        "attribution",
        markdown.attribution_section,
        Replaying(lambda result: result.request, replays.compare_attributions, replays.attribution_in_words),
    ),
    MinimalSet: KindOfResult(
        "sets",
        tables.set_rows,
        "set",
        markdown.set_section,
        Replaying(lambda result: result.request, replays.compare_sets, replays.set_in_words),
    ),
}
"""Every kind of result that a session keeps, in the order of a report. A new one needs its place in the union Recorded
and a row here."""


def replaying(result: Replayable) -> Replaying:
    """Return how a result is run again."""
    how = RECORDED[type(result)].replaying
    if how is None:
        raise TypeError(f"a {type(result).__name__} is replayed in parts")
    return how


def replayable(session: Session) -> list[Replayable]:
    """Return what can be run again: all results, a table of probes as its texts."""
    return [part for result in session.results for part in RECORDED[type(result)].parts(result)]


def replay_in_words(result: Replayable, again: Replayed) -> list[str]:
    """Return what was run again and how it compares; for a text, one more line per arm that differs."""
    return replaying(result).in_words(result, again)

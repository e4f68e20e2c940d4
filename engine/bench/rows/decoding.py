"""Row 1: baseline and edited text of one prompt, as the app generates them, against two runs of other libraries.

Ours is one batch of two rows; a second ratio adds the third row that KL takes. The others run twice, without and with
their hook. All generate the same number of tokens, greedily, in the same dtype.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from engine.bench import contenders, ours
from engine.bench.subjects import Subject, settle, tiny, usual
from engine.bench.timing import Row, Times, as_raw, in_turn, spread
from engine.records.errors import ModelError

WHAT = "two transformers runs with a hook ÷ our pair"

GOALS = {"cpu": 2.5, "cuda": 5.0}


@dataclass(frozen=True)
class Shape:
    """Number of tokens of a text, and of rounds."""

    tokens: int
    rounds: int


def shapes(quick: bool) -> tuple[Shape, Shape]:
    """Return the shapes for the tiny model and the usual one."""
    return (Shape(24, 1), Shape(20, 1)) if quick else (Shape(64, 5), Shape(32, 3))


def measure(sizes: tuple[Shape, Shape], device: torch.device) -> list[Row]:
    """Measure both subjects. On a CPU only the tiny one has a goal: a large model's time goes into matrix products."""
    goal = GOALS[device.type]
    rows = rows_of(tiny(device), sizes[0], goal)
    try:
        return rows + rows_of(usual(device), sizes[1], goal if device.type == "cuda" else None)
    except ModelError as error:
        return [*rows, Row(1, WHAT, "", "", None, goal, note=error.message)]


def rows_of(subject: Subject, sizes: Shape, goal: float | None) -> list[Row]:
    """Return the ratios of transformers to our pair, without and with KL's row, and of nnsight to our pair."""
    edits = subject.ablations()
    work: dict[str, Callable[[], object]] = {
        "pair": ours.pair(subject, sizes.tokens, edits),
        "pair and KL": ours.pair(subject, sizes.tokens, edits, kl=True),
        "transformers": twice(contenders.transformers_run, subject, sizes.tokens),
        "nnsight": twice(contenders.nnsight_run, subject, sizes.tokens),
    }
    times = in_turn(work, sizes.rounds, settle(subject.model.device))
    raw = {"tokens": sizes.tokens, "rounds": sizes.rounds, "seconds": as_raw(times)}

    def row(what: str, mine: str, other: str, row_goal: float | None) -> Row:
        description = f"{per_token(times[mine], sizes)}, {subject.said}"
        return Row(1, what, description, per_token(times[other], sizes), ratio(times, other, mine), row_goal, raw=raw)

    return [
        row(WHAT, "pair", "transformers", goal),
        row("the same ÷ our pair with KL's row", "pair and KL", "transformers", None),
        row("two nnsight runs ÷ our pair", "pair", "nnsight", None),
    ]


def twice(
    make: Callable[[Subject, int, contenders.Edits], contenders.Generation], subject: Subject, tokens: int
) -> Callable[[], object]:
    """Return a function that makes a run without edits, then one with."""
    baseline, edited = make(subject, tokens, ()), make(subject, tokens, subject.ablations())
    return lambda: (baseline(), edited())


def ratio(times: dict[str, Times], above: str, below: str) -> float:
    """Return the ratio of two contenders' medians."""
    return times[above].median / times[below].median


def per_token(times: Times, sizes: Shape) -> str:
    """Say time per token, such as "5.1 ms/token (5.0–5.3)"."""
    return spread(times, sizes.tokens / 1e3, "ms/token")

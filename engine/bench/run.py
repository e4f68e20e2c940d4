"""The rows of the bench, and one run of the chosen ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from engine.bench import machine
from engine.bench.rows import ablation, capture, memory, screen, start, step, toggle
from engine.bench.rows import decoding as pair
from engine.bench.rows import encoding as encode
from engine.bench.rows import loading as load
from engine.bench.timing import Row
from engine.loading.load_model import choose_device
from engine.records.errors import UsageError

Measure = Callable[[torch.device, bool, str | None], list[Row]]

ROWS: dict[int, tuple[tuple[str, Measure], ...]] = {
    1: (("pair against two runs", lambda device, quick, model: pair.measure(pair.shapes(quick), device)),),
    2: (("bytes of a step", lambda device, quick, model: step.measure(2, step.shape(quick), device)),),
    3: (("step of two rows", lambda device, quick, model: step.measure(3, step.shape(quick), device)),),
    4: (("step under edits", lambda device, quick, model: step.measure(4, step.shape(quick), device)),),
    5: (("toggle", lambda device, quick, model: toggle.measure(toggle.shape(quick), device)),),
    6: (("ablation", lambda device, quick, model: ablation.measure(ablation.shape(quick), device)),),
    7: (("encode + statistics", lambda device, quick, model: encode.measure(encode.shape(quick), device)),),
    8: (("memory of encode + statistics", lambda device, quick, model: memory.measure(memory.shape(quick), device)),),
    9: (("capture", lambda device, quick, model: capture.measure(capture.shape(quick), device, model)),),
    10: (
        ("first paint", lambda device, quick, model: start.measure(start.runs(quick))),
        ("loading a SAE", lambda device, quick, model: load.measure("sae", load.shape(quick), device)),
        ("loading a model", lambda device, quick, model: load.measure("model", load.shape(quick), device)),
    ),
    11: (
        ("painting tokens", lambda device, quick, model: screen.repaint(screen.shape(quick))),
        ("text streams", lambda device, quick, model: screen.streaming(screen.shape(quick))),
        ("the engine loads", lambda device, quick, model: screen.loading()),
    ),
}
"""By row number of the scoreboard: the names of its measurements and the functions that make them."""


@dataclass(frozen=True)
class Report:
    """One run of the bench."""

    machine: dict[str, Any]
    quick: bool
    """Measured with smaller shapes: not comparable with the goals, so no goal is met or missed."""
    rows: list[Row]


def chosen_rows(text: str | None) -> list[int]:
    """Return the row numbers that text such as "7,8" names, all for None. Raises UsageError for others."""
    if text is None:
        return list(ROWS)
    numbers = [int(part) if part.strip().isdecimal() and len(part) < 9 else -1 for part in text.split(",")]
    if not set(numbers) <= set(ROWS):
        raise UsageError(f"--rows {text}: there are rows {', '.join(map(str, ROWS))}.", "For example --rows 7,8.")
    return sorted(set(numbers))


def run(rows: list[int], device: str | None, quick: bool, model: str | None, note: Callable[[str], None]) -> Report:
    """Measure these rows; call `note` with the name of each measurement. Raises UsageError for an unknown device."""
    torch.set_num_threads(1)
    chosen_device = torch.device("cpu") if device is None else choose_device(device)
    measured: list[Row] = []
    for number in rows:
        for name, measure in ROWS[number]:
            note(f"row {number}: {name}")
            measured += measure(chosen_device, quick, model)
    return Report(machine.describe(chosen_device), quick, measured)

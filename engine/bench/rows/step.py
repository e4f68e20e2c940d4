"""Rows 2, 3 and 4: the cost of a decoding step (one more token in all rows of a batch), on the usual subject.

row 2  the rate at which a step reads its bytes (weights, keys and values) ÷ the rate of a memory copy in the same run
row 3  a step of two rows ÷ a step of one, in bfloat16: the second row should cost nothing
row 4  a step of two rows with 64 edited features ÷ a step without a hook of saescope
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from engine.bench import ours
from engine.bench.subjects import Subject, settle, usual
from engine.bench.timing import Row, Times, as_raw, in_turn, spread
from engine.generation.edits import ResidualEditor
from engine.records.errors import ModelError

SLOTS = 64

BATCH = 2

GPU_COPIES = 16
"""A GPU copies this many times as much, or launching and waiting would be part of the time."""

WHAT = {
    2: "bytes a step reads ÷ its time ÷ the rate of a copy",
    3: "step of two rows ÷ step of one, bfloat16",
    4: f"step with {SLOTS} edited features ÷ step without a hook",
}

GOALS = {2: 0.75, 3: 1.05, 4: 1.02}


@dataclass(frozen=True)
class Shape:
    """Number of steps in a round, number of rounds, and bytes copied for comparison."""

    steps: int
    rounds: int
    copied: int


def shape(quick: bool) -> Shape:
    """Return a shape of few steps and many rounds: a ratio of 1.02 has to be told from 1."""
    return Shape(4, 2, 1 << 24) if quick else Shape(6, 15, 1 << 28)


class Unhooked(ResidualEditor):
    """An editor that hooks nothing, for a step of the bare model."""

    @contextmanager
    def applied(self, module: nn.Module | None = None) -> Iterator[None]:
        """Mark no position as edited; hook nothing."""
        self.allowed_BT = self.active_BT = torch.zeros_like(self._ids_BT, dtype=torch.bool)
        yield


def measure(number: int, sizes: Shape, device: torch.device) -> list[Row]:
    """Measure one of the rows 2, 3 and 4; its note says why where it cannot be measured."""
    bf16 = torch.bfloat16 if number == 3 else None
    goal = GOALS[number]
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    if number == 3 and device.type == "cpu" and not native:
        note = "bfloat16 is not native to this CPU"
        return [Row(3, WHAT[3], "", "", None, goal, at_least=False, note=note)]
    try:
        subject = usual(device, bf16)
    except ModelError as error:
        return [Row(number, WHAT[number], "", "", None, goal, at_least=number == 2, note=error.message)]
    return [{2: limit, 3: second_row, 4: slots}[number](subject, sizes)]


def limit(subject: Subject, sizes: Shape) -> Row:
    """Measure row 2. The goal is for a GPU; on a CPU the row is for information."""
    device = subject.model.device
    copied = sizes.copied * (GPU_COPIES if device.type == "cuda" else 1)
    source = torch.zeros(copied, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    step = ours.stepping(subject, subject.editor((), subject.ablations()), sizes.steps)
    times = in_turn({"step": step, "copy": partial(target.copy_, source)}, sizes.rounds, settle(device))
    read = step_bytes(subject, ours.room_of(subject, sizes.steps))
    rate, copy_rate = read * sizes.steps / times["step"].median, 2 * copied / times["copy"].median
    raw = {"seconds": as_raw(times), "steps": sizes.steps, "bytes": read, "copied": 2 * copied}
    description = (
        f"{spread(times['step'], sizes.steps / 1e3, 'ms')}, {read / 1e6:.0f} MB, {subject.said}, {device.type}"
    )
    goal = GOALS[2] if device.type == "cuda" else None
    return Row(2, WHAT[2], description, f"copy: {copy_rate / 1e9:.3g} GB/s", rate / copy_rate, goal, raw=raw)


def step_bytes(subject: Subject, room: int) -> int:
    """Return the bytes that a step reads: the weights, and keys and values of BATCH rows of `room` positions."""
    model, config = subject.model, subject.model.module.config.get_text_config()
    weights = {id(p): p.numel() * p.element_size() for p in model.module.parameters()}
    embedding, head = model.module.get_input_embeddings().weight, model.module.get_output_embeddings().weight
    if embedding is not head:
        del weights[id(embedding)]  # a step reads only a row or two of it
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * width * model.dtype.itemsize
    return int(sum(weights.values()) + BATCH * room * token)


def second_row(subject: Subject, sizes: Shape) -> Row:
    """Measure row 3, two rows against one."""
    edits = subject.ablations()
    work = {"two": ((), edits), "one": (edits,)}
    times = compare(subject, {name: subject.editor(*rows) for name, rows in work.items()}, sizes)
    return row_of(3, subject, sizes, times, "two", "one")


def slots(subject: Subject, sizes: Shape) -> Row:
    """Measure row 4, SLOTS edited features against no hook."""
    edits = subject.ablations(SLOTS)
    bare = Unhooked(subject.model, subject.sae, subject.hook, subject.reference, ((), ()))
    times = compare(subject, {"edited": subject.editor((), edits), "bare": bare}, sizes)
    return row_of(4, subject, sizes, times, "edited", "bare")


def compare(subject: Subject, editors: dict[str, ResidualEditor], sizes: Shape) -> dict[str, Times]:
    """Time steps with these editors in turn."""
    work: dict[str, Callable[[], Any]] = {
        name: ours.stepping(subject, editor, sizes.steps) for name, editor in editors.items()
    }
    return in_turn(work, sizes.rounds, settle(subject.model.device))


def row_of(number: int, subject: Subject, sizes: Shape, times: dict[str, Times], *names: str) -> Row:
    """Return the row of the first of two contenders ÷ the second."""
    per = sizes.steps / 1e3
    raw = {"seconds": as_raw(times), "steps": sizes.steps, "rounds": sizes.rounds}
    mine, other = (spread(times[name], per, "ms") for name in names)
    ratio = times[names[0]].median / times[names[1]].median
    description = f"{mine}, {subject.said}"
    return Row(number, WHAT[number], description, other, ratio, GOALS[number], at_least=False, raw=raw)

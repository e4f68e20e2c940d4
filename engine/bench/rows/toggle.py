"""Row 5: how many tokens pass until a toggled edit acts, and whether an edit that is off changes a bit.

Both arms of a text are generated as in the app, on the tiny model in float32 and on the usual one in the app's dtype.
The edit is sent as the answer to a token, as the app sends it; logits of all passes are kept and compared bit by bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from engine.bench.subjects import Subject, tiny, usual
from engine.bench.timing import Row
from engine.generation import decoding as decode
from engine.generation.decoding import BASELINE, EDITED
from engine.generation.edits import ResidualEditor
from engine.generation.steps import Pass, Steps, room_for
from engine.models.language_model import LanguageModel
from engine.records import Edit, Generate, Prompt, Reply, Sampling, TokenStep
from engine.records.errors import ModelError

DELAY, OFF = "tokens from a toggle to its effect", "passes whose bits an edit that is off changes"

STEERED = 0.1
"""How far the edit steers a vector, as a multiple of the median vector's norm."""

MARGIN = 3
"""Number of tokens generated after a toggle to look for its effect."""


@dataclass(frozen=True)
class Shape:
    """Number of tokens of the text, and the tokens after which the edit is toggled on, off, on …"""

    tokens: int
    toggles: tuple[int, ...]


def shape(quick: bool) -> Shape:
    """Return toggles before the decoding step is captured, around that token, and after it."""
    return Shape(8, (3,)) if quick else Shape(40, (4, 9, 16, 17, 25, 33))


class Kept(Steps):
    """Steps that keep the logits of every pass."""

    def __init__(self, model: LanguageModel, editor: ResidualEditor, length: int) -> None:
        super().__init__(model, editor, length)
        self.logits: list[torch.Tensor] = []

    def prompt(self, *args: Any) -> Pass:
        """Read the prompt and keep the pass's logits."""
        return self._keep(super().prompt(*args))

    def step(self, ids_B: torch.Tensor) -> Pass:
        """Take a step and keep its logits."""
        return self._keep(super().step(ids_B))

    def _keep(self, result: Pass) -> Pass:
        self.logits.append(result.logits_BV.clone())
        return result


def measure(sizes: Shape, device: torch.device) -> list[Row]:
    """Measure both subjects."""
    rows = rows_of(tiny(device), sizes)
    try:
        return rows + rows_of(usual(device), sizes)
    except ModelError as error:
        return [*rows, Row(5, DELAY, "", "", None, 1.0, at_least=False, unit="tokens", note=error.message)]


def rows_of(subject: Subject, sizes: Shape) -> list[Row]:
    """Return two rows: the longest delay of all toggles, and how many passes without edits differ from the baseline."""
    delays = [delay(subject, sizes.toggles[: n + 1]) for n in range(len(sizes.toggles))]
    passes = generate(subject, sizes.tokens, ())
    changed = sum(not torch.equal(logits_BV[BASELINE], logits_BV[EDITED]) for logits_BV in passes)
    raw = {"shape": asdict(sizes), "delays": delays, "passes": len(passes), "changed": changed}
    answered = ", ".join(str(token + 1) for token in sizes.toggles)
    longest = float(max(delays))
    return [
        Row(5, DELAY, f"{subject.said}, at tokens {answered}", "", longest, 1.0, False, "tokens", raw=raw),
        Row(5, OFF, f"{subject.said}, {len(passes)} passes", "", float(changed), 0.0, False, "passes", raw=raw),
    ]


def delay(subject: Subject, toggles: tuple[int, ...]) -> int:
    """Return the number of tokens from the last toggle to the first pass that it changes, that one included.

    MARGIN + 1 if it changes none.
    """
    last = toggles[-1]
    without = generate(subject, last + 1 + MARGIN, toggles[:-1])
    toggled = generate(subject, last + 1 + MARGIN, toggles)
    differs = [not torch.equal(a[EDITED], b[EDITED]) for a, b in zip(without, toggled, strict=True)]
    return differs.index(True) - last if True in differs else MARGIN + 1


def generate(subject: Subject, num_tokens: int, toggles: Sequence[int]) -> list[torch.Tensor]:
    """Return logits_BV of every pass of a text whose edit is toggled on and off in answer to these tokens."""
    edit = Edit(subject.ablations(1)[0].feature, 1.0, "steer", absolute=STEERED * subject.reference.median_norm)
    request = Generate(Prompt("bench"), (), Sampling(max_tokens=num_tokens))
    rows, ids = decode.rows_of(request, kl=False), subject.prompt
    steps = Kept(subject.model, subject.editor(*decode.lists_of(request, rows, ())), room_for(len(ids) + num_tokens))
    running = decode.Text(subject.model, steps, rows, ids, request).run()
    reply: Reply = None
    on = False
    while True:
        try:
            step = running.send(reply)
        except StopIteration:
            return steps.logits
        reply = None
        if isinstance(step, TokenStep) and step.index in toggles:
            on = not on
            reply = (edit,) if on else ()

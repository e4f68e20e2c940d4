"""How we generate: the pair as the app does, and single rows, on steps that are kept from text to text as the app's."""

from __future__ import annotations

from collections.abc import Callable

import torch

from engine.bench.subjects import Subject
from engine.generation.decoding import Decoded, Text, lists_of, rows_of
from engine.generation.edits import ResidualEditor
from engine.generation.steps import CAPTURE_AFTER, Steps, room_for
from engine.loading.demo.model import finish
from engine.records import Edit, Generate, Prompt, Sampling

WARM = 1 + max(CAPTURE_AFTER.values())
"""Steps after which the step is captured."""


def pair(
    subject: Subject, num_tokens: int, edits: tuple[Edit, ...], kl: bool = False, steps: type[Steps] = Steps
) -> Callable[[], Decoded]:
    """Generates baseline and edited text, all that the app does for a token included; `kl` adds its row."""
    request = Generate(Prompt("bench"), edits, Sampling(max_tokens=num_tokens))
    rows, ids = rows_of(request, kl), subject.prompt
    editor = subject.editor(*lists_of(request, rows, edits))
    held = steps(subject.model, editor, room_for(len(ids) + num_tokens))

    def run() -> Decoded:
        decoded: Decoded = finish(Text(subject.model, held, rows, ids, request).run())
        return decoded

    return run


def alone(subject: Subject, num_tokens: int, editor: ResidualEditor) -> Callable[[], list[int]]:
    """Generates the text of the editor's first row, greedily; all its rows go along."""
    ids = subject.prompt
    steps = Steps(subject.model, editor, room_for(len(ids) + num_tokens))

    def run() -> list[int]:
        chosen_B = steps.prompt(ids).logits_BV.argmax(-1)
        found = [int(chosen_B[0])]
        while len(found) < num_tokens:
            chosen_B = steps.step(chosen_B).logits_BV.argmax(-1)
            found.append(int(chosen_B[0]))
        return found

    return run


def room_of(subject: Subject, count: int) -> int:
    """Room that `stepping` has for tokens."""
    return room_for(len(subject.prompt) + count)


def stepping(subject: Subject, editor: ResidualEditor, count: int) -> Callable[[], None]:
    """`count` steps from the same position on, the step captured already."""
    ids = subject.prompt
    steps = Steps(subject.model, editor, room_of(subject, count))
    steps.prompt(ids)
    token_B = torch.full((steps.rows,), ids[0], device=subject.model.device)

    def run() -> None:
        steps.rewind(len(ids))
        for _ in range(count):
            steps.step(token_B)

    for _ in range(-(-WARM // count) + 1):
        run()
    return run

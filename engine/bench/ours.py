"""saescope's own generation, for the bench: the pair as in the app, and single rows.

Steps are kept from text to text, as in the app.
"""

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
"""Number of steps after which the decoding step has been captured."""


def pair(
    subject: Subject, num_tokens: int, edits: tuple[Edit, ...], kl: bool = False, steps: type[Steps] = Steps
) -> Callable[[], Decoded]:
    """Return a run that generates baseline and edited text, with all the app does for a token; `kl` adds KL's row."""
    request = Generate(Prompt("bench"), edits, Sampling(max_tokens=num_tokens))
    rows, ids = rows_of(request, kl), subject.prompt
    editor = subject.editor(*lists_of(request, rows, edits))
    held = steps(subject.model, editor, room_for(len(ids) + num_tokens))

    def run() -> Decoded:
        decoded: Decoded = finish(Text(subject.model, held, rows, ids, request).run())
        return decoded

    return run


def alone(subject: Subject, num_tokens: int, editor: ResidualEditor) -> Callable[[], list[int]]:
    """Return a run that greedily generates the text of the editor's first row, with its other rows in the batch."""
    ids = subject.prompt
    steps = Steps(subject.model, editor, room_for(len(ids) + num_tokens))

    def run() -> list[int]:
        chosen_B = steps.prompt(ids).logits_BV.argmax(-1)
        tokens = [int(chosen_B[0])]
        while len(tokens) < num_tokens:
            chosen_B = steps.step(chosen_B).logits_BV.argmax(-1)
            tokens.append(int(chosen_B[0]))
        return tokens

    return run


def room_of(subject: Subject, count: int) -> int:
    """Return the number of positions for which `stepping` has room."""
    return room_for(len(subject.prompt) + count)


def stepping(subject: Subject, editor: ResidualEditor, count: int) -> Callable[[], None]:
    """Return a run of `count` steps, always from the same position; the step has been captured before it returns."""
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

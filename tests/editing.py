"""Small helpers around the editor."""

import torch

from engine.generation.edits import GENERATED, LAST, PROMPT
from engine.models.reference import Reference


def make_reference(sae, sink_norm=1e9, maximum_F=None, median_u=1.0):
    """A reference of which only what edits need is real."""
    maximum_F = torch.ones(sae.d_sae) if maximum_F is None else maximum_F
    nothing = torch.zeros(sae.d_sae, 1)
    return Reference(
        text="none",
        token_ids_T=torch.zeros(0, dtype=torch.int32),
        n_tokens=0,
        count_F=torch.zeros(sae.d_sae, dtype=torch.int32),
        maximum_F=maximum_F,
        strongest_FS=nothing,
        position_FS=nothing.int(),
        histogram_FB=nothing.int(),
        first_bin=0,
        median_norm=sink_norm / 10,
        median_u=median_u,
        l0=0.0,
        variance_explained=0.0,
    )


def kinds(length, start):
    """PROMPT up to the prompt's last token, LAST, and GENERATED from `start` on."""
    return [GENERATED if t >= start else LAST if t == start - 1 else PROMPT for t in range(length)]


def expect(editor, ids, start=None, **how):
    """Announces a pass in which every row reads the same ids, generated from `start` on; None: all is prompt."""
    rows = len(editor.rows)
    kind_BT = torch.tensor([kinds(len(ids), len(ids) if start is None else start)] * rows)
    editor.expect(torch.tensor([list(ids)] * rows), kind_BT, **how)


def counts(editor, row=0):
    """(positions where some edit may act, those of them where none had anything to act on) of the last pass."""
    allowed = int(editor.allowed_BT[row].sum())
    return allowed, allowed - int(editor.active_BT[row].sum())

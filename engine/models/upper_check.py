"""Whether the layers above a hook point, run by themselves, give the whole model's numbers: compared once per load.

Some families' layers need more than the vectors that enter them: what lower layers left behind, or a cache of their
own. Where the comparison fails, the whole model is run instead; where that fails too, the family is refused.
"""

from __future__ import annotations

import torch

from engine.models.agreement import REFUSED, SLOWER, TEXTS, UNFIT, Limit, agrees, keeps_states
from engine.models.hooks import HookPoint, changed
from engine.models.language_model import LanguageModel
from engine.models.upper_layers import Row, UpperLayers
from engine.records import Prompt
from engine.records.errors import ModelError


def checked_upper(model: LanguageModel, hook: HookPoint) -> UpperLayers:
    """The layers above the hook, or the whole model in their place. Raises HookError; ModelError where neither fits.

    The comparison is made in the model's own dtype, in which both sides share its weights.
    """
    if not _finite(model):  # nothing to compare: the whole model needs no comparison, and its verbs name the overflow
        return UpperLayers(model, hook, whole=True)
    for whole in (False, True):
        tried = UpperLayers(model, hook, whole, model.dtype)
        try:
            rows = _rows(model, tried)
            fits = _agrees(model, tried, rows, REFUSED if whole else SLOWER)
        except torch.OutOfMemoryError:
            raise
        except UNFIT:
            fits = False
        if fits:
            upper = UpperLayers(model, hook, whole)
            upper.with_past = not whole and not keeps_states(model.module.config) and _past_agrees(tried, rows)
            return upper
    raise ModelError(
        f"Effects on answers cannot be measured in a {type(model.module).__name__}: run on several texts at once, its "
        "layers do not give what they give for each text by itself.",
        "Ranking does not need this. Where texts can be generated, `probes --ablate` gives the effect of a feature.",
    )


@torch.inference_mode()
def _finite(model: LanguageModel) -> bool:
    """Whether the model's own logits on the texts are numbers."""
    rows = [torch.tensor([model.tokens.feed(Prompt(text, "raw")).ids], device=model.device) for text in TEXTS]
    return all(bool(model.module(input_ids=row, use_cache=False).logits.isfinite().all()) for row in rows)


def _rows(model: LanguageModel, upper: UpperLayers) -> list[Row]:
    sequences = [model.tokens.feed(Prompt(text, "raw")).ids for text in TEXTS]
    return [Row(i, h.clone()) for i, h in zip(sequences, model.capture_batch(upper.entry, sequences), strict=True)]


def _agrees(model: LanguageModel, upper: UpperLayers, rows: list[Row], limit: Limit) -> bool:
    """Whether logits of all rows and a gradient are those of the whole model, each row by itself."""
    h = upper.hooked(rows)
    with torch.inference_mode(False), torch.enable_grad():
        delta_BTD = h[0].new_zeros(len(rows), max(map(len, rows)), h[0].shape[-1]).clone().requires_grad_()
        plain_rows = [Row(row.ids, row.entry_TD.clone()) for row in rows]
        logits_NV = upper.logits(plain_rows, delta_BTD, [range(len(row)) for row in rows])
        g_BTD = torch.autograd.grad(logits_NV.log_softmax(-1)[:, 0].sum(), delta_BTD)[0]
        for b, (row, found_TV) in enumerate(zip(rows, torch.split(logits_NV, [len(row) for row in rows]), strict=True)):
            wanted_TV, wanted_TD = _whole(model, upper.hook, row, h[b].shape[-1])
            if not agrees(found_TV, wanted_TV, model.dtype, limit):
                return False
            if not agrees(g_BTD[b, : len(row)], wanted_TD, model.dtype, limit):
                return False
    return True


def _whole(model: LanguageModel, hook: HookPoint, row: Row, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits_TV of a row in the model itself, and the gradient of its log-probabilities of token 0 at the hook."""
    delta_TD = torch.zeros(len(row), width, device=model.device, requires_grad=True)
    ids_BT = torch.tensor([list(row.ids)], device=model.device)
    with changed(model.hooked_module(hook), hook, lambda h_BTD: h_BTD + delta_TD.to(h_BTD.dtype)):
        logits_TV = model.module(input_ids=ids_BT, use_cache=False).logits[0].float()
    return logits_TV, torch.autograd.grad(logits_TV.log_softmax(-1)[:, 0].sum(), delta_TD)[0]


@torch.inference_mode()
def _past_agrees(upper: UpperLayers, rows: list[Row]) -> bool:
    """Whether a run that goes on from the rows' past gives what a run from the start does."""
    keep = [[len(row) - 1] for row in rows]
    start = min(map(len, rows)) // 2
    try:
        past = [upper.remember(row) for row in rows]
        found_NV = upper.logits(rows, [None] * len(rows), keep, past, start)
    except torch.OutOfMemoryError:
        raise
    except UNFIT:
        return False
    return agrees(found_NV, upper.logits(rows, [None] * len(rows), keep), upper.dtype)

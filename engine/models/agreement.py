"""Two ways to the same numbers, compared once per load: what a shortcut gives, and what the model gives without it.

Families differ in what their layers keep, mix and mask, and new ones appear: no list of names says which shortcut is
right for which. Where a comparison fails, the slow way is taken, or the verb is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from transformers import DynamicCache

TEXTS = ("The nurse said that she was late, as the doctor had been.", "He paid for two.")
"""Of different lengths, so that padding is compared too."""


class Limit(NamedTuple):
    """The largest difference relative to the largest value: in float32 and better, and in half precision."""

    exact: float
    half: float

    def of(self, dtype: torch.dtype) -> float:
        """Return the limit that holds for a model in this dtype."""
        return self.half if dtype in HALF else self.exact


HALF = (torch.bfloat16, torch.float16)


# Measured on 113 tiny random families and on the demo model, transformers 5.23, torch 2.13 (CPU). Where the two ways
# are right they differ in float32 by up to 4e-5 (Nemotron-H's steps by up to 1.6e-3), in bfloat16 by up to 0.041 (the
# demo by 0.016 above the hook, 0.014 on answers, 0.021 in a step), in float16 by up to 0.004 (the demo 0.003). A step
# of a Mamba hybrid differs by up to 0.068 in bfloat16. Where rounding sends a token to another expert, 0.06 and 0.48
# were seen. Wrong ways differ by 0.011 to 1.6.
SLOWER = Limit(1e-3, 0.05)
"""Beyond it the slow way is taken: a false alarm costs time."""

REFUSED = Limit(1e-2, 0.25)
"""Beyond it a verb is refused: a false alarm costs the verb."""

OWN_CACHE = Limit(1e-4, 0.05)
"""Beyond it a text does not go on from transformers' own cache. In float32 20 steps of 70 tiny families were within
6.5e-6, Nemotron-H's 7e-4 off; in bfloat16 the median step of the right ones was within 0.025."""

UNFIT = (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError)
"""What layers raise that lack something they need; an OutOfMemoryError, one of them, says nothing about them."""


def agrees(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype, limit: Limit = SLOWER) -> bool:
    """Whether two results of a model in this dtype agree; never where a number is not finite."""
    return bool((found.float() - wanted.float()).abs().max() <= limit.of(dtype) * wanted.float().abs().max())


def all_agree(found: Sequence[torch.Tensor], wanted: Sequence[torch.Tensor], dtype: torch.dtype) -> bool:
    """Whether results agree pair by pair."""
    return all(agrees(f, w, dtype) for f, w in zip(found, wanted, strict=True))


def mostly_agree(found: torch.Tensor, wanted: torch.Tensor, dtype: torch.dtype, limit: Limit) -> bool:
    """Whether logits, of tokens by vocabulary, agree at all tokens; in half precision at the median token.

    There a rounding may send a token to other experts, which moves its logits by up to half the largest.
    """
    error_T = (found.float() - wanted.float()).abs().amax(-1).flatten() / wanted.float().abs().max()
    return bool((error_T.median() if dtype in HALF else error_T.max()) <= limit.of(dtype))


def keeps_states(config: Any) -> bool:
    """Whether a model keeps states of its past beside keys and values, as Mamba's layers and linear attention do.

    Several tokens that go on from a state at once are wrong in some of these families (RecurrentGemma, Jamba), by so
    little that half precision would hide it: none of them is let.
    """
    return any("Linear" in type(layer).__name__ for layer in DynamicCache(config=config).layers)

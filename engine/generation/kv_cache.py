"""Keys and values at fixed addresses, and the attention masks that go with them.

Every layer holds room for `length` tokens, sliding-window layers too: a mask alone decides what a token may see, so a
position can be taken back and no step moves memory. All rows of a batch are at the same position.

Shape suffixes: B rows, H heads, T tokens, L room for tokens, K width of a head, 1 one.
"""

from __future__ import annotations

from inspect import signature
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from transformers import Cache, DynamicCache
from transformers.cache_utils import CacheLayerMixin

from engine.models.agreement import OWN_CACHE, UNFIT, mostly_agree
from engine.models.families import FAMILIES

ATTENTION = {"full_attention", "sliding_attention"}
"""The kinds of attention for which a mask is enough."""


class Position:
    """Where the next token goes: a tensor_1, so that a captured step finds it at the same address."""

    def __init__(self, device: torch.device) -> None:
        self.at_1 = torch.zeros(1, dtype=torch.long, device=device)
        self.copy_B: torch.Tensor | None = None
        """Set while rows share the reading of a prompt: which of the rows read has each row's keys and values."""


class StaticLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer's keys and values_BHLK; rows that are alike in the prompt may share its reading."""

    is_sliding = False
    is_compileable = True

    def __init__(self, position: Position, length: int) -> None:
        super().__init__()
        self.position, self.length = position, length

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Allocate the room once the first keys show their shape."""
        for name, states in (("keys", key_states), ("values", value_states)):
            rows = len(states if self.position.copy_B is None else self.position.copy_B)
            setattr(self, name, states.new_zeros(rows, states.shape[1], self.length, states.shape[3]))
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one token at the position and return all the room, or a whole prompt at the start and return that."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        num_tokens = key_states.shape[2]
        if num_tokens > 1:
            for room, states in ((self.keys, key_states), (self.values, value_states)):
                room[:, :, :num_tokens] = states if self.position.copy_B is None else states[self.position.copy_B]
            return key_states, value_states
        self.keys.index_copy_(2, self.position.at_1, key_states)
        self.values.index_copy_(2, self.position.at_1, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        """Return 0: the length is not needed, as positions and masks are given."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return (length of the room, offset of its first token)."""
        return self.length, 0

    def get_max_length(self) -> int:
        """Return the length of the room."""
        return self.length


class Masks:
    """Additive masks for the kinds of attention that a model's layers have."""

    def __init__(self, config: Any, dtype: torch.dtype, length: int, device: torch.device) -> None:
        kinds = set(declared(config, "layer_types") or ())
        window = declared(config, "sliding_window")
        self._window = int(window or 0)
        self._mixed = kinds == ATTENTION
        self._windowed = kinds == {"sliding_attention"} or (not kinds and window is not None)
        self._open = torch.zeros((), dtype=dtype, device=device)
        self._shut = torch.full((), torch.finfo(dtype).min, dtype=dtype, device=device)
        self._place_L = torch.arange(length, device=device)

    def prompt(self, num_tokens: int, rows: int) -> Any:
        """Return the mask of the first tokens: each sees itself and those before it."""
        return self._for_queries(self._place_L[:num_tokens], self._place_L[:num_tokens], rows)

    def step(self, position_1: torch.Tensor, rows: int) -> Any:
        """Return the mask of one token at the position: it sees itself and those before it, within all the room."""
        return self._for_queries(position_1, self._place_L, rows)

    def _for_queries(self, query_T: torch.Tensor, place_L: torch.Tensor, rows: int) -> Any:
        """Return a mask_B1TL, or a dict of them by kind of attention where the model's layers differ."""
        seen_TL = place_L <= query_T[:, None]
        full = self._additive(seen_TL, rows)
        if not self._mixed and not self._windowed:
            return full
        windowed = self._additive(seen_TL & (place_L > query_T[:, None] - self._window), rows)
        return {"full_attention": full, "sliding_attention": windowed} if self._mixed else windowed

    def _additive(self, seen_TL: torch.Tensor, rows: int) -> torch.Tensor:
        return torch.where(seen_TL, self._open, self._shut)[None, None].expand(rows, 1, *seen_TL.shape)


def declared(config: Any, name: str) -> Any:
    """Return a setting that the configuration's class knows; None for others, which its model ignores.

    A config.json may hold any: Llama's models ignore a `sliding_window`.
    """
    return getattr(config, name, None) if name in signature(type(config).__init__).parameters else None


def fits(config: Any) -> bool:
    """Return whether a model of this (text) configuration is known to work with such keys and masks."""
    kinds = set(declared(config, "layer_types") or ())
    return config.model_type in FAMILIES and kinds <= ATTENTION


CHECKED_PROMPT, CHECKED_STEPS = 12, 20
"""Tokens of the prompt and of the steps on which a family's own cache is compared with passes without one."""

_agreed: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def own_cache_agrees(module: nn.Module, config: Any) -> bool:
    """Return whether steps over transformers' own cache give what a pass over the whole text does; measured once.

    They do not everywhere: in transformers 5.23 without Mamba's kernels, NemotronH's and Zamba2's steps give other
    numbers, and MiniMax does not take such a cache.
    """
    if module not in _agreed:
        _agreed[module] = _own_cache_agrees(module, config)
    return _agreed[module]


@torch.inference_mode()
def _own_cache_agrees(module: nn.Module, config: Any) -> bool:
    weights = next(module.parameters())
    generator = torch.Generator().manual_seed(0)
    size = (1, CHECKED_PROMPT + CHECKED_STEPS)
    ids_BT = torch.randint(int(config.vocab_size), size, generator=generator).to(weights.device)
    wanted_TV = module(input_ids=ids_BT, use_cache=False).logits[0, CHECKED_PROMPT - 1 :]
    cache, at, steps = DynamicCache(config=module.config), 0, []
    try:
        for end in range(CHECKED_PROMPT, size[1] + 1):
            place_BT = torch.arange(at, end, device=weights.device)[None]
            out = module(input_ids=ids_BT[:, at:end], position_ids=place_BT, past_key_values=cache, use_cache=True)
            steps.append(out.logits[0, -1])
            at = end
    except torch.OutOfMemoryError:
        raise
    except UNFIT:
        return False
    return mostly_agree(torch.stack(steps), wanted_TV, weights.dtype, OWN_CACHE)


def make_cache(config: Any, position: Position, length: int) -> Cache:
    """Make a cache for all layers of a model of this (text) configuration."""
    return Cache(layers=[StaticLayer(position, length) for _ in range(config.num_hidden_layers)])

"""A language model, and the capture of the vectors at a hook point, which ends the forward pass there.

Shape suffixes: B batch rows, T tokens, D width of the hooked vector (d_model except at some hooks). Capture goes
through nnsight's `trace`. Knows nothing about files or SAEs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from nnsight import NNsight
from torch import nn

from engine.models.agreement import TEXTS, UNFIT, all_agree
from engine.models.bare import twin
from engine.models.fast_layers import fuse, pack
from engine.models.hooks import HookPoint, find_blocks
from engine.models.tokens import Tokens
from engine.records import Progress, Prompt
from engine.records.errors import HookError, ModelError, UsageError

CAPTURE_TOKENS = 4096
"""Padded tokens of one capture batch: bounds memory, and how long a capture runs before it can be cancelled."""


@dataclass
class LanguageModel:
    """A loaded model: the module, its tokenizer, and nnsight's view of it."""

    name: str
    fingerprint: str
    module: Any  # a transformers PreTrainedModel
    tokens: Tokens
    envoy: NNsight
    loaded_as: tuple[str, ...]
    """What `load_model` was asked for; see `loaded_as`."""
    notes: tuple[str, ...] = ()
    """What there is to say about the model's files, in words."""
    _batched: dict[HookPoint, bool] = field(default_factory=dict, init=False, repr=False)
    """What `_batches` found, by hook point."""

    @cached_property
    def bare(self) -> Any:
        """A twin of the model with the same weights and without nnsight's wrappers, which cost time in every module.

        On a CPU in bfloat16 with packed copies of the weights, where there is room; on a GPU with fused layers.
        """
        fast = fuse(pack(twin(self.module)))
        try:
            self._run(fast, [0])
        except torch.OutOfMemoryError:
            raise
        except UNFIT:  # a layer that reads another's weights, as Mamba's in Jamba does, cannot use packed ones
            return twin(self.module)
        return fast

    @property
    def device(self) -> torch.device:
        """The device that the weights are on."""
        return torch.device(next(self.module.parameters()).device)

    @property
    def dtype(self) -> torch.dtype:
        """The weights' dtype."""
        dtype: torch.dtype = next(self.module.parameters()).dtype
        return dtype

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.module.config.get_text_config().hidden_size)

    @property
    def bytes(self) -> int:
        """Memory of the weights, in bytes."""
        return sum(p.numel() * p.element_size() for p in self.module.parameters())

    def check_length(self, num_tokens: int) -> None:
        """Raise UsageError where a text and what is to follow it are longer than the model's context."""
        config = self.module.config.get_text_config()
        limit = getattr(config, "max_position_embeddings", None)
        if limit is not None and num_tokens > limit:
            raise UsageError(
                f"The prompt and what is to follow it come to {num_tokens:,} tokens, the model's context is {limit:,}.",
                "Shorten the prompt or lower --max-tokens.",
            )

        sparse = getattr(config, "index_topk", None)
        # seen in transformers 5.23: DeepSeek V3.2 and GLM's DSA pick among all tokens, those that follow included
        if sparse is not None and num_tokens > sparse:
            raise UsageError(
                f"The prompt and what is to follow it come to {num_tokens:,} tokens. Beyond {sparse:,} a "
                f"{type(self.module).__name__} attends to some of them only, picked by tokens that follow too.",
                "Shorten the prompt or lower --max-tokens.",
            )

    def check_vectors(self, ids: Sequence[int], h_TD: torch.Tensor) -> None:
        """Raises ModelError where the vectors of these tokens are not all finite."""
        if not bool(finite(h_TD).all()):
            # not at which token: behind a mask, one that overflows makes NaN of those before it too
            raise not_finite(self.dtype, f"The model's vectors overflow on {self._text(ids)}")

    @torch.inference_mode()
    def check_logits(self, ids: Sequence[int], keep: int) -> None:
        """Runs the whole model. Raises ModelError where its logits are not finite at the last `keep` tokens."""
        out = self._run(self.module, ids)
        if not bool(torch.isfinite(out.logits[:, -keep:]).all()):
            raise not_finite(self.dtype, f"The model's logits overflow on {self._text(ids)}")

    @torch.inference_mode()
    def _run(self, module: Any, ids: Sequence[int]) -> Any:
        return module(input_ids=torch.tensor([list(ids)], device=self.device), use_cache=False)

    def _text(self, ids: Sequence[int]) -> str:
        """The beginning of a text, for a message."""
        text = self.tokens.decode(ids)
        return repr(text if len(text) <= 60 else f"{text[:60]}…")

    def end_ids(self) -> set[int]:
        """Return the token ids that end a generation."""
        ids: set[int] = set()
        for value in (self.module.generation_config.eos_token_id, self.tokens.tokenizer.eos_token_id):
            ids |= set(value) if isinstance(value, list) else {value} if value is not None else set()
        return ids

    def capture(
        self, hook: HookPoint, sequences: Sequence[Sequence[int]], stage: str
    ) -> Generator[Progress, None, list[torch.Tensor]]:
        """Return the hooked vectors h_TD of every sequence, in the model's dtype. Yields progress once per batch."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        captured: dict[int, torch.Tensor] = {}
        while order:
            yield Progress(stage, len(captured), len(sequences))
            longest = len(sequences[order[-1]])
            batch = [order.pop() for _ in range(min(len(order), max(1, CAPTURE_TOKENS // max(1, longest))))]
            captured |= dict(zip(batch, self.capture_batch(hook, [sequences[i] for i in batch]), strict=True))
        return [captured[i] for i in range(len(sequences))]

    def capture_batch(self, hook: HookPoint, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return the hooked vectors h_TD of a few sequences, from forward passes that end at the hook.

        One pass where padded batches of this model give what each sequence gives alone, else one a sequence. Raises
        HookError where the module has no vector per token there, or one of another width than expected.
        """
        if len(rows) < 2 or self._batches(hook):
            return self._captured(hook, rows)
        return [self._captured(hook, [row])[0] for row in rows]

    def _batches(self, hook: HookPoint) -> bool:
        """Whether a padded batch gives the hooked vectors of each text by itself; compared at first use."""
        if hook not in self._batched:
            rows = [self.tokens.feed(Prompt(text, "raw")).ids for text in TEXTS]
            alone = [self._captured(hook, [row])[0] for row in rows]
            sound = all(bool(torch.isfinite(h_TD).all()) for h_TD in alone)  # else there is nothing to compare
            self._batched[hook] = not sound or all_agree(self._captured(hook, rows), alone, self.dtype)
        return self._batched[hook]

    def _captured(self, hook: HookPoint, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Return the hooked vectors h_TD of sequences, from one forward pass that ends at the hook."""
        width = max(map(len, rows))
        # right padding: causal attention keeps it from the real tokens
        ids_BT = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=self.device)
        mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=self.device)
        node = self.envoy.get(hook.path)
        with torch.inference_mode():
            with self.envoy.trace(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False) as tracer:
                value = node.input if hook.side == "input" else node.output
                hidden: torch.Tensor = (value[0] if isinstance(value, tuple) else value).save()
                tracer.stop()
        if not isinstance(hidden, torch.Tensor) or not self._fits(hook, hidden, ids_BT.shape):
            raise self._no_vector(hook, hidden, ids_BT.shape)
        return [hidden[b, : len(row)] for b, row in enumerate(rows)]

    @staticmethod
    def _fits(hook: HookPoint, hidden: torch.Tensor, shape_BT: torch.Size) -> bool:
        return hidden.ndim == 3 and hidden.shape[:2] == shape_BT and hook.width in (None, hidden.shape[-1])

    def _no_vector(self, hook: HookPoint, hidden: object, shape_BT: torch.Size) -> HookError:
        """The error for what is not one vector per token at a hook point."""
        remedy = "Give --hook a name like blocks.15.hook_resid_pre or a module path like model.layers.14."
        if isinstance(hidden, torch.Tensor) and hidden.ndim == 4 and hidden.shape[1:3] == shape_BT:  # Gemma 3n's AltUp
            what = f"{len(hidden)} vectors per token, not one"
            inside = f"{find_blocks(self.module)[0]}.{hook.layer or 0}.mlp"
            remedy = f"Give --hook the path of a module inside a block, such as {inside}."
        else:
            what = f"not a vector{'' if hook.width is None else f' of width {hook.width}'} per token"
        return HookError(f"{hook.name}: the {hook.side} of {hook.path} is {what}.", remedy)

    def width(self, hook: HookPoint) -> int:
        """Return the hooked vector's width, measured on one token where nothing tells it. Raises HookError."""
        return hook.width or self.capture_batch(hook, [[0]])[0].shape[-1]

    def hooked_module(self, hook: HookPoint) -> nn.Module:
        """Return the module at the hook point."""
        module: nn.Module = self.module.get_submodule(hook.path)
        return module


def finite(h_TD: torch.Tensor) -> torch.Tensor:
    """Which vectors_T hold neither NaN nor infinity, and are not so long that their norm is infinite."""
    return torch.isfinite(h_TD.float().norm(dim=-1))


def not_finite(dtype: torch.dtype, what: str) -> ModelError:
    """The error for numbers of the model's own, without any edit, that are NaN or infinite."""
    return ModelError(
        f"{what}: without any edit they are NaN or infinite in {short_name(dtype)}.", if_not_finite(dtype)
    )


def if_not_finite(dtype: torch.dtype) -> str:
    """What to do about a model whose own numbers are not finite."""
    if dtype == torch.float16:
        return "float16 ends at 65,504: give --dtype bfloat16 or float32."
    return "No sound model's numbers are too large for this dtype: its files may be damaged, download them again."


def short_name(dtype: torch.dtype) -> str:
    """A dtype's name without torch's."""
    return str(dtype).removeprefix("torch.")

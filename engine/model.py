"""A language model with one hook point: loading, and capture of the hooked vectors that stops at the hook.

Shape suffixes: B batch rows, T tokens, D width of the hooked vector (d_model but for some hooks). Loading goes through
transformers, capture through nnsight's `trace`, which ends the forward pass at the hook. Knows nothing about SAEs.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from nnsight import NNsight
from torch import nn

from engine.errors import HookError, ModelError, SaescopeError, UsageError
from engine.fused import fuse
from engine.hooks import HookPoint
from engine.packed import pack
from engine.records import Progress
from engine.sources import hub, memory
from engine.tokens import Tokens
from engine.twins import twin

CAPTURE_TOKENS = 4096
"""Padded tokens of one capture batch: bounds memory, and is how often a capture can be cancelled."""


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

    @cached_property
    def bare(self) -> Any:
        """The model without nnsight's wrappers, which cost time in every module: its twin with the same weights.

        On a CPU in bfloat16 with a packed copy of them where there is room, on a GPU with fused layers.
        """
        return fuse(pack(twin(self.module)))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
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
        """Memory of the weights."""
        return sum(p.numel() * p.element_size() for p in self.module.parameters())

    def check_length(self, num_tokens: int) -> None:
        """Raises UsageError where a text and what is to follow it are longer than the model's context."""
        limit = getattr(self.module.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and num_tokens > limit:
            raise UsageError(
                f"The prompt and what is to follow it come to {num_tokens:,} tokens, the model's context is {limit:,}.",
                "Shorten the prompt or lower --max-tokens.",
            )

    def end_ids(self) -> set[int]:
        """Token ids that end a generation."""
        found: set[int] = set()
        for value in (self.module.generation_config.eos_token_id, self.tokens.tokenizer.eos_token_id):
            found |= set(value) if isinstance(value, list) else {value} if value is not None else set()
        return found

    def capture(
        self, hook: HookPoint, sequences: Sequence[Sequence[int]], stage: str
    ) -> Generator[Progress, None, list[torch.Tensor]]:
        """The hooked vectors h_TD of every sequence, in the model's dtype. Yields progress once a batch."""
        order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
        found: dict[int, torch.Tensor] = {}
        while order:
            yield Progress(stage, len(found), len(sequences))
            longest = len(sequences[order[-1]])
            batch = [order.pop() for _ in range(min(len(order), max(1, CAPTURE_TOKENS // max(1, longest))))]
            found |= dict(zip(batch, self.capture_batch(hook, [sequences[i] for i in batch]), strict=True))
        return [found[i] for i in range(len(sequences))]

    def capture_batch(self, hook: HookPoint, rows: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The hooked vectors h_TD of a few sequences, in one forward pass that ends at the hook.

        Raises HookError where the module has no vector per token there, or not one of the expected width.
        """
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
            wide = "" if hook.width is None else f" of width {hook.width}"
            raise HookError(
                f"{hook.name}: the {hook.side} of {hook.path} is not a vector{wide} per token.",
                "Give --hook a name like blocks.15.hook_resid_pre or a module path like model.layers.14.",
            )
        return [hidden[b, : len(row)] for b, row in enumerate(rows)]

    @staticmethod
    def _fits(hook: HookPoint, hidden: torch.Tensor, shape_BT: torch.Size) -> bool:
        return hidden.ndim == 3 and hidden.shape[:2] == shape_BT and hook.width in (None, hidden.shape[-1])

    def width(self, hook: HookPoint) -> int:
        """Width of the hooked vector; where neither weights nor kind tell, measured on one token. Raises HookError."""
        return hook.width or self.capture_batch(hook, [[0]])[0].shape[-1]

    def hooked_module(self, hook: HookPoint) -> nn.Module:
        """The module at the hook point."""
        module: nn.Module = self.module.get_submodule(hook.path)
        return module


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype | str:
    """The dtype to load in: as named, else the file's own ("auto") on a GPU, and on a CPU bfloat16 where native."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name is not None:
        if name not in known:
            raise UsageError(f"Unknown dtype {name!r}.", f"Use one of {', '.join(known)}.")
        return known[name]
    if device.type != "cpu":
        return "auto"
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if native else torch.float32


def choose_device(name: str | None) -> torch.device:
    """The device to load on: as named, else the first GPU, else the CPU. Raises UsageError."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"Unknown device {name!r}.", "Use cpu, cuda or cuda:N.") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("There is no CUDA GPU that torch can see.", "Use --device cpu.")
    return device


def loaded_as(source: str, device: torch.device, dtype: torch.dtype | str) -> tuple[str, ...]:
    """What tells one loaded model from another: where it came from, device and dtype."""
    return source, str(device), str(dtype)


def load_model(
    source: str, display_name: str, device: torch.device, dtype: torch.dtype | str, revision: str | None = None
) -> LanguageModel:
    """Loads a model from a folder or a hub name. Raises ModelError with the reason in words.

    `revision`: the commit of a hub model that is in the hub's cache already; without one it may be fetched.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if source.startswith(("/", "~", ".")):
        source = str(Path(source).expanduser())
        if not Path(source).is_dir():
            raise ModelError(
                f"Cannot load the model {display_name!r}: there is no such folder.",
                "Give --model a folder with config.json and safetensors files.",
            )
    where = {} if revision is None else {"revision": revision, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, **where)
        module = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            trust_remote_code=False,
            device_map=None if device.type == "cpu" else device,
            **where,
        )
    except torch.OutOfMemoryError as error:
        raise memory.too_big(display_name, device) from error
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise not_loaded(error, source, display_name) from error
    module.eval()
    module.requires_grad_(False)
    return LanguageModel(
        name=display_name,
        fingerprint=fingerprint(source, module),
        module=module,
        tokens=Tokens(tokenizer),
        envoy=NNsight(module),
        loaded_as=loaded_as(source, device, dtype),
    )


def not_loaded(error: Exception, source: str, display_name: str) -> SaescopeError:
    """Why a model did not load, in words: the hub's troubles, code of its own, else the library's first line."""
    if not Path(source).is_dir():
        found = hub.explained(error, hub.Wanted(source, "model"))
        if found is not None:
            return found
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{display_name} brings program code of its own, which saescope never runs.",
            "Use a model that transformers knows by itself.",
        )
    return ModelError(
        f"Cannot load the model {display_name!r}: {reason}",
        "Give --model a folder with config.json and safetensors files, or the name of a hub model you can reach.",
    )


def fingerprint(source: str, module: Any) -> str:
    """sha256 that tells one set of weights from another without reading gigabytes.

    A local folder: over each weight file's size, first and last MiB. A hub model: over the name and its commit.
    """
    digest = sha256()
    folder = Path(source)
    if folder.is_dir():
        for path in sorted(folder.glob("*.safetensors")):
            digest.update(ends_of_file(path))
    else:
        digest.update(f"{source}@{getattr(module.config, '_commit_hash', None)}".encode())
    return digest.hexdigest()


def ends_of_file(path: Path) -> bytes:
    """A file's size, first and last MiB: enough to tell versions of a weight file apart."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(1 << 20)
        file.seek(max(0, size - (1 << 20)))
        return str(size).encode() + head + file.read()

"""The subjects on which decoding is measured: a model, a SAE at one of its hook points, and edits that have an effect.

The tiny subject is a Llama of random weights, small enough that most of a step is the interpreter's time. The usual
subject is the packaged demo on a CPU; on a GPU it has the shape of the founding study's pair, Mistral-7B and 65,536
features, with random weights. A SAE of that many features can replace the demo's too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from nnsight import NNsight
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from engine.bench.rows.encoding import app_dtype, short
from engine.generation.edits import ResidualEditor
from engine.loading.demo.model import finish
from engine.loading.open_pair import open_pair
from engine.models.hooks import HookPoint, resolve_hook
from engine.models.language_model import LanguageModel
from engine.models.reference import SINK_FACTOR, Reference
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.models.tokens import Tokens
from engine.records import Edit, Load

FOUNDING_FEATURES = 65_536

PROMPT_TOKENS = 16

EDITS = 4
"""Number of features that are ablated by default."""


@dataclass(frozen=True)
class Subject:
    """Model, SAE, hook point and reference; `said` describes them in a few words."""

    said: str
    model: LanguageModel
    sae: SparseAutoencoder
    hook: HookPoint
    reference: Reference

    @property
    def prompt(self) -> list[int]:
        """Token ids with which generated texts begin."""
        return prompt_of(self.model)

    def ablations(self, count: int = EDITS) -> tuple[Edit, ...]:
        """Return ablations of the features that fire most on the prompt."""
        (h_TD,) = self.model.capture_batch(self.hook, [self.prompt])
        strength_F = torch.zeros(self.sae.d_sae, device=h_TD.device)
        for active in self.sae.encode(h_TD):
            strength_F.index_add_(0, active.feature_N, active.value_N)
        return tuple(Edit(feature) for feature in strength_F.topk(count).indices.tolist())

    def editor(self, *rows: tuple[Edit, ...]) -> ResidualEditor:
        """Return an editor with these lists of edits, one for each row of a batch."""
        return ResidualEditor(self.model, self.sae, self.hook, self.reference, rows)


def tiny(device: torch.device, dtype: torch.dtype = torch.float32) -> Subject:
    """Return a subject of 12 layers of width 256, a vocabulary of 1,024 tokens and 2,048 features."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=1024, hidden_size=256, intermediate_size=704, num_hidden_layers=12, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=4096, initializer_range=0.1,
    )  # fmt: skip
    model = random_model("tiny", config, device, dtype)
    return with_features(
        f"12 × 256, {short(dtype)}", model, resolve_hook(model.module, "blocks.6.hook_resid_pre"), 2048
    )


def founding(device: torch.device, dtype: torch.dtype | None = None) -> Subject:
    """Return a subject in the shape of the founding study's pair: Mistral-7B-v0.1 before block 16, 65,536 features."""
    from transformers import MistralConfig

    chosen_dtype = torch.bfloat16 if dtype is None else dtype
    config = MistralConfig(
        vocab_size=32_000, hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=32_768, sliding_window=4096, initializer_range=0.02,
    )  # fmt: skip
    model = random_model("Mistral-7B of random weights", config, device, chosen_dtype)
    hook = resolve_hook(model.module, "blocks.16.hook_resid_pre")
    return with_features(f"Mistral-7B's shape, {short(chosen_dtype)}", model, hook, FOUNDING_FEATURES)


def usual(device: torch.device, dtype: torch.dtype | None = None) -> Subject:
    """Return the demo on a CPU, the founding shape on a GPU. Raises ModelError if the demo is not installed."""
    return founding(device, dtype) if device.type == "cuda" else demo(device, dtype)


def random_model(name: str, config: Any, device: torch.device, dtype: torch.dtype) -> LanguageModel:
    """Make a model of random weights on the device, with a tokenizer of as many words as its vocabulary has."""
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.device(device):
        torch.manual_seed(0)
        module = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    words = WordLevel({f"w{i}": i for i in range(config.vocab_size)}, unk_token="w0")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words), pad_token="w0")
    return endless(LanguageModel(name, "", module, Tokens(tokenizer), NNsight(module), ()))


def demo(device: torch.device, dtype: torch.dtype | None = None) -> Subject:
    """Return the packaged demo model and its SAE. Raises ModelError if it is not installed."""
    chosen_dtype = app_dtype(device) if dtype is None else dtype
    pair = finish(open_pair(Load(device=str(device), dtype=short(chosen_dtype))))
    return Subject(
        f"demo, {short(chosen_dtype)}", endless(pair.model), pair.site.sae, pair.site.reads_at, pair.site.reference
    )


def with_features(said: str, model: LanguageModel, hook: HookPoint, count: int) -> Subject:
    """Return the model with a SAE of random weights, a twentieth of whose features fires on each vector."""
    width, device = model.d_model, model.device
    (h_TD,) = model.capture_batch(hook, [prompt_of(model)])
    h_TD = h_TD[1:].float()  # the first token may be a sink
    scale = float(h_TD.square().mean().sqrt())
    generator = torch.Generator(device).manual_seed(0)
    w_enc_DF = torch.randn(width, count, generator=generator, device=device).div_(width**0.5 * scale)
    weights = {
        "W_enc": w_enc_DF,
        "W_dec": torch.nn.functional.normalize(w_enc_DF.T).mul_(scale),
        "b_enc": torch.full((count,), -1.6, device=device),
        "b_dec": torch.zeros(width, device=device),
    }
    sae = SparseAutoencoder(SaeConfig("bench", "standard", "none", False, hook.name, ""), weights)
    return Subject(said, model, sae, hook, reference_of(sae, float(h_TD.norm(dim=-1).median())))


def reference_of(sae: SparseAutoencoder, norm: float) -> Reference:
    """Return a reference without a text, which only gives the norm beyond which a vector is a sink."""
    zero_F1 = torch.zeros(sae.d_sae, 1, dtype=torch.int32)
    nothing = (torch.zeros(0, dtype=torch.int32), 0, zero_F1[:, 0], zero_F1[:, 0].float(), zero_F1.float())
    return Reference("none", *nothing, zero_F1, zero_F1, 0, norm, SINK_FACTOR * norm, 1.0, 0.0, 0.0)


def prompt_of(model: LanguageModel) -> list[int]:
    """Return random token ids without special tokens."""
    generator = torch.Generator().manual_seed(1)
    largest = min(1000, int(model.module.config.get_text_config().vocab_size))
    ids: list[int] = torch.randint(20, largest, (PROMPT_TOKENS,), generator=generator).tolist()
    return ids


def endless(model: LanguageModel) -> LanguageModel:
    """Change the model so that no token ends a text, in saescope and in the contenders' `generate`; return it."""
    from transformers import GenerationConfig

    for module in (model.module, model.bare):
        module.generation_config = GenerationConfig(pad_token_id=0, do_sample=False)
    model.tokens.tokenizer.eos_token = None
    return model


def settle(device: torch.device) -> Any:
    """Return a function that waits until the device has finished; None on a CPU."""
    return torch.cuda.synchronize if device.type == "cuda" else None

"""The contenders' ways to generate an edited text: transformers with a hook, nnsight, and SAELens with its own SAE.

All generate greedily, `num_tokens` tokens, none of which ends the text, and return the tokens they generated.

Shape suffixes: B rows, T tokens, D width of the hooked vector, K edited features, F features.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch

from engine.bench.rows.encoding import short
from engine.bench.subjects import Subject
from engine.models.bare import twin
from engine.models.hooks import changed
from engine.models.sae import SparseAutoencoder
from engine.records import Edit

Edits = tuple[Edit, ...]

Generation = Callable[[], list[int]]
"""Generates one text and returns its new token ids."""

NO_SAELENS = "sae-lens is not installed (the extra `saelens`)"


def ablation(subject: Subject, edits: Edits) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return a function that subtracts f D of the edited features from h: the ablation that one writes into a hook."""
    features = [edit.feature for edit in edits]
    sae = subject.sae
    w_enc_DK, b_K = sae.w_enc_DF[:, features].float(), sae.b_enc_F[features].float()
    w_dec_KD, b_dec_D = sae.w_dec_FD[features].float(), sae.b_dec_D

    def change(h_BTD: torch.Tensor) -> torch.Tensor:
        x_BTD = h_BTD.float() - b_dec_D if sae.config.apply_b_dec_to_input else h_BTD.float()
        f_BTK = torch.relu(x_BTD @ w_enc_DK + b_K)
        return h_BTD - (f_BTK @ w_dec_KD).to(h_BTD.dtype)

    return change


def transformers_run(subject: Subject, num_tokens: int, edits: Edits) -> Generation:
    """Return a run of transformers' `generate`, with a forward hook if there are edits."""
    module, device = twin(subject.model.module), subject.model.device
    ids_BT = torch.tensor([subject.prompt], device=device)
    change = ablation(subject, edits)

    def plain() -> list[int]:
        with torch.inference_mode():
            out = module.generate(ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=num_tokens)
        return new_tokens(out, ids_BT)

    def hooked() -> list[int]:
        with changed(module.get_submodule(subject.hook.path), subject.hook, change):
            return plain()

    return hooked if edits else plain


def nnsight_run(subject: Subject, num_tokens: int, edits: Edits) -> Generation:
    """Return a run of nnsight's `generate`, intervening at every token if there are edits."""
    from nnsight import TransformersModel

    model = TransformersModel(
        subject.model.module,
        tokenizer=subject.model.tokens.tokenizer,
        task="text-generation",
        device=subject.model.device,  # else transformers moves the module to a GPU
    )
    node = model.get(subject.hook.path)
    change, side = ablation(subject, edits), subject.hook.side
    ids_BT = torch.tensor([subject.prompt], device=subject.model.device)
    options: dict[str, Any] = {"attention_mask": torch.ones_like(ids_BT), "max_new_tokens": num_tokens}

    def edited() -> list[int]:
        with torch.inference_mode(), model.generate(ids_BT, **options) as tracer:
            for _ in tracer.iter[:num_tokens]:
                if side == "input":
                    node.input = change(node.input)
                elif isinstance(node.output, tuple):
                    node.output = (change(node.output[0]), *node.output[1:])
                else:
                    node.output = change(node.output)
            out = tracer.result.save()
        return new_tokens(out, ids_BT)

    def plain() -> list[int]:
        with torch.inference_mode(), model.generate(ids_BT, **options) as tracer:
            out = tracer.result.save()
        return new_tokens(out, ids_BT)

    return edited if edits else plain


def new_tokens(out_BT: torch.Tensor, ids_BT: torch.Tensor) -> list[int]:
    """Return the generated ids, without the prompt's."""
    ids: list[int] = out_BT[0, ids_BT.shape[1] :].tolist()
    return ids


# ---- SAELens


def has_saelens() -> bool:
    """Whether SAELens is installed."""
    return find_spec("sae_lens") is not None


def saelens_model(subject: Subject) -> Any:
    """Return a HookedSAETransformer of the model's shape and dtype; its weights are random, with the same speed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from sae_lens import HookedSAETransformer
        from transformer_lens import HookedTransformerConfig
    config = subject.model.module.config.get_text_config()
    head = config.hidden_size // config.num_attention_heads
    theirs = HookedTransformerConfig(
        n_layers=config.num_hidden_layers, d_model=config.hidden_size, d_head=head, n_heads=config.num_attention_heads,
        n_key_value_heads=config.num_key_value_heads, d_mlp=config.intermediate_size, n_ctx=512,
        d_vocab=config.vocab_size, act_fn="silu", gated_mlp=True, normalization_type="RMS", final_rms=True,
        positional_embedding_type="rotary", rotary_dim=head, dtype=subject.model.dtype, seed=0,
        device=str(subject.model.device), default_prepend_bos=False,
    )  # fmt: skip
    return HookedSAETransformer(theirs).requires_grad_(False)


def saelens_run(model: Any, sae: SparseAutoencoder, subject: Subject, num_tokens: int, feature: int) -> Generation:
    """Return a run of SAELens' `generate` with the SAE attached, the error term kept and the feature zeroed."""
    from sae_lens import StandardSAE, StandardSAEConfig
    from sae_lens.saes.sae import SAEMetadata

    name = f"blocks.{subject.hook.layer}.{subject.hook.name.split('.')[-1]}"
    config = StandardSAEConfig(
        d_in=sae.d_in, d_sae=sae.d_sae, dtype=short(subject.model.dtype), device=str(subject.model.device),
        metadata=SAEMetadata(hook_name=name),
    )  # fmt: skip
    theirs = StandardSAE(config).requires_grad_(False)
    for mine, its in ((sae.w_enc_DF, theirs.W_enc), (sae.w_dec_FD, theirs.W_dec), (sae.b_enc_F, theirs.b_enc)):
        its.data.copy_(mine)
    ids_BT = torch.tensor([subject.prompt], device=subject.model.device)

    def zero(acts_BTF: torch.Tensor, hook: Any) -> torch.Tensor:
        acts_BTF[..., feature] = 0
        return acts_BTF

    def run() -> list[int]:
        model.add_sae(theirs, use_error_term=True)
        try:
            with torch.inference_mode(), model.hooks(fwd_hooks=[(f"{name}.hook_sae_acts_post", zero)]):
                out = model.generate(
                    ids_BT, max_new_tokens=num_tokens, do_sample=False, stop_at_eos=False, prepend_bos=False,
                    return_type="tokens", verbose=False,
                )  # fmt: skip
        finally:
            model.reset_saes()
        return new_tokens(out, ids_BT)

    return run

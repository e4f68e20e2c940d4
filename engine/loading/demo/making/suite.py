"""Measure stereotype slope, factual gender and side effects of a set of ablated features, above the hook only.

The slope is that of log p(female forms) - log p(male forms), centred per template, on the logit of the occupation's
share of women; factual gender is the mean log-odds of the right form. The demo model's blocks below the hook run
once per item; every measurement reruns only the blocks above. Works for Llama-like models: the hooked vectors go in
as input embeddings of the upper blocks.
Shape suffixes: B items, T tokens, D d_model, V vocabulary, F features, K ablated features.
"""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from pathlib import Path
from typing import Any

import torch

from engine.models.pair import Pair
from engine.models.reference import passages_of
from engine.records import Prompt

SPEC = Path(__file__).with_name("suite.toml")


@dataclass(frozen=True)
class Items:
    """A padded batch of vectors at the hook, and the two answers compared after each item's last token."""

    h_BTD: torch.Tensor
    mask_BT: torch.Tensor
    editable_BT: torch.Tensor
    last_B: torch.Tensor
    female: list[int]
    male: list[int]
    weight_B: torch.Tensor
    """The measure is sum_b weight_b * (log p(female) - log p(male)): a slope, or a mean of right log-odds."""


def read_spec() -> dict[str, Any]:
    """Read suite.toml."""
    return tomllib.loads(SPEC.read_text("utf-8"))


def with_article(noun: str) -> str:
    """Return the noun with "a" or "an"."""
    return f"{'an' if noun[0] in 'aeio' else 'a'} {noun}"


def slope_items(pair: Pair, occupations: dict[str, float], templates: Sequence[dict[str, Any]]) -> list[Items]:
    """Return a batch per template; their weighted sum is the least-squares slope, averaged over templates."""
    x = torch.tensor([log(share / (100 - share)) for share in occupations.values()])
    centred = (x - x.mean()) / (x - x.mean()).square().sum() / len(templates)
    batches = []
    for template in templates:
        rows = []
        for occupation in occupations:
            names = {"o": occupation, "a": with_article(occupation)}
            text, prefill = template["text"].format(**names), template.get("prefill", "").format(**names)
            rows.append(pair.model.tokens.feed(Prompt(text, template.get("format", "raw")), prefill).ids)
        batches.append(build(pair, rows, template["female"], template["male"], centred.tolist()))
    return batches


def factual_items(pair: Pair, factual: Sequence[dict[str, str]]) -> list[Items]:
    """Return items whose weighted sum is the mean log-odds of the right pronoun."""
    rows = [pair.model.tokens.feed(Prompt(item["text"])).ids for item in factual]
    weights = [(1 if item["right"] == "female" else -1) / len(factual) for item in factual]
    return [build(pair, rows, [" she"], [" he"], weights)]


def build(pair: Pair, rows: list[list[int]], female: list[str], male: list[str], weights: list[float]) -> Items:
    """Capture the rows and pad them to one batch."""
    vectors = pair.model.capture_batch(pair.site.reads_at, rows)
    width = max(map(len, rows))
    h_BTD = torch.zeros(len(rows), width, pair.model.d_model)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    editable_BT = torch.zeros(len(rows), width, dtype=torch.bool)
    for b, (ids, h_TD) in enumerate(zip(rows, vectors, strict=True)):
        h_BTD[b, : len(ids)] = h_TD.float()
        mask_BT[b, : len(ids)] = True
        not_bos = torch.tensor([i != pair.model.tokens.bos for i in ids])
        editable_BT[b, : len(ids)] = not_bos & (h_TD.float().norm(dim=-1) <= pair.site.reference.sink_norm)
    return Items(
        h_BTD=h_BTD,
        mask_BT=mask_BT,
        editable_BT=editable_BT,
        last_B=torch.tensor([len(ids) - 1 for ids in rows]),
        female=single_tokens(pair, female),
        male=single_tokens(pair, male),
        weight_B=torch.tensor(weights),
    )


def single_tokens(pair: Pair, strings: Sequence[str]) -> list[int]:
    """Return the ids of strings that are one token each. Raises ValueError where one is not."""
    ids = [pair.model.tokens.tokenizer(s, add_special_tokens=False).input_ids for s in strings]
    if any(len(i) != 1 for i in ids):
        raise ValueError(f"not single tokens: {strings}")
    return [i[0] for i in ids]


def shallow_copy(module: Any) -> Any:
    """Return a module that shares its parts with the original but can be given other ones."""
    twin = copy.copy(module)
    twin._modules = dict(module._modules)
    # nnsight puts a `forward` on the instance, bound to the original
    twin.__dict__.pop("forward", None)
    return twin


class UpperBlocks:
    """The part of a Llama-like model above the hook."""

    def __init__(self, pair: Pair) -> None:
        self.sae, self.hook = pair.site.sae, pair.site.reads_at
        assert pair.site.reads_at.layer is not None and pair.site.reads_at.side == "input"
        self.unembed = pair.model.module.lm_head
        self.body = shallow_copy(pair.model.module.model)
        self.body.layers = torch.nn.ModuleList(list(self.body.layers)[pair.site.reads_at.layer :])
        self.body.config = copy.copy(self.body.config)
        self.body.config.num_hidden_layers = len(self.body.layers)

    def logits(self, h_BTD: torch.Tensor, mask_BT: torch.Tensor, last_B: torch.Tensor | None = None) -> torch.Tensor:
        """Return logits_BTV from vectors at the hook, or logits_BV after each row's last token alone (much cheaper)."""
        out = self.body(inputs_embeds=h_BTD, attention_mask=mask_BT.long(), use_cache=False).last_hidden_state
        if last_B is not None:
            out = out[torch.arange(len(out)), last_B]
        return self.unembed(out).float()  # type: ignore[no-any-return]

    def edit(self, h_BTD: torch.Tensor, editable_BT: torch.Tensor, features: Sequence[int]) -> torch.Tensor:
        """Return the vectors with features ablated."""
        if not features:
            return h_BTD
        columns = self.sae.columns(features)
        scaled = self.sae.normalise(h_BTD)
        f_BTK = self.sae.encode_features(scaled.x_TD, columns) * editable_BT[..., None]
        return h_BTD - scaled.u_T1 * (f_BTK @ columns.w_dec_KD)

    def measure(self, items: Items, h_BTD: torch.Tensor) -> torch.Tensor:
        """Return the items' measure (a scalar with gradient) for given vectors."""
        logprobs_BV = torch.log_softmax(self.logits(h_BTD, items.mask_BT, items.last_B), -1)
        odds_B = logprobs_BV[:, items.female].logsumexp(1) - logprobs_BV[:, items.male].logsumexp(1)
        return (odds_B * items.weight_B).sum()

    @torch.inference_mode()
    def ablated(self, batches: Sequence[Items], features: Sequence[int]) -> float:
        """Return the batches' measure with features ablated."""
        return sum(float(self.measure(b, self.edit(b.h_BTD, b.editable_BT, features))) for b in batches)

    def attribution(self, batches: Sequence[Items]) -> torch.Tensor:
        """Return A_F: how much each feature adds to the batches' measure; ablating feature i changes it by about -A_i.

        A_i = sum_t f_ti (g_t . D_i) u_t with u and the error term held fixed.
        """
        return torch.stack([self._attribution(items) for items in batches]).sum(0)

    def _attribution(self, items: Items) -> torch.Tensor:
        h_BTD = items.h_BTD.clone().requires_grad_()
        (g_BTD,) = torch.autograd.grad(self.measure(items, h_BTD), h_BTD)
        h_ND, g_ND = items.h_BTD[items.editable_BT], g_BTD[items.editable_BT]
        g_ND = g_ND * self.sae.normalise(h_ND).u_T1
        attribution_F = torch.zeros(self.sae.d_sae)
        for active in self.sae.encode(h_ND):
            # g . D for every token and feature of the part, then only where the feature fires
            slope_TF = g_ND[active.tokens] @ self.sae.w_dec_FD[active.features].float().T
            at = active.token_N - active.tokens.start, active.feature_N - active.features.start
            attribution_F.index_add_(0, active.feature_N, active.value_N * slope_TF[at])
        return attribution_F


@torch.inference_mode()
def neutral_effects(
    pair: Pair, upper: UpperBlocks, texts: list[str], tokens: int, features: Sequence[int]
) -> tuple[float, float, float]:
    """Return (mean KL, p99 KL, top-1 agreement) of the ablation on neutral text, KL in nats per token."""
    sequences = passages_of(pair.model, texts, tokens)
    kls, agreements = [], []
    for ids, h_TD in zip(sequences, pair.model.capture_batch(pair.site.reads_at, sequences), strict=True):
        h_BTD, mask_BT = h_TD.float()[None], torch.ones(1, len(ids), dtype=torch.bool)
        editable_BT = mask_BT & (h_BTD.norm(dim=-1) <= pair.site.reference.sink_norm)
        editable_BT &= torch.tensor([ids]) != pair.model.tokens.bos
        base_TV = torch.log_softmax(upper.logits(h_BTD, mask_BT), -1)[0, 1:]
        edited_TV = torch.log_softmax(upper.logits(upper.edit(h_BTD, editable_BT, features), mask_BT), -1)[0, 1:]
        kls.append((base_TV.exp() * (base_TV - edited_TV)).sum(-1))
        agreements.append(base_TV.argmax(-1) == edited_TV.argmax(-1))
    kl_T = torch.cat(kls)
    return float(kl_T.mean()), float(kl_T.quantile(0.99)), float(torch.cat(agreements).float().mean())

"""The doctor: is this SAE wired right to this model?

Checks what can be measured on reference text. Shape suffixes: T tokens, D d_model.
"""

from __future__ import annotations

from pathlib import Path

import torch

import prompts
from engine.decode import paired_logprobs
from engine.explorer import Events, Explorer
from engine.records import Check, Diagnosis, Doctor, Edit, Progress, Prompt
from engine.reference import passages_of, read_text

MIN_VARIANCE_EXPLAINED = 0.5
"""Below this a SAE hardly reads the vectors it is given: the wrong layer, model or normalisation."""


def diagnose(explorer: Explorer, request: Doctor) -> Events:
    """Runs every check."""
    passages = passages_of(explorer.model, read_text(prompts.NEUTRAL_TEXT), request.text_tokens)
    yield Progress("reading text")
    vectors = yield from explorer.model.capture(explorer.hook, passages, "reading text")
    norms = torch.cat([h.float().norm(dim=-1) for h in vectors])
    kept = [
        h[(h.float().norm(dim=-1) <= explorer.reference.sink_norm) & ~special(explorer, ids).to(h.device)]
        for ids, h in zip(passages, vectors, strict=True)
    ]
    h_TD = torch.cat(kept).float()
    yield Progress("measuring the SAE")
    h_hat_TD, l0_T = explorer.sae.reconstruct(h_TD)
    residue = (h_TD - h_hat_TD).square().sum()
    explained = float(1 - residue / (h_TD - h_TD.mean(0)).square().sum())
    l0 = float(l0_T.mean())
    yield Progress("running a no-op edit")
    checks = (
        *wiring(explorer),
        fed_ids(explorer),
        Check("norms", None, norms_in_words(norms, len(h_TD))),
        Check(
            "variance explained",
            explained >= MIN_VARIANCE_EXPLAINED,
            f"{explained:.3f} on {len(h_TD):,} tokens of neutral text "
            f"(reference statistics: {explorer.reference.variance_explained:.3f}; below "
            f"{MIN_VARIANCE_EXPLAINED} the SAE does not read what it was trained on)",
        ),
        Check("L0", 0 < l0 < explorer.sae.d_sae / 10, f"{l0:.1f} features fire per token"),
        no_op(explorer),
    )
    return Diagnosis(checks, l0, explained, len(h_TD))


def special(explorer: Explorer, ids: list[int]) -> torch.Tensor:
    """True for special tokens."""
    return torch.tensor([i in explorer.model.tokens.special for i in ids])


def wiring(explorer: Explorer) -> list[Check]:
    """What the records say: module, widths, names."""
    sae, model = explorer.sae, explorer.model
    trained_on, name = sae.config.model.lower().split("/")[-1], model.name.lower().rstrip("/").split("/")[-1]
    return [
        Check("hook", None, f"{explorer.hook.name} is the {explorer.hook.side} of {explorer.hook.path}"),
        Check(
            "SAE's hook",
            sae.config.hook == explorer.hook.name if sae.config.hook else None,
            f"trained at {sae.config.hook}" if sae.config.hook else "the SAE's files do not name one",
        ),
        Check("d_in", sae.d_in == model.d_model, f"SAE {sae.d_in}, model {model.d_model}"),
        Check(
            "model",
            trained_on == name
            if trained_on and not Path(model.name).exists()
            else None,  # a folder may be called anything
            f"the SAE was trained on {sae.config.model}, this is {model.name}"
            if trained_on
            else "the SAE's files do not name one",
        ),
        Check(
            "SAE",
            None,
            f"{sae.config.encoder}, {sae.d_sae:,} features, normalisation {sae.config.normalisation}, "
            f"b_dec {'' if sae.config.apply_b_dec_to_input else 'not '}subtracted at the input",
        ),
    ]


def fed_ids(explorer: Explorer) -> Check:
    """Exactly one leading special token, as the SAE was trained."""
    tokens = explorer.model.tokens
    ids = tokens.feed(Prompt("The sky is blue.")).ids
    leading = next((n for n, i in enumerate(ids) if i not in tokens.special), len(ids))
    expected = 0 if tokens.bos is None else 1
    shown = " ".join(f"{i}:{tokens.string(i)!r}" for i in ids)
    trained = {True: "with one", False: "without one", None: "the files do not say how"}
    shown += f"; leading special tokens: {leading}, the SAE was trained {trained[explorer.sae.config.prepend_bos]}"
    return Check("fed token ids", leading == expected, f'"The sky is blue." is fed as {shown}')


def norms_in_words(norms_T: torch.Tensor, kept: int) -> str:
    """The spread of ||h||, and how many tokens were left out as special or sinks."""
    low, middle, high = (float(norms_T.quantile(q)) for q in (0.05, 0.5, 0.95))
    left_out = len(norms_T) - kept
    return f"||h|| 5 % {low:.1f}, median {middle:.1f}, 95 % {high:.1f}; {left_out} special or sink tokens left out"


def no_op(explorer: Explorer) -> Check:
    """An edit with scale 1 must leave every logit as it is, bit for bit."""
    ids = explorer.model.tokens.feed(Prompt("The weather in the mountains changes quickly, so take a warm coat.")).ids
    features = explorer.reference.count_F.topk(min(8, explorer.sae.d_sae)).indices.tolist()
    editor = explorer.editor([Edit(f, scale=1.0) for f in features])
    base_TV, edited_TV = paired_logprobs(explorer.model, editor, ids, len(ids) - 1)
    same = bool(torch.equal(base_TV, edited_TV))
    return Check("no-op edit exact", same, f"{len(features)} frequent features at scale 1, {base_TV.numel():,} logits")

"""The verb `diagnose`: is this SAE wired correctly to this model?

The checks that are measured on reference text are here. declared.py checks names and tokens, limits.py holds what
counts as healthy, wirings.py measures other wirings.
Shape suffixes: T tokens, D width of the hooked vector, F features of the SAE.
"""

from __future__ import annotations

import torch

import prompts
from engine.doctor import limits as health
from engine.doctor import wirings as wiring
from engine.doctor.declared import records_say
from engine.doctor.wirings import Fit, Found
from engine.generation.answers import paired_logprobs
from engine.generation.edits import make_editor
from engine.models.language_model import finite as vectors_finite
from engine.models.language_model import if_not_finite
from engine.models.pair import Events, Pair
from engine.models.reference import passages_of, read_text
from engine.records import Check, Diagnosis, Doctor, Edit, Progress, Prompt

ALIGNED = 0.05
"""Below this median cosine of a feature's encoder and decoder directions, the two are not of one SAE (trained ones:
0.2 to 0.8; unrelated ones: 0, give or take 1/sqrt(d_in))."""

MISTAKES = 3
"""Most things changed at once in the wirings that are tried for a SAE that is not healthy."""


def diagnose(pair: Pair, request: Doctor) -> Events:
    """Run every check. Returns a Diagnosis; ends early where the SAE does not have the hooked vectors' width."""
    sae, model = pair.site.sae, pair.model
    checks = records_say(pair)
    texts = read_text(prompts.NEUTRAL_TEXT)
    passages = passages_of(model, texts, request.text_tokens)
    yield Progress("reading text")
    vectors = yield from model.capture(pair.site.reads_at, passages, "reading text")
    all_TD = torch.cat(vectors)
    checks.append(width(pair, all_TD.shape[-1]))
    if checks[-1].ok is False:
        return Diagnosis(tuple(checks), 0.0, float("nan"), 0)
    h_TD = wiring.kept(all_TD, passages, model.tokens.special, pair.site.reference.sink_norm)
    checks += [finite(pair, all_TD), norms(all_TD, len(h_TD))]
    fit = yield from wiring.measure(sae, h_TD, "measuring the SAE")

    sample_TD = wiring.sample(h_TD, wiring.sample_size(sae))
    now = yield from wiring.measure(sae, sample_TD, "trying other wirings")
    # a healthy SAE is not wrong in two ways that cancel each other
    at_once = 1 if healthy(pair, fit) else MISTAKES
    wirings = [w for w in wiring.alternatives(sae, sample_TD) if len(w.changes) <= at_once]
    others = yield from wiring.compare(wirings, sample_TD, "trying other wirings")
    sparser = yield from wiring.compare(wiring.top_k_alternatives(sae, now), sample_TD, "trying topk encoders")
    rewired = wiring.best_of(others, now)
    best = sae if rewired is None else rewired.sae
    layers = yield from wiring.layers(model, pair.site.reads_at, passages, vectors, best)
    wiring_checks = [wired_otherwise(now, others, rewired), encoder(pair, now, fit, sparser), layer(pair, layers)]
    checks += [
        explains(pair, fit, len(h_TD), any(check.ok is False for check in wiring_checks)),
        fires(pair, fit),
        *wiring_checks,
        together(pair, fit),
        dead(pair),
    ]
    yield Progress("running a no-op edit")
    checks.append(no_op(pair))
    return Diagnosis(tuple(checks), fit.l0, fit.variance_explained, len(h_TD))


# ---- the measured checks


def width(pair: Pair, hooked: int) -> Check:
    """Compare d_in with the hooked vectors' width."""
    words = f"SAE {pair.site.sae.d_in}, hooked vectors {hooked}"
    if pair.site.sae.d_in == hooked:
        return Check("d_in", True, words)
    return Check("d_in", False, words, "Another model, or another kind of hook point than the SAE's: check both.")


def finite(pair: Pair, h_TD: torch.Tensor) -> Check:
    """No NaN and no infinity in the vectors and in the SAE's weights."""
    bad_T = ~vectors_finite(h_TD)
    sae = pair.site.sae
    weights = {"W_enc": sae.w_enc_DF, "W_dec": sae.w_dec_FD, "b_enc": sae.b_enc_F, "b_dec": sae.b_dec_D}
    broken = [name for name, weight in weights.items() if not all_finite(weight)]
    if bad_T.any():
        words = f"{int(bad_T.sum()):,} of {len(h_TD):,} hooked vectors hold NaN or infinity"
        return Check("finite numbers", False, words, if_not_finite(pair.model.dtype))
    if broken:
        return Check("finite numbers", False, f"{', '.join(broken)} hold NaN or infinity", "Download the SAE again.")
    return Check("finite numbers", True, "no NaN, no infinity in vectors and weights")


def all_finite(weight: torch.Tensor) -> bool:
    """Whether no number is NaN or infinite; read in pieces, so that no mask of the whole weight is made."""
    return all(bool(torch.isfinite(weight[at : at + 256]).all()) for at in range(0, len(weight), 256))


def healthy(pair: Pair, fit: Fit) -> bool:
    """Whether variance explained and L0 are as expected."""
    config = pair.site.sae.config
    return health.variance_ok(fit.variance_explained, config.published_variance_explained) and health.l0_ok(
        fit.l0, config.published_l0, config.k, pair.site.sae.d_in
    )


def norms(h_TD: torch.Tensor, kept: int) -> Check:
    """The spread of ||h||, and how many tokens were left out as special or sinks."""
    norm_T = h_TD[vectors_finite(h_TD)].float().norm(dim=-1)
    if len(norm_T) == 0:
        return Check("norms", None, "no vector is finite")
    low, middle, high = (float(norm_T.quantile(q)) for q in (0.05, 0.5, 0.95))
    words = f"||h|| 5 % {low:.1f}, median {middle:.1f}, 95 % {high:.1f}"
    return Check("norms", None, f"{words}; {len(norm_T) - kept} special or sink tokens left out")


def explains(pair: Pair, fit: Fit, tokens: int, blamed: bool) -> Check:
    """Compare the variance explained with the published value; `blamed`: another check names the likely mistake."""
    published = pair.site.sae.config.published_variance_explained
    expected = f"at least {health.MIN_VARIANCE_EXPLAINED} is to be expected"
    if published is not None:
        expected = f"published {published:.3f}, red from {health.SHORTFALL} below it"
    words = f"{fit.variance_explained:.3f} on {tokens:,} tokens of neutral text ({expected})"
    if health.variance_ok(fit.variance_explained, published):
        return Check("variance explained", True, words)
    trained_on = pair.site.sae.config.model or "not named in its files"
    remedy = "The checks below name a wiring that does better."
    if not blamed:
        remedy = (
            "No other normalisation, bias or neighbouring layer does clearly better: another model than the SAE's "
            f"({trained_on}), a layer further away, or damaged files?"
        )
    return Check("variance explained", False, words, remedy)


def fires(pair: Pair, fit: Fit) -> Check:
    """Compare L0, the mean number of features that fire per token, with the published value."""
    config = pair.site.sae.config
    low, high = health.l0_limits(config.published_l0, config.k, pair.site.sae.d_in)
    if config.published_l0 is not None:
        expected = f"published {config.published_l0:.1f}, red outside {low:.0f} to {high:.0f}"
    else:
        expected = f"k = {config.k}" if config.k is not None else f"sparse is below d_in / 4 = {high:.0f}"
    words = f"{fit.l0:.1f} features fire per token ({expected})"
    if health.l0_ok(fit.l0, config.published_l0, config.k, pair.site.sae.d_in):
        return Check("L0", True, words)
    remedy = "Too many fire: a normalisation, threshold or k that was not applied?"
    if fit.l0 < low:
        remedy = (
            "Too few fire: vectors too short for the thresholds (a normalisation missing), or another layer or model?"
        )
    return Check("L0", False, words, remedy)


def wired_otherwise(now: Fit, others: list[Found], best: Found | None) -> Check:
    """Check whether another normalisation or bias explains clearly more."""
    single = [f"{f.changes[0]} {f.fit.variance_explained:.3f}" for f in others if len(f.changes) == 1]
    words = f"as wired it explains {now.variance_explained:.3f}; " + ", ".join(single)
    if best is None:
        return Check("wiring", True, words)
    how = " and ".join(best.changes)
    words = f"with {how} it explains {best.fit.variance_explained:.3f} instead of {now.variance_explained:.3f}"
    remedy = f"The SAE was most likely trained with {how}: correct its configuration file."
    return Check("wiring", False, f"{words} (L0 {best.fit.l0:.0f} instead of {now.l0:.0f})", remedy)


def encoder(pair: Pair, now: Fit, fit: Fit, sparser: list[Found]) -> Check:
    """Check that a topk encoder keeps to its k, and that a standard one is not a TopK SAE read as ReLU."""
    config = pair.site.sae.config
    if config.encoder == "topk" and config.k is not None:
        words = f"at most {fit.most} features fire on a token, k = {config.k}"
        return Check("encoder", fit.most <= config.k, words, "" if fit.most <= config.k else "A defect: report it.")
    best = wiring.best_of(sparser, now, wiring.TOPK_GAIN)
    if best is not None:
        words = (
            f"with {best.changes[0]} it explains {best.fit.variance_explained:.3f} with {best.fit.l0:.0f} features "
            f"instead of {now.variance_explained:.3f} with {now.l0:.0f}"
        )
        return Check("encoder", False, words, "A TopK SAE read as ReLU: its configuration must say topk and k.")
    tried = ", ".join(f"{f.changes[0]} explains {f.fit.variance_explained:.3f}" for f in sparser)
    most = f"{config.encoder}, at most {fit.most} features fire on a token"
    return Check("encoder", True, f"{most}; {tried}" if tried else most)


def layer(pair: Pair, layers: list[Found]) -> Check:
    """Check whether a neighbouring layer explains clearly more."""
    name = pair.site.reads_at.name
    here = next((f.fit for f in layers if f.changes[0] == name), None)
    others = [f for f in layers if f.changes[0] != name]
    if here is None or not others:
        return Check("layer", None, "no layer of the same kind to compare with")
    words = ", ".join(f"{f.changes[0]} {f.fit.variance_explained:.3f}" for f in others)
    best = wiring.best_of(others, here)
    if best is None:
        return Check("layer", True, f"here it explains {here.variance_explained:.3f}; {words}")
    at = best.changes[0]
    words = f"at {at} it explains {best.fit.variance_explained:.3f}, here {here.variance_explained:.3f}: off by one?"
    return Check("layer", False, words, f"Try --hook {at} (in the app M).")


def together(pair: Pair, fit: Fit) -> Check:
    """Check that encoder and decoder are of one SAE: each feature reads about the direction it writes."""
    sae = pair.site.sae
    index_F = torch.linspace(0, sae.d_sae - 1, min(sae.d_sae, 4096)).long().to(sae.w_enc_DF.device)
    enc_FD, dec_FD = sae.w_enc_DF[:, index_F].float().T, sae.w_dec_FD[index_F].float()
    cosine = float(torch.nn.functional.cosine_similarity(enc_FD, dec_FD, dim=-1).median())
    words = f"median cosine of a feature's encoder and decoder directions {cosine:.2f}"
    # a SAE that explains the vectors has matching weights, whatever the cosine
    if cosine >= ALIGNED or fit.variance_explained >= health.MIN_VARIANCE_EXPLAINED:
        return Check("weights", True, words)
    remedy = "Those of unrelated weights: rows in another order, or files of two SAEs? Download it again."
    return Check("weights", False, words, remedy)


def dead(pair: Pair) -> Check:
    """Check how many features never fire on the reference text."""
    reference = pair.site.reference
    share = float((reference.count_F == 0).float().mean())
    words = f"{share:.1%} of the features never fire on {reference.n_tokens:,} tokens of {reference.text}"
    if reference.n_tokens < health.DEAD_TOKENS:
        return Check("dead features", None, f"{words}: too little text to judge")
    if share <= health.MANY_DEAD:
        return Check("dead features", True, words)
    if share <= health.MAX_DEAD:
        return Check("dead features", None, f"{words}: dead, or rarer than this text shows")
    return Check(
        "dead features", False, words, "The encoder does not get what it was trained on: see the checks above."
    )


def no_op(pair: Pair) -> Check:
    """Check that an edit with scale 1 leaves every logit as it is, bit for bit."""
    ids = pair.model.tokens.feed(Prompt("The weather in the mountains changes quickly, so take a warm coat.")).ids
    features = pair.site.reference.count_F.topk(min(8, pair.site.sae.d_sae)).indices.tolist()
    editor = make_editor(pair, [(), [Edit(f, 1.0) for f in features]])
    base_TV, edited_TV = paired_logprobs(pair.model, editor, ids, len(ids) - 1)
    words = f"{len(features)} frequent features at scale 1, {base_TV.numel():,} logits"
    if not bool(torch.isfinite(base_TV).all()):
        return Check("no-op edit exact", False, "the logits hold NaN or infinity", if_not_finite(pair.model.dtype))
    if torch.equal(base_TV, edited_TV):
        return Check("no-op edit exact", True, words)
    far = float((base_TV - edited_TV).abs().max())
    return Check(
        "no-op edit exact", False, f"{words}: up to {far:.2g} nats apart", "Do not trust edits here: report it."
    )

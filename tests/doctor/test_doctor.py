"""The doctor finds the demo healthy, and every way of wiring it wrong: each turns the check red that is about it."""

from copy import copy
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import msgspec
import pytest
import samples
import torch
from tiny import D_MODEL
from transformers import LlamaConfig, LlamaForCausalLM

import prompts
from engine.doctor import limits as health
from engine.doctor import wirings as wiring
from engine.doctor.diagnose import diagnose
from engine.loading.open_pair import doubts
from engine.models.hooks import resolve_hook
from engine.models.language_model import LanguageModel
from engine.models.pair import Pair, Site
from engine.models.reference import compute as compute_reference
from engine.models.reference import passages_of, read_text
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records import Diagnosis, Doctor, Loaded, Progress
from engine.serving.client import ask

K = 4


def finish(work):
    """Runs a generator to its end; returns its result and what it yielded."""
    seen = []
    while True:
        try:
            seen.append(next(work))
        except StopIteration as done:
            return done.value, seen


def examined(explorer, text_tokens=1500):
    diagnosis, _ = finish(diagnose(explorer, Doctor(text_tokens)))
    return SimpleNamespace(
        diagnosis=diagnosis,
        checks={check.name: check for check in diagnosis.checks},
        red={check.name for check in diagnosis.checks if check.ok is False},
    )


def weights_of(sae):
    weights = {"W_enc": sae.w_enc_DF, "W_dec": sae.w_dec_FD, "b_enc": sae.b_enc_F, "b_dec": sae.b_dec_D}
    return weights | ({"threshold": sae.threshold_F} if sae.config.encoder == "jumprelu" else {})


def rewired(explorer, *, weights=None, hook=None, model=None, reference=None, **changes):
    """The explorer with some things otherwise."""
    old, model = explorer.site.sae, model or explorer.model
    sae = SparseAutoencoder(replace(old.config, **changes), weights_of(old) | (weights or {}))
    hook = resolve_hook(model.module, hook) if hook else explorer.site.reads_at
    return Pair(model, [Site(sae, hook, hook, reference or explorer.site.reference)], explorer.loaded)


# ---- the packaged demo


FEW, MORE = 500, 900
"""Tokens on which a mistake shows on the demo; to choose between normalisations that do about as well takes more."""


@pytest.fixture(scope="module")
def demo(demo):
    """The demo's pair, which reads passages once for all tests."""
    explorer, captured = demo._pair, {}
    tokens = copy(explorer.model.tokens)
    tokens.feed = cache(tokens.feed)
    model = replace(explorer.model, tokens=tokens)
    capture = model.capture

    def once(hook, sequences, stage):
        """The same passages are read at the same place again and again; a layer's output is the next one's input."""
        layer = int(hook.path.rsplit(".", 1)[1]) + (hook.side == "output")
        key = (layer, tuple(map(tuple, sequences)))
        if key not in captured:
            captured[key] = yield from capture(hook, sequences, stage)
        return captured[key]

    model.capture = once
    return Pair(model, explorer.sites, explorer.loaded)


@pytest.mark.demo
def test_the_demo_is_green_and_measures_what_its_reference_says(demo):
    found = examined(demo, MORE)
    assert found.red == set()
    assert not [check for check in found.diagnosis.checks if check.remedy]
    assert found.diagnosis.variance_explained == pytest.approx(demo.site.reference.variance_explained, abs=0.02)
    assert found.diagnosis.l0 == pytest.approx(demo.site.reference.l0, rel=0.1)
    assert "24 tokens before a prompt" in found.checks["chat prompt"].detail
    assert "106,096 tokens" in found.checks["dead features"].detail


@pytest.mark.demo
@pytest.mark.parametrize("layer", [14, 16])
def test_a_layer_too_low_or_too_high_is_named(demo, layer):
    found = examined(rewired(demo, hook=f"blocks.{layer}.hook_resid_pre"), FEW)
    assert found.red >= {"SAE's hook", "layer"}
    assert "blocks.15.hook_resid_pre" in found.checks["SAE's hook"].remedy
    assert found.checks["layer"].remedy == "Try --hook blocks.15.hook_resid_pre (in the app M)."


@pytest.mark.demo
def test_the_same_place_by_another_name_is_fine(demo):
    found = examined(rewired(demo, hook="model.layers.14"), FEW)
    assert found.red == set()
    assert "another name of the same place" in found.checks["SAE's hook"].detail


@pytest.mark.demo
def test_a_missing_normalisation_is_named(demo):
    found = examined(rewired(demo, normalisation="none"), MORE)
    assert found.red == {"variance explained", "L0", "wiring"}
    assert "with constant_norm_rescale it explains 0.8" in found.checks["wiring"].detail
    assert "name a wiring that does better" in found.checks["variance explained"].remedy


@pytest.mark.demo
def test_a_wrong_normalisation_is_named_even_where_it_explains_a_lot(demo):
    scale = demo.site.sae.d_in**0.5 / demo.site.reference.median_norm
    found = examined(rewired(demo, normalisation="expected_average_only_in", scale=scale), MORE)
    assert found.red == {"wiring"}
    assert "with constant_norm_rescale" in found.checks["wiring"].detail
    found = examined(rewired(demo, normalisation="expected_average_only_in", scale=3 * scale), FEW)
    assert found.red >= {"wiring", "variance explained", "L0"}


@pytest.mark.demo
def test_a_bias_wrongly_subtracted_is_named(demo):
    found = examined(rewired(demo, apply_b_dec_to_input=True), FEW)
    assert found.red == {"variance explained", "L0", "wiring"}
    assert "b_dec not subtracted at the input" in found.checks["wiring"].remedy


@pytest.mark.demo
def test_two_mistakes_and_a_wrong_layer_are_named_together(demo):
    both = rewired(demo, hook="blocks.16.hook_resid_pre", normalisation="none", apply_b_dec_to_input=True)
    found = examined(both, FEW)
    assert found.red >= {"wiring", "layer", "SAE's hook", "variance explained"}
    assert "constant_norm_rescale and b_dec not subtracted at the input" in found.checks["wiring"].detail
    assert "blocks.15" in found.checks["layer"].remedy


@pytest.mark.demo
def test_a_lost_threshold_shows_in_l0(demo):
    found = examined(rewired(demo, encoder="standard"), FEW)
    assert found.red == {"L0"}
    assert "not applied" in found.checks["L0"].remedy


@pytest.mark.demo
def test_decoder_rows_in_another_order_are_no_wiring(demo):
    order = torch.randperm(demo.site.sae.d_sae, generator=torch.Generator().manual_seed(0))
    found = examined(rewired(demo, weights={"W_dec": demo.site.sae.w_dec_FD[order]}), FEW)
    assert found.red == {"variance explained", "weights"}
    assert "damaged files" in found.checks["variance explained"].remedy


@pytest.mark.demo
def test_another_model_of_the_same_width_is_found_out(demo):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=demo.model.module.config.vocab_size, hidden_size=demo.site.sae.d_in, intermediate_size=64,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.1,
    )  # fmt: skip
    from nnsight import NNsight

    module = LlamaForCausalLM(config).eval()
    other = LanguageModel("someone/else", "", module, demo.model.tokens, NNsight(module), ())
    sae = demo.site.sae
    texts = read_text(prompts.NEUTRAL_TEXT)[:8]
    hook = resolve_hook(module, "blocks.1.hook_resid_pre")
    reference, _ = finish(compute_reference(other, sae, hook, texts, "short"))
    found = examined(Pair(other, [Site(sae, hook, hook, reference)], demo.loaded), FEW)
    assert found.red >= {"model", "SAE's hook", "variance explained"}
    assert found.checks["wiring"].ok and found.checks["layer"].ok is not False  # nothing to do about it
    assert "another model than the SAE's" in found.checks["variance explained"].remedy


# ---- a small SAE, trained on the tiny model


@pytest.fixture(scope="module")
def vectors(explorer):
    """All the vectors the doctor looks at, in float32."""
    passages = passages_of(explorer.model, read_text(prompts.NEUTRAL_TEXT), 1500)
    captured, _ = finish(explorer.model.capture(explorer.site.reads_at, passages, ""))
    return wiring.kept(torch.cat(captured), passages, explorer.model.tokens.special, explorer.site.reference.sink_norm)


@pytest.fixture(scope="module")
def topk(explorer, vectors):
    """A TopK SAE that explains the tiny model's vectors."""
    torch.manual_seed(0)
    F = 96
    w_dec = torch.nn.functional.normalize(torch.randn(F, D_MODEL))
    parts = {"W_enc": w_dec.T.clone(), "W_dec": w_dec, "b_enc": torch.zeros(F), "b_dec": vectors.mean(0)}
    parts = {name: part.clone().requires_grad_() for name, part in parts.items()}
    optimiser = torch.optim.Adam(parts.values(), 3e-3)
    for _ in range(400):
        x = vectors[torch.randint(len(vectors), (256,))]
        z = (x - parts["b_dec"]) @ parts["W_enc"] + parts["b_enc"]
        best = z.topk(K, dim=-1)
        f = torch.zeros_like(z).scatter(1, best.indices, best.values.relu())
        loss = (x - f @ parts["W_dec"] - parts["b_dec"]).square().sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    config = SaeConfig("trained", "topk", "none", True, explorer.site.reads_at.name, "tiny", k=K, published_l0=float(K))
    sae = SparseAutoencoder(config, {name: part.detach() for name, part in parts.items()})
    return Pair(explorer.model, [replace(explorer.site, sae=sae)], explorer.loaded)


def with_counts(explorer, count, n_tokens=100_000):
    """The explorer with other reference counts."""
    reference = replace(explorer.site.reference, count_F=count, n_tokens=n_tokens)
    return Pair(explorer.model, [replace(explorer.site, reference=reference)], explorer.loaded)


def test_a_trained_topk_sae_is_green(topk):
    found = examined(topk)
    assert found.red == set(), found.checks
    assert found.diagnosis.l0 <= K
    assert "k = 4" in found.checks["encoder"].detail
    assert found.checks["no-op edit exact"].ok
    # a folder's name says nothing, unless it is the model's
    assert found.checks["model"].ok in (None, True)


def test_published_numbers_are_compared_with(topk):
    explained = examined(topk).diagnosis.variance_explained
    good = {"published_variance_explained": explained + 0.05, "published_l0": 6.0}
    found = examined(rewired(topk, **good))
    assert found.red == set()
    assert f"published {explained + 0.05:.3f}" in found.checks["variance explained"].detail
    wrong = good | {"published_variance_explained": explained + 0.12}
    assert examined(rewired(topk, **wrong)).red == {"variance explained"}
    assert examined(rewired(topk, **good | {"published_l0": 9.0})).red == {"L0"}
    assert examined(rewired(topk, **good | {"published_l0": 1.5})).red == {"L0"}


def test_a_topk_sae_read_as_relu_is_named(topk):
    found = examined(rewired(topk, encoder="standard", k=None))
    assert found.red >= {"encoder", "L0"}
    assert "a topk encoder with k = 4" in found.checks["encoder"].detail
    assert "must say topk" in found.checks["encoder"].remedy


def test_a_bias_that_is_not_subtracted_and_a_layer_off_by_one_are_named(topk):
    found = examined(rewired(topk, apply_b_dec_to_input=False))
    assert "wiring" in found.red
    assert "b_dec subtracted at the input" in found.checks["wiring"].detail
    found = examined(rewired(topk, hook="blocks.2.hook_resid_pre"))
    assert {"layer", "SAE's hook"} <= found.red


def test_the_numbers_are_those_of_the_plain_formula(topk, vectors):
    fit, _ = finish(wiring.measure(topk.site.sae, vectors, ""))
    h, sae = vectors.double(), topk.site.sae
    z = (h - sae.b_dec_D.double()) @ sae.w_enc_DF.double() + sae.b_enc_F.double()
    best = z.topk(K, dim=-1)
    f = torch.zeros_like(z).scatter(1, best.indices, best.values.relu())
    h_hat = f @ sae.w_dec_FD.double() + sae.b_dec_D.double()
    explained = 1 - (h - h_hat).square().sum() / (h - h.mean(0)).square().sum()
    assert fit.variance_explained == pytest.approx(float(explained), abs=1e-5)
    assert fit.l0 == pytest.approx(float((f > 0).sum(-1).double().mean()), abs=1e-3)
    assert fit.most == int((f > 0).sum(-1).max())
    found = examined(topk)
    assert found.diagnosis.variance_explained == pytest.approx(fit.variance_explained, abs=1e-6)
    assert found.diagnosis.l0 == pytest.approx(fit.l0)
    assert found.diagnosis.tokens == len(vectors)


def test_features_that_never_fire_are_counted_and_judged_on_enough_text(topk):
    count = torch.zeros(topk.site.sae.d_sae, dtype=torch.int32)
    count[:5] = 100
    found = examined(with_counts(topk, count))
    assert found.red == {"dead features"}
    assert found.checks["dead features"].detail.startswith("94.8% of the features never fire on 100,000 tokens")
    assert examined(with_counts(topk, count, 900)).checks["dead features"].ok is None
    for never, ok in ((28, True), (30, None)):  # of 96
        count = torch.full((topk.site.sae.d_sae,), 100, dtype=torch.int32)
        count[:never] = 0
        assert examined(with_counts(topk, count)).checks["dead features"].ok is ok


def test_numbers_that_are_none_are_found_and_the_rest_goes_on(topk, monkeypatch):
    capture = topk.model.capture

    def broken(hook, sequences, stage):
        found = yield from capture(hook, sequences, stage)
        return [h.index_fill(0, torch.tensor([1]), float("nan")) for h in found]

    monkeypatch.setattr(topk.model, "capture", broken)
    found = examined(topk)
    assert "finite numbers" in found.red
    assert "NaN" in found.checks["finite numbers"].detail
    assert "damaged" in found.checks["finite numbers"].remedy  # in float32 nothing else makes a NaN
    assert "no-op edit exact" in found.checks
    monkeypatch.setattr(topk.model, "capture", capture)
    broken_sae = rewired(topk)
    broken_sae.site.sae.w_dec_FD = broken_sae.site.sae.w_dec_FD.index_fill(0, torch.tensor([3]), float("inf"))
    assert "W_dec" in examined(broken_sae).checks["finite numbers"].detail


def test_a_sae_of_another_width_ends_the_examination(topk):
    wide = {"W_enc": torch.ones(8, 5), "W_dec": torch.ones(5, 8), "b_enc": torch.ones(5), "b_dec": torch.ones(8)}
    sae = SparseAutoencoder(replace(topk.site.sae.config, k=2), wide)
    found = examined(Pair(topk.model, [replace(topk.site, sae=sae)], topk.loaded))
    assert found.red == {"d_in"}
    assert found.checks["d_in"].detail == "SAE 8, hooked vectors 16"
    assert found.diagnosis.tokens == 0


def test_notes_training_and_missing_names_are_shown(topk):
    found = examined(rewired(topk, notes=("folded",)))
    assert found.checks["note"].detail == "folded"
    found = examined(rewired(topk, model="", prepend_bos=False))
    assert found.checks["model"].ok is None and found.checks["model"].remedy
    fed = found.checks["fed token ids"]
    assert "trained without one" in fed.detail
    assert fed.ok is None and "--bos" in fed.remedy


def test_two_leading_tokens_are_red(topk, monkeypatch):
    plain = topk.model.tokens.feed

    def twice(prompt, *more):
        fed = plain(prompt, *more)
        return replace(fed, ids=[fed.ids[0], *fed.ids], template=[True, *fed.template])

    monkeypatch.setattr(topk.model.tokens, "feed", twice)
    assert examined(topk).red >= {"fed token ids", "chat prompt"}


def test_it_tells_how_far_it_is_and_stops_between_two_steps(topk):
    _, seen = finish(diagnose(topk, Doctor(1500)))
    stages = [event.stage for event in seen if isinstance(event, Progress)]
    assert {"reading text", "measuring the SAE", "trying other wirings", "running a no-op edit"} <= set(stages)
    work = diagnose(topk, Doctor(1500))
    for _ in range(5):
        next(work)
    work.close()
    with pytest.raises(StopIteration):
        next(work)


def test_what_is_red_says_what_to_do(client):
    diagnosis = ask(client, Doctor(600), Diagnosis)  # a random SAE
    assert "variance explained" in [check.name for check in diagnosis.checks if check.ok is False]
    assert all(check.remedy for check in diagnosis.checks if check.ok is False)


# ---- the rules


@pytest.mark.parametrize(
    ("trained_on", "name", "same"),
    [
        ("mistral-7b", "mistralai/Mistral-7B-v0.1", True),
        ("gpt2-small", "gpt2", True),
        ("gpt2-small", "openai-community/gpt2", True),
        ("gemma-2-2b", "google/gemma-2-2b", True),
        ("google/gemma-2-2b", "/models/models--google--gemma-2-2b/snapshots/c5ebcd40", True),
        ("meta-llama/Meta-Llama-3.1-8B", "meta-llama/Llama-3.1-8B", True),
        ("gemma-3-1b-pt", "google/gemma-3-1b-pt", True),
        ("llama_2_7b", "meta-llama/Llama-2-7b-hf", True),
        ("gemma-2-2b", "google/gemma-2-2b-it", None),
        ("gemma-3-1b-pt", "google/gemma-3-1b-it", None),
        ("Qwen/Qwen3-1.7B-Base", "Qwen/Qwen3-1.7B", None),
        ("Llama-3.1-8B", "meta-llama/Llama-3.1-8B-Instruct", None),
        ("Llama-3.1-8B", "NousResearch/Hermes-3-Llama-3.1-8B", None),
        ("google/gemma-2-9b-it", "unsloth/gemma-2-9b-it-bnb-4bit", None),
        ("Qwen/Qwen2.5-7B", "deepseek-ai/DeepSeek-R1-Distill-Qwen2.5-7B", None),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "meta-llama/Llama-3.1-8B", False),
        ("meta-llama/Llama-3.1-8B", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", False),
        ("mistral-7b", "mistralai/Mistral-7B-v0.3", False),
        ("gpt2-small", "gpt2-medium", False),
        ("gemma-2-2b", "google/gemma-2-9b", False),
        ("pythia-70m", "EleutherAI/pythia-70m-deduped", False),
    ],
)
def test_names_of_models(trained_on, name, same):
    assert health.same_model(trained_on, name) is same


def test_limits():
    assert health.variance_ok(0.5, None) and not health.variance_ok(0.49, None)
    assert health.variance_ok(0.76, 0.85) and not health.variance_ok(0.74, 0.85)
    assert health.variance_ok(0.42, 0.5) and not health.variance_ok(float("nan"), None)
    assert health.l0_ok(74, 74, None, 4096) and not health.l0_ok(20, 74, None, 4096)
    assert not health.l0_ok(600, 80, None, 4096)
    assert not health.l0_ok(0.9, None, None, 16) and not health.l0_ok(0.9, 1.5, None, 16)
    assert not health.l0_ok(0, None, None, 16) and not health.l0_ok(200, None, None, 768)
    assert health.l0_ok(256, None, 256, 768) and not health.l0_ok(257, None, 256, 768)
    assert health.short_doubts(0.8, 70, 0.85, 74, None, 4096) == []
    assert health.short_doubts(0.12, 0, None, None, None, 4096) == [
        "VE 0.12: wrong layer, model or normalisation?",
        "L0 0 of at most 1024",
    ]


# ---- what loading says already


def test_loading_keeps_the_measured_numbers_and_doubts_them(client, explorer):
    loaded = explorer.loaded
    assert (loaded.l0, loaded.variance_explained) == (
        explorer.site.reference.l0,
        explorer.site.reference.variance_explained,
    )
    assert loaded.doubts[0].startswith("VE ")  # a random SAE


def test_loading_doubts_another_hook_and_another_model(topk):
    def found(explorer):
        return doubts(explorer.model, explorer.site.sae, explorer.site.reads_at, reference)

    reference = replace(topk.site.reference, l0=4.0, variance_explained=0.9)
    assert found(topk) == ()
    assert found(rewired(topk, hook="model.layers.0")) == ()
    assert found(rewired(topk, hook="blocks.2.hook_resid_pre")) == ("the SAE's hook is blocks.1.hook_resid_pre",)
    other = replace(topk.model, name="google/gemma-2-9b")
    assert found(rewired(topk, model=other, hook=topk.site.reads_at.name)) == ("the SAE's model is tiny",)
    base = replace(topk.model, name="owner/tiny-base")  # the SAE may be worth less on another variant
    assert found(rewired(topk, model=base, hook=topk.site.reads_at.name)) == ("the SAE's model is tiny",)


def test_a_session_from_before_these_numbers_is_read():
    old = msgspec.to_builtins(samples.LOADED)
    old = {name: old[name] for name in old if name not in ("l0", "variance_explained", "doubts")}
    read = msgspec.convert(old, Loaded)
    assert (read.l0, read.variance_explained, read.doubts) == (None, None, ())

"""Shortcuts that a model's layers do not bear: the long way is taken, or the verb is refused in words."""

import pytest
import torch
from editing import make_reference
from families import D_MODEL, write_family
from tiny import sae_weights
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from engine.generation.generate import generate
from engine.generation.probes import score_answers
from engine.generation.shortcuts import shortcuts
from engine.loading.demo.model import finish
from engine.loading.load_model import load_model
from engine.models.hooks import resolve_hook
from engine.models.pair import Pair, Site
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records import Answer, Edit, Generate, Probe, Prompt, Sampling, ScoreAnswers
from engine.records.errors import HookError, ModelError

PLAIN = LlamaDecoderLayer.forward

ROWS = ("She said the tide is in.", "A doctor ate")


def more_in_a_batch(h_BTD):
    """As where experts have room for so many tokens: what a row gives depends on the other rows."""
    return h_BTD * (1 + 0.1 * len(h_BTD))


def more_in_a_step(h_BTD):
    """As where a state is not carried from token to token."""
    return h_BTD * (1.5 if h_BTD.shape[1] == 1 else 1)


def more_at_the_start(h_BTD):
    """As where several tokens at once begin from nothing, whatever was read before."""
    factor_T = torch.ones(h_BTD.shape[1])
    factor_T[0] = 1.5
    return h_BTD * factor_T[:, None]


def make_pair(folder, dtype=torch.float32, name="llama"):
    model = load_model(str(write_family(name, folder)), name, torch.device("cpu"), dtype)
    hook = resolve_hook(model.module, "blocks.1.hook_resid_post")
    sae = SparseAutoencoder(SaeConfig("test", "standard", "none", False, hook.name, ""), sae_weights("standard"))
    return Pair(model, [Site(sae, hook, hook, make_reference(sae))], None)


@pytest.fixture
def broken(tmp_path, monkeypatch):
    """Makes a pair of a Llama whose blocks are given changed vectors."""

    def make(change):
        def forward(block, hidden_states, *args, **kwargs):
            return PLAIN(block, change(hidden_states), *args, **kwargs)

        monkeypatch.setattr(LlamaDecoderLayer, "forward", forward)
        return make_pair(tmp_path / "model")

    return make


REQUEST = Generate(Prompt(ROWS[0], "raw"), (Edit(3, 2.0),), Sampling(4))


def test_a_sound_model_takes_every_shortcut(tmp_path):
    pair = make_pair(tmp_path / "model")
    assert len(finish(generate(pair, REQUEST)).baseline.token_ids) == 4
    assert shortcuts(pair).answers_together
    assert pair.model._batches(pair.site.reads_at)


@pytest.mark.parametrize("change", (more_in_a_batch, more_in_a_step))
def test_a_text_that_steps_would_make_wrong_is_refused(broken, change):
    with pytest.raises(ModelError, match="Texts cannot be generated with a LlamaForCausalLM: token by token"):
        finish(generate(broken(change), REQUEST))


@pytest.mark.parametrize("change", (more_in_a_batch, more_at_the_start))
def test_answers_are_read_by_themselves_where_sharing_would_make_them_wrong(broken, change):
    pair = broken(change)
    assert not shortcuts(pair).answers_together
    answers = (" in", " tide is out")
    probe = Probe(ROWS[0], "raw", answers=tuple(Answer(a, (a,)) for a in answers))
    scored = finish(score_answers(pair, ScoreAnswers(probe, ())))
    start = len(pair.model.tokens.feed(Prompt(ROWS[0], "raw")).ids)
    for row, answer in zip(scored.answers, answers, strict=True):
        ids = pair.model.tokens.feed(Prompt(ROWS[0] + answer, "raw")).ids
        # baseline and edited make two rows, in the long way too
        logits_TV = pair.model.module(input_ids=torch.tensor([ids, ids]), use_cache=False).logits[0]
        logprobs_V = logits_TV.log_softmax(-1)[range(start - 1, len(ids) - 1), ids[start:]]
        assert row.baseline == pytest.approx(float(logprobs_V.sum().exp()), rel=1e-4)


def test_texts_are_captured_one_by_one_where_a_batch_would_change_them(broken):
    pair = broken(more_in_a_batch)
    hook = pair.site.reads_at
    rows = [pair.model.tokens.feed(Prompt(text, "raw")).ids for text in ROWS]
    for ids, h_TD in zip(rows, pair.model.capture_batch(hook, rows), strict=True):
        assert torch.equal(h_TD, pair.model.capture_batch(hook, [ids])[0])
        assert h_TD.shape == (len(ids), D_MODEL)


def test_a_comparison_is_made_once_per_load(broken, monkeypatch):
    pair = broken(lambda h_BTD: h_BTD)
    finish(generate(pair, REQUEST))
    found = shortcuts(pair)
    monkeypatch.setattr(type(found), "_whole", None)
    finish(generate(pair, Generate(Prompt(ROWS[1], "raw"), (), Sampling(4), variants=((Edit(5, 2.0),),))))
    assert shortcuts(pair) is found


def test_layers_that_read_the_weights_of_others_are_not_packed(tmp_path):
    """In Jamba: a packed weight is no ordinary tensor."""
    pair = make_pair(tmp_path / "model", torch.bfloat16, "jamba")
    assert len(finish(generate(pair, REQUEST)).baseline.token_ids) == 4


def test_what_the_refusal_of_a_gemma_3n_block_offers_is_there(tmp_path):
    model = load_model(str(write_family("gemma3n_text", tmp_path)), "gemma", torch.device("cpu"), torch.float32)
    with pytest.raises(HookError, match="is 2 vectors per token, not one") as caught:
        model.capture_batch(resolve_hook(model.module, "blocks.2.hook_resid_post"), [[5, 6, 7]])
    offered = caught.value.remedy.removesuffix(".").rpartition(" ")[2]
    hook = resolve_hook(model.module, offered)
    (h_TD,) = model.capture_batch(hook, [[5, 6, 7]])
    assert h_TD.shape == (3, D_MODEL)


def test_what_the_refusal_of_a_mamba_offers_is_there_and_texts_are_its_own(tmp_path):
    model = load_model(str(write_family("mamba", tmp_path)), "mamba", torch.device("cpu"), torch.float32)
    with pytest.raises(HookError, match="Cannot find the transformer blocks of a MambaForCausalLM") as caught:
        resolve_hook(model.module, "blocks.2.hook_resid_post")
    offered = caught.value.remedy.removesuffix(".").rpartition(" ")[2]
    hook = resolve_hook(model.module, offered)
    (h_TD,) = model.capture_batch(hook, [[5, 6, 7]])
    assert h_TD.shape == (3, D_MODEL)
    sae = SparseAutoencoder(SaeConfig("test", "standard", "none", False, hook.name, ""), sae_weights("standard"))
    pair = Pair(model, [Site(sae, hook, hook, make_reference(sae))], None)
    found = finish(generate(pair, REQUEST))
    assert "slower, but right" in found.warnings[0]  # it takes no keys and values
    ids = list(found.prompt.token_ids)
    for token in found.baseline.token_ids:
        with torch.inference_mode():
            assert token == int(model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax())
        ids.append(token)

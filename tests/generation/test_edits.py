"""Edits against nnsight's own intervention and a plain formula; what must not change, bit for bit."""

import msgspec
import pytest
import torch
from editing import active_features, counts, expect, firings
from nnsight import NNsight
from tiny import BOS, write_sae

from engine.generation.answers import paired_logprobs
from engine.generation.edits import ResidualEditor, make_editor
from engine.loading.demo.model import finish
from engine.records import Edit, Loaded, Prompt
from engine.records.errors import EditError
from engine.serving.client import ask
from engine.serving.local import LocalClient

TEXT = "She said that the tide comes in twice, because rust forms on the sand."


def nnsight_logits(explorer, ids, edits):
    """Logits of the model with h + delta put in by nnsight; delta by the written formula, token by token."""
    sae, hook = explorer.site.sae, explorer.site.reads_at
    h_TD = explorer.model.capture_batch(hook, [ids])[0].double()
    changed = h_TD.clone()
    for t in range(1, len(ids)):  # position 0 is the leading special token: never edited
        u = 1.0 if sae.config.normalisation == "none" else float(h_TD[t].norm() / sae.d_in**0.5)
        for edit in edits:
            z = float(h_TD[t] / u @ sae.w_enc_DF[:, edit.feature].double() + sae.b_enc_F[edit.feature])
            f = z if z > float(sae.threshold_F[edit.feature]) else 0.0
            changed[t] += u * (edit.strength * f - f) * sae.w_dec_FD[edit.feature].double()
    envoy = NNsight(explorer.model.module)
    node = envoy.get(hook.path)
    value = changed.float()[None]
    with torch.inference_mode(), envoy.trace(input_ids=torch.tensor([ids]), use_cache=False):
        if hook.side == "input":
            node.input = value
        else:
            node.output = value
        logits = envoy.lm_head.output.save()
    return logits[0]


def own_logprobs(explorer, ids, edits):
    return paired_logprobs(explorer.model, make_editor(explorer, [(), edits]), ids, len(ids) - 1)


def edit_sets(features):
    a, b, c, d = features
    return [
        [Edit(a)],
        [Edit(a, 0.5)],
        [Edit(a, -1.0)],
        [Edit(b, 3.0)],
        [Edit(a), Edit(b, 0.125), Edit(c, 2.0), Edit(d, -0.5)],
    ]


@pytest.mark.parametrize("which", range(5))
def test_edited_logits_equal_nnsights_own_intervention(explorer, which):
    ids = explorer.model.tokens.feed(Prompt(TEXT)).ids
    edits = edit_sets(active_features(explorer, ids, 4))[which]
    base, edited = own_logprobs(explorer, ids, edits)
    expected = torch.log_softmax(nnsight_logits(explorer, ids, edits)[:-1].float(), -1)
    assert torch.allclose(edited, expected, atol=1e-4)
    assert (edited - base).abs().max() > 0.01  # the edit is not nothing


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "model.layers.0", "blocks.0.hook_resid_pre"])
@pytest.mark.parametrize(("encoder", "normalisation"), [("jumprelu", "none"), ("standard", "constant_norm_rescale")])
def test_every_hook_side_and_encoder_equals_nnsight(load, tmp_path, hook, encoder, normalisation):
    folder = write_sae(tmp_path / "sae", encoder=encoder, normalisation=normalisation, hook=hook)
    engine = LocalClient()
    ask(engine, msgspec.structs.replace(load, sae=str(folder)), Loaded)
    explorer = engine._pair
    ids = explorer.model.tokens.feed(Prompt(TEXT)).ids
    edits = edit_sets(active_features(explorer, ids, 4))[4]
    _, edited = own_logprobs(explorer, ids, edits)
    expected = torch.log_softmax(nnsight_logits(explorer, ids, edits)[:-1].float(), -1)
    assert torch.allclose(edited, expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_scale_one_changes_no_bit_and_the_baseline_never_depends_on_the_other_row(explorer, model, model_bf16, dtype):
    the_model = model if dtype == "float32" else model_bf16
    ids = the_model.tokens.feed(Prompt(TEXT)).ids

    def pair(scale):
        edits = [Edit(f, scale) for f in active_features(explorer, ids, 3)]
        editor = ResidualEditor(
            the_model, explorer.site.sae, explorer.site.reads_at, explorer.site.reference, [(), edits]
        )
        return paired_logprobs(the_model, editor, ids, len(ids) - 1)

    (base, noop), (other_base, edited) = pair(1.0), pair(-4.0)
    assert torch.equal(base, noop)
    assert torch.equal(base, other_base)
    assert not torch.equal(base, edited)


def test_the_leading_token_and_sinks_are_left_alone(explorer):
    ids = explorer.model.tokens.feed(Prompt(TEXT)).ids
    h_TD = explorer.model.capture_batch(explorer.site.reads_at, [ids])[0]
    editor = make_editor(explorer, [[Edit(f) for f in active_features(explorer, ids, 8)]])
    h_BTD = h_TD[None].clone()
    h_BTD[0, 5] *= 1.01 * explorer.site.reference.sink_norm / h_BTD[0, 5].norm()
    expect(editor, ids)
    edited = editor.edit(h_BTD)
    same = (edited == h_BTD).all(-1)[0]
    assert same[0]
    assert same[5]
    assert not same[1:].all()
    assert counts(editor) == (len(ids) - 2, int(same.sum()) - 2)


def test_an_edit_of_a_silent_feature_is_reported_inactive_everywhere(explorer):
    ids = explorer.model.tokens.feed(Prompt(TEXT)).ids
    h_TD = explorer.model.capture_batch(explorer.site.reads_at, [ids])[0]
    fires = firings(explorer, h_TD[1:])
    silent = int((fires == 0).nonzero()[0])
    editor = make_editor(explorer, [[Edit(silent)]])
    expect(editor, ids)
    assert torch.equal(editor.edit(h_TD[None]), h_TD[None])
    assert counts(editor) == (len(ids) - 1, len(ids) - 1)


def hooks_on(explorer):
    module = explorer.model.hooked_module(explorer.site.reads_at)
    return len(module._forward_pre_hooks) + len(module._forward_hooks)


def test_hooks_are_gone_after_an_error(explorer):
    before = hooks_on(explorer)
    editor = make_editor(explorer, [[Edit(0)]])

    def fail_inside():
        with editor.applied():
            assert hooks_on(explorer) == before + 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_inside()
    assert hooks_on(explorer) == before


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([Edit(1), Edit(1, 2.0)], "edited twice"),
        ([Edit(1, float("nan"))], "not a number"),
        ([Edit(40)], "features 0 to 39"),
        ([Edit(-1)], "features 0 to 39"),
    ],
)
def test_impossible_edits_are_refused(explorer, edits, words):
    with pytest.raises(EditError, match=words):
        make_editor(explorer, [(), edits])


def test_template_tokens_are_edited_though_they_do_not_count_in_a_ranking(explorer):
    (read,) = finish(explorer.read([Prompt("Who?", "chat")]))
    assert [not may for may in read.fed.edit_mask] == [i == BOS for i in read.fed.token_ids]
    assert sum(read.fed.rank_mask) == len("Who?") < sum(read.fed.edit_mask)

"""Every hook point in every family: against transformers' own hidden states, sums of parts, and nnsight."""

import copy
import dataclasses

import pytest
import torch
import transformers as tf
from editing import make_reference, random_sae
from families import D_MODEL, FAMILIES, LAYERS, PARALLEL, WINDOW, parts, write_family
from nnsight import NNsight

from engine.features.logit_lens import logit_lens, to_residual
from engine.generation.answers import paired_logprobs
from engine.generation.decoding import Text, lists_of, rows_of
from engine.generation.edits import ResidualEditor
from engine.generation.steps import Steps
from engine.loading.load_model import load_model
from engine.loading.open_pair import hook_of
from engine.models.hooks import resolve_hook, same_place
from engine.records import Edit, Generate, Prompt, Sampling
from engine.records.errors import HookError, MismatchError

CPU = torch.device("cpu")

TEXT = "She said the tide is in."  # longer than the sliding window

KINDS = ("hook_resid_pre", "hook_resid_mid", "hook_resid_post", "hook_attn_out", "hook_mlp_out", "attn.hook_z")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, tmp_path_factory):
    """(name, LanguageModel, token ids)"""
    folder = write_family(request.param, tmp_path_factory.mktemp("family") / request.param)
    model = load_model(str(folder), request.param, CPU, torch.float32)
    ids = model.tokens.feed(Prompt(TEXT)).ids
    assert len(ids) > 2 * WINDOW
    return request.param, model, ids


def vector(model, ids, name):
    return model.capture_batch(resolve_hook(model.module, name), [ids])[0]


def hooks_of(name):
    return [kind for kind in KINDS if kind != "hook_resid_mid" or name not in PARALLEL]


def close(a, b):
    return torch.allclose(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


# ---- what is captured


def test_the_residual_stream_is_transformers_hidden_states(family):
    _, model, ids = family
    with torch.inference_mode():
        out = model.module(input_ids=torch.tensor([ids]), output_hidden_states=True, use_cache=False)
    states = [h[0] for h in out.hidden_states]
    assert len(states) == LAYERS + 1
    for layer in range(LAYERS):
        assert close(vector(model, ids, f"blocks.{layer}.hook_resid_pre"), states[layer])
        post = vector(model, ids, f"blocks.{layer}.hook_resid_post")
        if layer < LAYERS - 1:
            assert close(post, states[layer + 1])
            assert torch.equal(post, vector(model, ids, f"blocks.{layer + 1}.hook_resid_pre"))
        else:  # transformers' last entry has the final norm applied
            norm = parts(model.module, layer)[3]
            assert close(norm(post), states[-1])
            assert not close(post, states[-1])


@pytest.mark.parametrize("layer", range(LAYERS))
def test_a_block_adds_its_attention_and_its_mlp_to_the_residual_stream(family, layer):
    name, model, ids = family
    found = {kind: vector(model, ids, f"blocks.{layer}.{kind}") for kind in hooks_of(name)}
    pre, attn, mlp = found["hook_resid_pre"], found["hook_attn_out"], found["hook_mlp_out"]
    assert close(pre + attn + mlp, found["hook_resid_post"])
    if name not in PARALLEL:
        assert close(pre + attn, found["hook_resid_mid"])
    assert min(float(part.norm()) for part in (attn, mlp)) > 0.1


def test_parallel_blocks_have_nothing_in_the_middle(family):
    name, model, _ = family
    if name not in PARALLEL:
        return
    with pytest.raises(HookError, match="in parallel") as caught:
        resolve_hook(model.module, "blocks.1.hook_resid_mid")
    assert "blocks.1.hook_resid_pre" in caught.value.remedy
    assert "resid_mid" not in caught.value.remedy


@pytest.mark.parametrize("layer", range(LAYERS))
def test_z_through_the_output_projection_is_what_attention_adds(family, layer):
    name, model, ids = family
    _, projection, norm, _ = parts(model.module, layer)
    z = vector(model, ids, f"blocks.{layer}.attn.hook_z")
    hook = resolve_hook(model.module, f"blocks.{layer}.attn.hook_z")
    assert z.shape[-1] == hook.width == (24 if name.startswith(("qwen3", "gemma")) else D_MODEL)
    out = projection(z)
    assert close(out if norm is None else norm(out), vector(model, ids, f"blocks.{layer}.hook_attn_out"))


def test_the_sliding_windows_here_matter(family, monkeypatch):
    name, model, ids = family
    config = model.module.config.get_text_config()
    if not name.startswith(("mistral", "gemma2", "gemma3", "phi3")):
        assert getattr(config, "sliding_window", None) is None
        return
    short = vector(model, ids, f"blocks.{LAYERS - 1}.hook_resid_post")
    monkeypatch.setattr(config, "sliding_window", 100)
    assert not close(vector(model, ids, f"blocks.{LAYERS - 1}.hook_resid_post"), short)


def test_several_rows_give_what_each_gives_alone(family):
    _, model, ids = family
    rows = [ids, ids[:5], ids[:11]]
    for kind in hooks_of(family[0]):
        hook = resolve_hook(model.module, f"blocks.1.{kind}")
        for row, found in zip(rows, model.capture_batch(hook, rows), strict=True):
            assert close(found, model.capture_batch(hook, [row])[0])


def test_names_releases_use_for_gemma_3(family):
    name, model, ids = family
    if not name.startswith("gemma3"):
        return
    spelled = {
        "model.layers.1.output": "blocks.1.hook_resid_post",
        "model.layers.1.self_attn.o_proj.input": "blocks.1.attn.hook_z",
        "model.layers.1.post_feedforward_layernorm.output": "blocks.1.hook_mlp_out",
        "model.layers.1.post_attention_layernorm.output": "blocks.1.hook_attn_out",
        "model.layers.1.pre_feedforward_layernorm.input": "blocks.1.hook_resid_mid",
        "layers.1": "blocks.1.hook_resid_post",
    }
    for plain, known in spelled.items():
        assert same_place(model.module, plain, known)
        assert torch.equal(vector(model, ids, plain), vector(model, ids, known))
    assert not same_place(model.module, "layers.1.mlp", "blocks.1.hook_mlp_out")
    assert not close(vector(model, ids, "layers.1.mlp"), vector(model, ids, "blocks.1.hook_mlp_out"))


def test_paths_relative_to_the_base_model_are_found(family):
    name, model, _ = family
    blocks = "h" if name == "gpt2" else "layers"
    assert same_place(model.module, f"{blocks}.1", "blocks.2.hook_resid_pre")
    gemma_norms = name.startswith("gemma") and name != "gemma"
    assert same_place(model.module, f"{blocks}.1.mlp", "blocks.1.hook_mlp_out") is not gemma_norms


# ---- edits


def edits_of(sae, h_TD):
    """Four edits of the features that fire most on tokens after the first, which is never edited."""
    fires = (sae.encode_features(h_TD[1:], sae.columns(range(sae.d_sae))) > 0).sum(0)
    features = fires.topk(4).indices.tolist()
    return [Edit(f, scale) for f, scale in zip(features, (0.0, 3.0, -1.0, 0.5), strict=True)]


def delta_of(sae, h_TD, edits):
    """The written formula in float64, feature by feature."""
    delta = torch.zeros_like(h_TD, dtype=torch.float64)
    for edit in edits:
        z_T = h_TD.double() @ sae.w_enc_DF[:, edit.feature].double() + sae.b_enc_F[edit.feature]
        delta += (edit.strength - 1) * z_T.clamp(min=0)[:, None] * sae.w_dec_FD[edit.feature].double()
    delta[0] = 0
    return delta.float()


def nnsight_logits(model, ids, layer, kind, delta):
    """Logits with delta added by nnsight, at modules found by hand.

    The residual stream between attention and MLP is changed by way of what attention adds to it.
    """
    block, projection, norm, _ = parts(model.module, layer)
    attention = next(getattr(block, n) for n in ("self_attn", "attn", "attention") if hasattr(block, n))
    module = {
        "hook_resid_pre": block,
        "hook_resid_post": block,
        "hook_mlp_out": block.mlp if norm is None else block.post_feedforward_layernorm,
        "attn.hook_z": projection,
    }.get(kind, attention if norm is None else norm)
    path = next(p for p, m in model.module.named_modules() if m is module)
    envoy = NNsight(model.module)
    node = envoy.get(path)
    with torch.inference_mode(), envoy.trace(input_ids=torch.tensor([ids]), use_cache=False):
        if kind in ("hook_resid_pre", "attn.hook_z"):
            node.input = node.input + delta
        elif module is attention:
            node.output = (node.output[0] + delta, *node.output[1:])
        else:
            node.output = node.output + delta
        logits = envoy.output.logits.save()
    return logits[0]


@pytest.mark.parametrize("kind", KINDS)
def test_edited_logits_equal_nnsights_own_intervention(family, kind):
    name, model, ids = family
    if kind not in hooks_of(name):
        return
    for layer in (1, LAYERS - 1):
        hook = resolve_hook(model.module, f"blocks.{layer}.{kind}")
        sae = random_sae(hook.width, hook.name)
        h_TD = model.capture_batch(hook, [ids])[0]
        edits = edits_of(sae, h_TD)
        editor = ResidualEditor(model, sae, hook, make_reference(sae), [(), edits])
        base, edited = paired_logprobs(model, editor, ids, len(ids) - 1)
        expected = nnsight_logits(model, ids, layer, kind, delta_of(sae, h_TD, edits))[:-1]
        assert torch.allclose(edited, torch.log_softmax(expected.float(), -1), atol=2e-4)
        assert (edited - base).abs().max() > 0.01  # the edit is not nothing


def run(steps):
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            return stop.value


def generated(model, sae, hook, ids, edits):
    """Both arms and the KL between them, more tokens than a window holds."""
    request = Generate(Prompt("told by its ids"), tuple(edits), Sampling(max_tokens=WINDOW + 2))
    rows = rows_of(request)
    editor = ResidualEditor(model, sae, hook, make_reference(sae), lists_of(request, rows, request.edits))
    steps = Steps(model, editor, len(ids) + request.sampling.max_tokens)
    return run(Text(model, steps, rows, ids, request).run())


@pytest.mark.parametrize("kind", KINDS)
def test_edits_work_under_the_cache_and_an_edit_that_changes_nothing_changes_no_bit(family, kind):
    name, model, ids = family
    if kind not in hooks_of(name):
        return
    hook = resolve_hook(model.module, f"blocks.1.{kind}")
    sae = random_sae(hook.width, hook.name)
    edits = edits_of(sae, model.capture_batch(hook, [ids])[0])
    noop = [Edit(edit.feature, 1.0) for edit in edits]
    same = generated(model, sae, hook, ids, noop)
    baseline, edited = same.arms[:2]
    assert (edited.ids, edited.logprobs) == (baseline.ids, baseline.logprobs)
    assert set(same.kl) == {0.0}
    found = generated(model, sae, hook, ids, edits)
    assert found.arms[0] == baseline
    assert max(found.kl) > 0
    editor = ResidualEditor(model, sae, hook, make_reference(sae), [(), edits])
    # without a cache every step reads everything anew
    for arm, row in ((found.arms[0], 0), (found.arms[1], 1)):
        whole = paired_logprobs(model, editor, [*ids, *arm.ids], len(arm.ids))[row]
        expected = whole[torch.arange(len(arm.ids)), arm.ids]
        assert torch.allclose(torch.tensor(arm.logprobs), expected, atol=1e-3)


# ---- the card and the SAE's fit


def test_directions_at_z_reach_the_residual_stream_through_the_projection(family):
    _, model, _ = family
    hook = resolve_hook(model.module, "blocks.1.attn.hook_z")
    _, projection, norm, _ = parts(model.module, 1)
    direction = torch.randn(hook.width, generator=torch.Generator().manual_seed(1))
    out = projection(direction[None])[0] - projection(torch.zeros(1, hook.width))[0]
    found = to_residual(model, direction, hook)
    if norm is None:
        assert close(found, out)
    else:
        assert float(torch.cosine_similarity(found, norm(out), dim=0)) > 1 - 1e-5


@pytest.mark.parametrize("kind", ("hook_resid_pre", "attn.hook_z"))
def test_the_logit_lens_is_how_logits_change_along_the_direction_at_a_fixed_scale(family, kind):
    _, model, _ = family
    hook = resolve_hook(model.module, f"blocks.1.{kind}")
    sae = random_sae(hook.width, hook.name)
    vocab = model.module.get_output_embeddings().weight.shape[0]
    promoted, suppressed = run(logit_lens(model, sae, 3, vocab, hook))
    # independent of how the norm is written: through the model's own, for a vector that keeps its scale to first order
    norm, head = (copy.deepcopy(part).double() for part in (parts(model.module, 1)[3], model.module.lm_head))
    direction = to_residual(model, sae.w_dec_FD[3], hook).double()
    h = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(2), dtype=torch.float64) + 0.5
    centred = isinstance(norm, torch.nn.LayerNorm)
    change = direction - direction.mean() if centred else direction
    h = h - (h @ change) / (change @ change) * change
    scale = h.std(unbiased=False) if centred else h.square().mean().sqrt()
    eps = 0.01  # some norms compute in float32
    with torch.no_grad():
        logits = (head(norm(h + eps * direction)) - head(norm(h - eps * direction))) / (2 * eps) * scale
    logits -= logits.mean()
    found = {t.token_id: t.logit for t in promoted}
    assert close(torch.tensor([found[i] for i in range(vocab)]).double(), logits)
    assert [t.token_id for t in promoted[:5]] == logits.topk(5).indices.tolist()
    assert [t.token_id for t in suppressed] == [t.token_id for t in reversed(promoted)]


def test_directions_are_only_read_where_they_get_to_the_residual_stream_in_a_straight_line(family):
    name, model, _ = family
    direction = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(1))
    for kind in hooks_of(name)[:-1]:
        assert torch.equal(to_residual(model, direction, resolve_hook(model.module, f"blocks.1.{kind}")), direction)
    blocks = "h" if name == "gpt2" else "layers"
    for path in (f"{blocks}.1.mlp.input", f"{blocks}.1.{'ln_1' if name == 'gpt2' else 'input_layernorm'}"):
        hook = resolve_hook(model.module, path)
        assert to_residual(model, direction, hook) is None
        assert run(logit_lens(model, random_sae(D_MODEL, path), 0, 5, hook)) == ((), ())


def test_a_sae_has_to_have_the_width_of_its_hook(family):
    name, model, _ = family
    z = "blocks.1.attn.hook_z"
    width = resolve_hook(model.module, z).width
    assert hook_of(model, random_sae(width, z), None).path.endswith(("o_proj", "c_proj", "dense"))
    with pytest.raises(MismatchError, match=f"width {width + 1}.*{width}"):
        hook_of(model, random_sae(width + 1, z), None)
    with pytest.raises(MismatchError, match="width 40"):
        hook_of(model, random_sae(40, "blocks.1.hook_mlp_out"), None)
    if width != D_MODEL:
        with pytest.raises(MismatchError, match="hook_z"):
            hook_of(model, random_sae(D_MODEL, z), None)
        with pytest.raises(HookError, match=f"hook_z has width {width}"):
            hook_of(model, random_sae(D_MODEL, ""), z)
    blocks = "h" if name == "gpt2" else "layers"
    assert hook_of(model, random_sae(D_MODEL, f"{blocks}.1.mlp.input"), None).width is None  # measured
    with pytest.raises(MismatchError, match="width 17"):
        hook_of(model, random_sae(17, f"{blocks}.1.mlp.input"), None)


# ---- centred GPT-2 and TransformerLens


def centred(module):
    """A copy of a GPT-2 in which whatever writes to the residual stream has mean 0 over d_model."""
    twin = copy.deepcopy(module)
    base = twin.transformer
    writers = [base.wte.weight, base.wpe.weight]
    for block in base.h:
        for part in (block.attn.c_proj, block.mlp.c_proj):
            writers += [part.weight, part.bias]
    with torch.no_grad():
        for writer in writers:  # d_model is the last dimension of all of them
            writer -= writer.mean(-1, keepdim=True)
    return twin


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """(LanguageModel, the same with centred writing weights, token ids)"""
    folder = write_family("gpt2", tmp_path_factory.mktemp("gpt2"))
    model = load_model(str(folder), "gpt2", CPU, torch.float32)
    plain = tf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    twin = centred(plain)
    return model, dataclasses.replace(model, module=twin, envoy=NNsight(twin)), model.tokens.feed(Prompt(TEXT)).ids


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_a_sae_trained_on_centred_weights_sees_the_same_in_the_plain_model(gpt2, kind):
    model, twin, ids = gpt2
    for layer in range(LAYERS):
        name = f"blocks.{layer}.{kind}"
        plain_TD, centred_TD = vector(model, ids, name), vector(twin, ids, name)
        assert close(plain_TD - plain_TD.mean(-1, keepdim=True), centred_TD)
        assert not close(plain_TD, centred_TD)
        sae = random_sae(D_MODEL, name, centered=True)
        seen = sae.normalise(plain_TD)
        assert close(seen.x_TD, centred_TD)
        columns = sae.columns(range(sae.d_sae))
        assert close(
            sae.encode_features(seen.x_TD, columns), random_sae(D_MODEL, name).encode_features(centred_TD, columns)
        )
        ours, theirs = sae.reconstruct(plain_TD)[0], random_sae(D_MODEL, name).reconstruct(centred_TD)[0]
        assert close(ours - plain_TD.mean(-1, keepdim=True), theirs)


def test_z_is_the_same_whether_weights_are_centred_or_not(gpt2):
    model, twin, ids = gpt2
    for layer in range(LAYERS):
        assert close(
            vector(model, ids, f"blocks.{layer}.attn.hook_z"), vector(twin, ids, f"blocks.{layer}.attn.hook_z")
        )


@pytest.mark.filterwarnings("ignore:HookedTransformer is deprecated")
@pytest.mark.parametrize("centre", [False, True])
def test_names_mean_what_they_mean_in_transformer_lens(gpt2, centre):
    lens = pytest.importorskip("transformer_lens", reason="comes with the extra `saelens`")
    from transformer_lens.pretrained.weight_conversions.gpt2 import convert_gpt2_weights

    model, _, ids = gpt2
    hf = model.module.config
    config = lens.HookedTransformerConfig(
        n_layers=LAYERS,
        d_model=D_MODEL,
        n_ctx=128,
        d_head=D_MODEL // hf.n_head,
        n_heads=hf.n_head,
        d_mlp=4 * D_MODEL,
        d_vocab=hf.vocab_size,
        act_fn="gelu_new",
        eps=hf.layer_norm_epsilon,
        normalization_type="LN",
        device="cpu",
    )
    theirs = lens.HookedTransformer(config)
    weights = convert_gpt2_weights(model.module, config)
    theirs.load_and_process_state_dict(
        weights, fold_ln=False, center_writing_weights=centre, center_unembed=False, fold_value_biases=False
    )
    with torch.inference_mode():
        _, cache = theirs.run_with_cache(torch.tensor([ids]))
    for layer in range(LAYERS):
        for kind in KINDS:
            found = vector(model, ids, f"blocks.{layer}.{kind}")
            if centre and kind != "attn.hook_z":
                found = found - found.mean(-1, keepdim=True)
            assert close(found, cache[f"blocks.{layer}.{kind}"][0].flatten(1)), (layer, kind)

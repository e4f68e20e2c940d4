"""Steps over static keys and values: against the model's own pass, captured against plain, what captures must not do.

A CUDA graph needs a GPU. What it demands is tested here on recordings that are as rigid as a graph (recorded.py).
"""

import gc
import weakref
from types import SimpleNamespace

import families
import pytest
import torch
from driven import driven
from editing import every_kind
from recorded import record
from tiny import make_tokenizer, write_sae

from engine.generation import steps as steps_module
from engine.generation.decoding import Text
from engine.generation.edits import ResidualEditor, make_editor
from engine.generation.generate import KeptSteps, generate
from engine.generation.steps import Steps, Watch, room_for
from engine.loading.demo.model import finish
from engine.loading.load_model import load_model
from engine.models.hooks import resolve_hook
from engine.models.sae import SparseAutoencoder
from engine.records import NO_FEATURE, Edit, Generate, Load, Loaded, Prompt, Sampling
from engine.serving.client import ask
from engine.serving.local import LocalClient

TEXT = "Seven ferries left at dawn, because"

CPU = torch.device("cpu")

KINDS = [
    ("standard", "none"),
    ("jumprelu", "constant_norm_rescale"),
    ("topk", "layer_norm"),
]


@pytest.fixture
def at_once(monkeypatch):
    """Steps are captured from the second on."""
    monkeypatch.setattr(steps_module, "CAPTURE_AFTER", {"cpu": 0})


@pytest.fixture(params=[pytest.param(steps_module.trace, id="trace"), pytest.param(record, id="recording")])
def captured(request, at_once, monkeypatch):
    """Steps are captured: how often each capture is run."""
    runs = []

    def counted(body, tensors):
        number, run = len(runs), request.param(body, tensors)
        runs.append(0)

        def count():
            runs[number] += 1
            return run()

        return count

    monkeypatch.setattr(steps_module, "trace", counted)
    return runs


def pair(load, tmp_path, encoder, normalisation):
    folder = write_sae(tmp_path / "sae", encoder=encoder, normalisation=normalisation)
    engine = LocalClient()
    ask(
        engine, Load(model=load.model, sae=str(folder), reference=load.reference, dtype="float32", device="cpu"), Loaded
    )
    return engine._pair


def toggled(explorer, lists, num_tokens=40, every=4):
    """A sampled text whose edits change every few tokens; with no repeats to hide behind."""
    request = Generate(Prompt(TEXT), lists[0], Sampling(num_tokens, temperature=1.0, seed=1), variants=(lists[1],))
    replies = {index: lists[(index // every + 1) % len(lists)] for index in range(every - 1, num_tokens, every)}
    return driven(explorer, request, replies)[0]


# ---- against the model's own pass


@pytest.mark.parametrize("name", families.FAMILIES)
def test_steps_equal_the_models_own_pass_in_every_family(name, tmp_path, explorer):
    """The prompt is longer than a sliding window, and so is what follows it."""
    model = load_model(str(families.write_family(name, tmp_path)), name, CPU, torch.float32)
    hook = resolve_hook(model.module, "blocks.1.hook_resid_pre")
    editor = ResidualEditor(model, explorer.site.sae, hook, explorer.site.reference, [(), ()])
    steps = Steps(model, editor, 64)
    assert steps.static
    ids = torch.randint(5, 200, (1, 3 * families.WINDOW), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model.module(input_ids=ids, use_cache=False).logits[0]
    start = families.WINDOW + 3
    found = [steps.prompt(ids[0, :start].tolist()).logits_BV.clone()]
    for token in ids[0, start:].tolist():
        found.append(steps.step(torch.tensor([token, token])).logits_BV.clone())
    for row in (0, 1):
        assert torch.allclose(torch.stack(found)[:, row], expected[start - 1 :], atol=1e-4)


def test_a_prompt_of_one_token_and_rows_that_part(explorer):
    steps = Steps(explorer.model, make_editor(explorer, [(), ()]), 16)
    rows = [[7, 30, 41, 50], [7, 99, 12, 13]]
    steps.prompt([7])
    for step in torch.tensor(rows).T[1:]:
        found = steps.step(step).logits_BV
    with torch.inference_mode():
        expected = explorer.model.module(input_ids=torch.tensor(rows), use_cache=False).logits[:, -1]
    assert torch.allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("static", [True, False])
@pytest.mark.parametrize("kind", range(8))
def test_rows_under_the_same_edits_read_a_prompt_once(explorer, kind, static, monkeypatch):
    """Which of the lists a row's edits are must follow, in every kind of edit."""
    if not static:
        monkeypatch.setattr("engine.generation.kv_cache.FAMILIES", {})
    edits = every_kind(explorer, TEXT)[kind]
    lists = [(), edits, (), (Edit(3, -2.0),), edits]
    ids = explorer.model.tokens.feed(Prompt(TEXT)).ids
    found, expected = [], []
    for into, like in ((found, [0, 1, 0, 3, 1]), (expected, None)):
        steps = Steps(explorer.model, make_editor(explorer, lists), 64)
        into.append(steps.prompt(ids, like))
        into.append(steps.step(torch.tensor([9] * 5)))
    for own, other in zip(found, expected, strict=True):
        assert torch.allclose(own.logits_BV, other.logits_BV, atol=1e-4)
        assert torch.equal(own.allowed_BT, other.allowed_BT) and torch.equal(own.active_BT, other.active_BT)
    assert torch.equal(found[0].logits_BV[1], found[0].logits_BV[4])


@pytest.mark.parametrize(
    "edits", [(Edit(NO_FEATURE, kind="reconstruct", at="first-step"),), (Edit(5, 3.0, "steer", "last"),)]
)
def test_a_prompt_of_one_token_is_edited_as_a_prompt(explorer, edits):
    one, two = (Steps(explorer.model, make_editor(explorer, [edits]), 16) for _ in range(2))
    found = one.prompt([7]).logits_BV
    assert not torch.allclose(found, two.prompt([7, 8]).logits_BV)
    plain = Steps(explorer.model, make_editor(explorer, [()]), 16).prompt([7]).logits_BV
    assert not torch.allclose(found, plain)


def test_going_back_forgets_what_came_after(explorer):
    steps = Steps(explorer.model, make_editor(explorer, [()]), 32)
    steps.prompt([7, 8, 9])
    first = [steps.step(torch.tensor([token])).logits_BV.clone() for token in (10, 11, 12)]
    assert steps.rewind(4)  # behind the first of them
    steps.step(torch.tensor([77]))
    assert steps.rewind(4)
    again = [steps.step(torch.tensor([token])).logits_BV.clone() for token in (11, 12)]
    assert all(torch.equal(a, b) for a, b in zip(first[1:], again, strict=True))


def test_nothing_is_left_of_keys_that_were_taken_back(explorer):
    """A mask gives them no weight, and no weight times NaN is NaN."""
    steps = Steps(explorer.model, make_editor(explorer, [()]), 32)
    clean = steps.prompt([7, 8, 9]).logits_BV.clone()
    after = steps.step(torch.tensor([10])).logits_BV.clone()
    for back in (lambda: steps.rewind(3), lambda: steps.prompt([7, 8, 9]), lambda: steps.prompt([7])):
        with torch.inference_mode():
            for layer in steps._cache.layers:
                layer.keys[:, :, 3:] = layer.values[:, :, 3:] = torch.nan
        back()
        assert not any(layer.keys.isnan().any() or layer.values.isnan().any() for layer in steps._cache.layers)
    assert torch.equal(steps.prompt([7, 8, 9]).logits_BV, clean)
    assert torch.equal(steps.step(torch.tensor([10])).logits_BV, after)


def test_a_family_whose_layers_are_not_all_attention_generates(tmp_path, explorer):
    """Its cache cannot pick rows."""
    from transformers import AutoModelForCausalLM, Lfm2Config

    tokenizer = make_tokenizer()
    kinds = ["conv", "full_attention", "conv"]
    config = Lfm2Config(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        num_key_value_heads=1, layer_types=kinds, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).float().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = load_model(str(tmp_path), "lfm2", CPU, torch.float32)
    hook = resolve_hook(model.module, "model.layers.1")
    steps = Steps(model, ResidualEditor(model, explorer.site.sae, hook, explorer.site.reference, [(), (), ()]), 32)
    assert not steps.static
    ids = [7, 30, 41, 50, 9, 12]
    steps.prompt(ids[:4], [0, 1, 0])
    for token in ids[4:]:
        found = steps.step(torch.tensor([token] * 3)).logits_BV
    with torch.inference_mode():
        expected = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    assert torch.allclose(found, expected.expand_as(found), atol=1e-4)


def test_room_comes_in_few_sizes():
    assert [room_for(n) for n in (1, 128, 129, 256, 257, 1000)] == [128, 128, 256, 256, 512, 1024]


def test_a_model_of_an_unknown_family_runs_without_static_keys(explorer, monkeypatch):
    expected = toggled(explorer, every_kind(explorer, TEXT), 12)
    monkeypatch.setattr("engine.generation.kv_cache.FAMILIES", {})
    explorer.drop(KeptSteps)
    found = toggled(explorer, every_kind(explorer, TEXT), 12)
    assert not explorer.kept(Text).steps.static and not explorer.kept(Text).steps.rewind(3)
    assert found.edited.token_ids == expected.edited.token_ids
    assert found.edited.logprobs == pytest.approx(expected.edited.logprobs, abs=1e-4)
    explorer.drop(KeptSteps)


# ---- captured


@pytest.mark.parametrize(("encoder", "normalisation"), KINDS)
def test_a_captured_step_follows_every_kind_of_edit_bit_for_bit(
    load, tmp_path, encoder, normalisation, captured, monkeypatch
):
    explorer = pair(load, tmp_path, encoder, normalisation)
    found = toggled(explorer, every_kind(explorer, TEXT))
    assert captured == [15, 4, 4, 16]  # anew where directions come, and where generated tokens are reconstructed
    explorer.drop(KeptSteps)
    monkeypatch.setattr(steps_module, "CAPTURE_AFTER", {})
    expected = toggled(explorer, every_kind(explorer, TEXT))
    assert explorer.kept(Text).steps._captured is None
    assert len(set(expected.edited.token_ids)) > 10
    for field in ("baseline", "edited", "kl", "more", "schedule", "positions", "inactive_positions"):
        assert getattr(found, field) == getattr(expected, field), field


def test_toggling_captures_nothing_anew(load, tmp_path, captured):
    explorer = pair(load, tmp_path, "jumprelu", "none")
    a, b, *_ = every_kind(explorer, TEXT)
    toggled(explorer, [a, b, ()], 40)
    assert captured == [39]
    toggled(explorer, [b, ()], 20)  # nor does another text
    assert captured == [58]


def test_on_a_cpu_a_short_text_is_not_captured(explorer):
    explorer.drop(KeptSteps)
    text = Generate(Prompt(TEXT), (), Sampling(steps_module.CAPTURE_AFTER["cpu"]))
    finish(generate(explorer, text))
    assert explorer.kept(Text).steps._captured is None
    finish(generate(explorer, text))  # but two of them are
    assert explorer.kept(Text).steps._captured is not None
    explorer.drop(KeptSteps)


@pytest.mark.parametrize(("encoder", "normalisation"), KINDS)
def test_no_step_reads_data(load, tmp_path, encoder, normalisation):
    """What brings numbers to Python cannot be captured."""
    explorer = pair(load, tmp_path, encoder, normalisation)
    for edits in every_kind(explorer, TEXT):
        steps = Steps(explorer.model, make_editor(explorer, [(), edits]), 32)
        steps.prompt([0, 7, 8])
        with Watch() as watch, torch.inference_mode():
            steps._body()
        assert not watch.found


def test_the_inputs_of_a_step_stay_where_they_are(load, tmp_path):
    explorer = pair(load, tmp_path, "jumprelu", "none")
    lists = [
        edits for edits in every_kind(explorer, TEXT) if not any(e.kind in ("project", "reconstruct") for e in edits)
    ]
    steps = Steps(explorer.model, make_editor(explorer, [(), lists[0]]), 32)
    steps.prompt([0, 7, 8])
    places = None
    for edits in lists:
        steps.editor.set_rows([(), edits])
        steps.step(torch.tensor([9, 9]))
        now = [t.data_ptr() for t in (*steps._read(), *steps._held())]
        assert places in (None, now)
        places = now
    steps.rewind(3)
    assert [t.data_ptr() for t in steps._read()] == places[: len(steps._read())]


READERS = {
    "a number": lambda out: out * float(out.sum() * 0 + 1),
    "a condition": lambda out: out if out.sum() == out.sum() else out * 0,
    "places": lambda out: out + 0 * (out > 0).nonzero().sum(),
    "a mask": lambda out: out + 0 * out[out > 0].sum(),
    "other things": lambda out: out + 0 * torch.unique((out > 0).long()).sum(),
}


@pytest.mark.parametrize("reads", READERS)
def test_a_step_that_reads_data_runs_the_plain_way(load, tmp_path, captured, reads):
    explorer = pair(load, tmp_path, "jumprelu", "none")
    expected = toggled(explorer, [(), ()], 12)
    explorer.drop(KeptSteps)
    captured.clear()
    layer = explorer.model.bare.get_submodule("model.layers.0")
    handle = layer.register_forward_hook(lambda module, args, out: READERS[reads](out))
    try:
        found = toggled(explorer, [(), ()], 12)
    finally:
        handle.remove()
    assert not captured and found.edited == expected.edited


@pytest.mark.parametrize("fault", ["raises", "differs"])
def test_a_capture_that_fails_or_differs_is_not_used(load, tmp_path, at_once, monkeypatch, fault):
    explorer = pair(load, tmp_path, "jumprelu", "none")

    def broken(body, tensors):
        if fault == "raises":
            raise RuntimeError("this version of torch traces nothing")
        return lambda: (body()[0] * 1.0001, *body()[1:])

    monkeypatch.setattr(steps_module, "trace", broken)
    found = toggled(explorer, every_kind(explorer, TEXT)[:3], 12)
    assert explorer.kept(Text).steps._captured is None
    explorer.drop(KeptSteps)
    monkeypatch.setattr(steps_module, "CAPTURE_AFTER", {})
    assert toggled(explorer, every_kind(explorer, TEXT)[:3], 12).edited == found.edited


def test_a_torch_without_torchscript_decodes_the_plain_way(load, tmp_path, at_once, monkeypatch):
    explorer = pair(load, tmp_path, "jumprelu", "none")
    expected = toggled(explorer, every_kind(explorer, TEXT)[:3], 12)
    assert explorer.kept(Text).steps._captured is not None
    explorer.drop(KeptSteps)
    for name in ("trace", "script", "optimized_execution"):
        monkeypatch.delattr(torch.jit, name)
    found = toggled(explorer, every_kind(explorer, TEXT)[:3], 12)
    assert explorer.kept(Text).steps._captured is None
    assert (found.baseline, found.edited) == (expected.baseline, expected.edited)


@pytest.mark.parametrize("encoder", ["jumprelu", "topk"])
def test_a_trace_holds_neither_keys_nor_weights(load, tmp_path, encoder, at_once):
    """torch keeps the constants of a trace for ever."""
    explorer = pair(load, tmp_path, encoder, "none")
    toggled(explorer, [*every_kind(explorer, TEXT)[:2], (Edit(NO_FEATURE, kind="reconstruct"),)], 16)
    steps = explorer.kept(Text).steps
    assert steps._captured is not None
    tensors = SimpleNamespace(
        keys=steps._cache.layers[0].keys,
        weight=explorer.model.module.lm_head.weight,
        sae=explorer.site.sae.w_enc_DF,
        slots=steps.editor.tensors[0],
    )
    alive = {name: weakref.ref(tensor) for name, tensor in vars(tensors).items()}
    del steps, explorer, tensors
    gc.collect()
    assert [name for name, ref in alive.items() if ref() is not None] == []


def test_the_bare_model_shares_its_weights_and_has_no_wrappers(explorer):
    bare = explorer.model.bare
    for (name, own), (_, shared) in zip(explorer.model.module.named_parameters(), bare.named_parameters(), strict=True):
        assert own.data_ptr() == shared.data_ptr(), name
    assert all("forward" not in vars(module) for module in bare.modules())
    assert isinstance(explorer.site.sae, SparseAutoencoder)


def test_steps_without_a_cache_keep_what_was_edited_before(load, tmp_path, monkeypatch):
    """Edits that change on the way, and positions taken back, give what they give over keys and values."""
    explorer = pair(load, tmp_path, "jumprelu", "constant_norm_rescale")
    lists = every_kind(explorer, TEXT)
    plain = Steps(explorer.model, make_editor(explorer, [(), lists[0]]), 64)
    monkeypatch.setattr(steps_module.static_cache, "fits", lambda config: False)
    monkeypatch.setattr(steps_module.static_cache, "own_cache_agrees", lambda module, config: False)
    whole = Steps(explorer.model, make_editor(explorer, [(), lists[0]]), 64)
    assert whole.whole and not plain.whole
    ids = explorer.model.tokens.feed(Prompt(TEXT)).ids
    passes = [[steps.prompt(ids)] for steps in (plain, whole)]
    for token, edits in enumerate([*lists, *lists]):
        if token == 9:
            assert plain.rewind(len(ids) + 4) and whole.rewind(len(ids) + 4)
        for steps, found in zip((plain, whole), passes, strict=True):
            steps.editor.set_rows([(), edits])
            result = steps.step(torch.tensor([9 + token, 30 + token]))
            found.append(type(result)(*(part.clone() for part in result)))
    for one, other in zip(*passes, strict=True):
        torch.testing.assert_close(other.logits_BV, one.logits_BV, rtol=1e-4, atol=1e-4)
        assert torch.equal(other.allowed_BT, one.allowed_BT) and torch.equal(other.active_BT, one.active_BT)


def test_a_text_without_a_cache_says_that_it_is_slower(explorer, monkeypatch):
    request = Generate(Prompt(TEXT), (), Sampling(max_tokens=6))
    explorer.drop(KeptSteps)
    explorer.drop(Text)
    over_cache = finish(generate(explorer, request))
    explorer.drop(KeptSteps)
    explorer.drop(Text)
    monkeypatch.setattr(steps_module.static_cache, "fits", lambda config: False)
    monkeypatch.setattr(steps_module.static_cache, "own_cache_agrees", lambda module, config: False)
    without = finish(generate(explorer, request))
    explorer.drop(KeptSteps)
    explorer.drop(Text)
    assert without.baseline.token_ids == over_cache.baseline.token_ids
    assert not over_cache.warnings and "slower, but right" in without.warnings[0]

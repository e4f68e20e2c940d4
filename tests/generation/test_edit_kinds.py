"""Every kind of edit at every position, with every encoder: against the plain formula in float64 and nnsight."""

from types import SimpleNamespace

import numpy as np
import plain
import pytest
import torch
from editing import expect, kinds, make_reference
from nnsight import NNsight
from tiny import D_SAE, sae_weights
from torch.utils._python_dispatch import TorchDispatchMode

from engine.generation.answers import paired_logprobs
from engine.generation.edits import GENERATED, PROMPT, ResidualEditor
from engine.generation.steps import trace
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records import Edit
from engine.records.errors import EditError

TEXT = "a sink ~ in the middle, and ~ again"

START, SINK_NORM = 20, 120.0
"""The text's tokens count as generated from START on, so that a sink is in each part."""

ENCODERS = {
    "standard": {},
    "jumprelu": {},
    "gated": {},
    "topk": {"k": 5},
    "jumprelu rescaled": {"rescale": True},
    "topk rescaled": {"k": 30, "rescale": True},
}

NORMALISATIONS = {
    "none": {"normalisation": "none"},
    "input": {"normalisation": "none", "apply_b_dec_to_input": True},
    "norm": {"normalisation": "constant_norm_rescale"},
    "layer": {"normalisation": "layer_norm", "apply_b_dec_to_input": True},
    "average": {"normalisation": "expected_average_only_in", "scale": 0.5},
    "centered": {"normalisation": "centered"},
}

POSITIONS = ("all", "prompt", "generated", "last", "first-step")

MIXTURE = ("scale", "set", "steer", "project", "project again", "reconstruct")


def make_weights(encoder):
    """Weights whose decoder rows differ in length; a seed of its own for each encoder."""
    seed = list(ENCODERS).index(encoder)
    weights = sae_weights(encoder.split()[0], seed)
    generator = torch.Generator().manual_seed(seed)

    def random():
        return torch.randn(D_SAE, generator=generator)

    weights["W_dec"] = weights["W_dec"] * (0.5 + torch.rand(D_SAE, 1, generator=generator))
    if encoder == "gated":
        weights |= {"r_mag": 0.3 * random(), "b_gate": 0.3 * random() - 0.3, "b_mag": 0.3 * random()}
    return weights


def make_sae(encoder, how):
    normalisation = how.get("normalisation", "none")
    config = SaeConfig(
        source="random",
        encoder=encoder.split()[0],
        normalisation="none" if normalisation == "centered" else normalisation,
        apply_b_dec_to_input=how.get("apply_b_dec_to_input", False),
        hook="",
        model="",
        k=how.get("k"),
        rescale_acts_by_decoder_norm=how.get("rescale", False),
        scale=how.get("scale", 1.0),
        centered=normalisation == "centered",
    )
    return SparseAutoencoder(config, make_weights(encoder))


class Bench:
    """A SAE on the tiny model's vectors, and what is expected of edits of its frequent features."""

    def __init__(self, model, hook, encoder, normalisation="norm"):
        self.model, self.hook, self.how = model, hook, ENCODERS[encoder] | NORMALISATIONS[normalisation]
        self.weights, self.sae = make_weights(encoder), make_sae(encoder, self.how)
        self.ids = model.tokens.feed(SimpleNamespace(text=TEXT, format="raw")).ids
        self.h_TD = torch.tensor(plain.hidden(model.module, self.ids, layer=1), dtype=torch.float32)
        self.kinds = kinds(len(self.ids), START)
        maximum_F = 1 + torch.rand(D_SAE, generator=torch.Generator().manual_seed(9))
        self.reference = make_reference(self.sae, SINK_NORM, maximum_F, median_u=1.7)
        f_TF = plain.encode(self.h_TD, self.weights, **self.how)
        # often, but not everywhere
        share_F = (f_TF > 0).mean(0)
        self.features = [int(f) for f in np.argsort(np.abs(share_F - 0.6))[:8]]

    def edit(self, kind, at="all", n=0):
        """The n-th feature's edit of a kind, with a strength of its own."""
        if kind == "reconstruct":
            return Edit(kind="reconstruct", at=at)
        return Edit(self.features[n], (-1.5, 0.3, 2.5, 0.0, -0.5, 0.0)[n], kind.split()[0], at)

    def editor(self, *rows):
        return ResidualEditor(self.model, self.sae, self.hook, self.reference, rows)

    def expected(self, edits):
        return plain.edited(self.h_TD, self.ids, self.kinds, self.weights, edits, self.reference, **self.how)

    def run(self, *rows):
        """(h', allowed, active) of every row: the whole text in one pass."""
        editor = self.editor(*rows)
        expect(editor, self.ids, START)
        h_BTD = editor.edit(self.h_TD.expand(len(rows), -1, -1).clone())
        return h_BTD, editor.allowed_BT, editor.active_BT

    def run_steps(self, editor, t):
        """The same of one position, as a step of the decode loop passes it."""
        rows = len(editor.rows)
        editor.expect(torch.tensor([[self.ids[t]]] * rows), torch.tensor([[self.kinds[t]]] * rows), in_prompt=False)
        h_B1D = editor.edit(self.h_TD[None, t : t + 1].repeat(rows, 1, 1))
        return h_B1D[:, 0], editor.allowed_BT[:, 0], editor.active_BT[:, 0]


@pytest.fixture(scope="module")
def bench(model, hook):
    """Benches by encoder and normalisation, made once."""
    made = {}

    def get(encoder, normalisation="norm"):
        if (encoder, normalisation) not in made:
            made[encoder, normalisation] = Bench(model, hook, encoder, normalisation)
        return made[encoder, normalisation]

    return get


def far(found_TD, expected_TD):
    """The largest distance of a vector from the expected one, in units of its length."""
    difference = np.linalg.norm(found_TD.double().numpy() - expected_TD, axis=1)
    return float((difference / np.linalg.norm(expected_TD, axis=1)).max())


def check(bench, edits):
    """Compares the whole pass and single steps with the formula; positions where nothing acts bit for bit."""
    expected_TD, allowed, active = bench.expected(edits)
    h_BTD, allowed_BT, active_BT = bench.run((), edits)
    assert torch.equal(h_BTD[0], bench.h_TD)
    assert not allowed_BT[0].any() and not active_BT[0].any()
    assert far(h_BTD[1], expected_TD) < 3e-6
    assert (allowed_BT[1].tolist(), active_BT[1].tolist()) == (allowed, active)
    still = ~torch.tensor(active)
    assert torch.equal(h_BTD[1][still], bench.h_TD[still])
    assert any(active), "the edit is nothing"
    moved = np.linalg.norm(expected_TD - bench.h_TD.double().numpy(), axis=1)
    assert moved.max() > 0.05
    editor = bench.editor((), edits)
    for t in (START, START + 1, START + 5):
        h_BD, allowed_B, active_B = bench.run_steps(editor, t)
        assert torch.equal(h_BD[0], bench.h_TD[t])
        assert far(h_BD[1:], expected_TD[t : t + 1]) < 3e-6
        assert (bool(allowed_B[1]), bool(active_B[1])) == (allowed[t], active[t])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("at", POSITIONS)
@pytest.mark.parametrize("kind", ["scale", "set", "steer", "project", "reconstruct"])
def test_every_kind_at_every_position_with_every_encoder_is_the_formula(bench, kind, at, encoder):
    check(bench(encoder), [bench(encoder).edit(kind, at)])


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_all_kinds_together_with_every_normalisation_are_the_formula(bench, encoder, normalisation):
    here = bench(encoder, normalisation)
    check(here, [here.edit(kind, "all", n) for n, kind in enumerate(MIXTURE)])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_edits_at_different_positions_in_one_list_are_the_formula(bench, encoder):
    here = bench(encoder)
    at = ("last", "generated", "all", "prompt", "prompt", "first-step")
    check(here, [here.edit(kind, where, n) for n, (kind, where) in enumerate(zip(MIXTURE, at, strict=True))])


def nnsight_logits(model, hook, ids, h_TD):
    """Logits_TV of the model where nnsight has put these vectors in at the hook."""
    envoy = NNsight(model.module)
    node = envoy.get(hook.path)
    with torch.inference_mode(), envoy.trace(input_ids=torch.tensor([ids]), use_cache=False):
        node.input = torch.tensor(h_TD, dtype=torch.float32)[None]
        logits = envoy.lm_head.output.save()
    return logits[0]


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("at", POSITIONS)
def test_edited_logits_equal_nnsights_own_intervention(bench, model, hook, encoder, at):
    here = bench(encoder)
    single = [[here.edit(kind, at)] for kind in ("scale", "set", "steer", "project", "reconstruct")]
    keep = len(here.ids) - START
    for edits in [*single, [here.edit(kind, at, n) for n, kind in enumerate(MIXTURE)]]:
        base, edited = paired_logprobs(model, here.editor((), edits), here.ids, keep)
        expected_TD, _, _ = here.expected(edits)
        logits_TV = nnsight_logits(model, hook, here.ids, expected_TD)[START - 1 : -1]
        assert torch.allclose(edited, torch.log_softmax(logits_TV.float(), -1), atol=2e-4)
        assert (edited - base).abs().max() > 1e-3  # the edit is not nothing


# ---- where nothing is to change


NO_OPS = ([Edit(f, 1.0) for f in range(D_SAE)], [Edit(3, 1.0, "project"), Edit(4, 1.0, "project"), Edit(5, 1.0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_strength_of_one_changes_no_bit_not_even_a_zeros_sign(bench, encoder, dtype):
    here = bench(encoder)
    h_BTD = here.h_TD[None].repeat(2, 1, 1).to(dtype)
    h_BTD[:, :, 3] = -0.0
    for edits in NO_OPS:
        editor = here.editor((), edits)
        expect(editor, here.ids, START)
        found = editor.edit(h_BTD)
        assert found.dtype == dtype
        assert torch.equal(found.view(torch.uint8), h_BTD.view(torch.uint8))
        assert editor.active_BT[1].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_do_not_depend_on_each_other(bench, dtype):
    here = bench("jumprelu")
    edits = [here.edit(kind, "all", n) for n, kind in enumerate(MIXTURE)]
    other = [Edit(f, 9.0) for f in range(D_SAE)]
    h_BTD = here.h_TD.repeat(3, 1, 1).to(dtype)
    found = []
    for rows in (((), edits, edits), ((), edits, other), (edits, (), other)):
        editor = here.editor(*rows)
        expect(editor, here.ids, START)
        found.append(editor.edit(h_BTD))
    first, second, third = found
    assert torch.equal(first[0], h_BTD[0]) and torch.equal(second[0], h_BTD[0]) and torch.equal(third[1], h_BTD[0])
    assert torch.equal(first[1], first[2])
    assert torch.equal(first[1], second[1])
    assert not torch.equal(second[2], second[1])


def test_a_set_or_steer_of_nothing_is_active_only_where_the_feature_fires(bench):
    here = bench("jumprelu")
    for kind in ("set", "steer"):
        edits = [Edit(here.features[0], 0.0, kind)]
        expected_TD, allowed, active = here.expected(edits)
        h_BTD, allowed_BT, active_BT = here.run((), edits)
        assert (allowed_BT[1].tolist(), active_BT[1].tolist()) == (allowed, active)
        assert any(active) is (kind == "set") and not all(active)
        assert far(h_BTD[1], expected_TD) < 3e-6


def test_first_step_reaches_bos_and_sinks_of_the_prompt_alone(bench):
    here = bench("standard", "none")
    edits = [here.edit("steer", "first-step")]
    _, allowed_BT, _ = here.run((), edits)
    assert allowed_BT[1].tolist() == [t < START for t in range(len(here.ids))]
    _, allowed_BT, _ = here.run((), [here.edit("steer", "all")])
    norm_T = here.h_TD.norm(dim=-1)
    assert int((norm_T > SINK_NORM).sum()) == 2
    assert allowed_BT[1].tolist() == [t > 0 and float(n) <= SINK_NORM for t, n in enumerate(norm_T)]


def test_a_sink_that_is_the_prompts_last_token_is_reached_by_first_step_alone(bench):
    here = bench("standard", "none")
    start = 1 + int((here.h_TD.norm(dim=-1) > SINK_NORM).nonzero()[0])
    for at in POSITIONS:
        editor = here.editor((), [here.edit("steer", at)])
        expect(editor, here.ids, start)
        editor.edit(here.h_TD.repeat(2, 1, 1))
        assert bool(editor.allowed_BT[1, start - 1]) is (at == "first-step")
        assert bool(editor.allowed_BT[1, start - 2]) is (at in ("all", "prompt", "first-step"))


def test_a_prompt_of_one_token_is_reconstructed_and_later_tokens_cost_no_encode(bench, monkeypatch):
    here = bench("jumprelu")
    edits = [here.edit("reconstruct", "first-step")]
    expected_TD, _, _ = here.expected(edits)
    editor = here.editor((), edits)
    assert editor.shape == (64, 0, False, False)
    editor.expect(torch.tensor([[here.ids[0]]] * 2), torch.tensor([[PROMPT]] * 2), in_prompt=True)
    found = editor.edit(here.h_TD[None, :1].repeat(2, 1, 1))
    assert far(found[1], expected_TD[:1]) < 3e-6
    monkeypatch.setattr("engine.generation.edits.decoded", None)
    h_BD, _, _ = here.run_steps(editor, START)
    assert torch.equal(h_BD[1], here.h_TD[START])


# ---- units and what is refused


def test_a_strength_comes_to_an_absolute_value_which_then_rules(bench):
    here = bench("jumprelu")
    a, b, c = here.features[:3]
    m = [float(here.reference.maximum_F[f]) for f in (a, b)]
    edits = (Edit(a, 2.0, "set"), Edit(b, 3.0, "steer"), Edit(c, 0.5))
    settled = here.editor((), edits).rows[1]
    assert [edit.absolute for edit in settled] == [pytest.approx(2 * m[0]), pytest.approx(3 * m[1] * 1.7), None]
    first, _, _ = here.run((), edits)
    again, _, _ = here.run((), settled)
    assert torch.equal(first, again)
    elsewhere = Bench(here.model, here.hook, "jumprelu")
    elsewhere.reference = make_reference(here.sae, SINK_NORM, torch.zeros(D_SAE), median_u=99.0)
    found, _, _ = elsewhere.run((), settled)
    assert torch.equal(first, found)


def refused(bench, edits, *words):
    editor = bench.editor((), [Edit(7, 0.5)])
    before = [tensor.clone() for tensor in editor.tensors]
    state = (editor.rows, editor.shape)
    with pytest.raises(EditError) as caught:
        editor.set_rows([(), edits])
    assert all(word in f"{caught.value.message} {caught.value.remedy}" for word in words), caught.value.message
    assert (editor.rows, editor.shape) == state
    assert all(torch.equal(a, b) for a, b in zip(before, editor.tensors, strict=True))


@pytest.mark.parametrize("kind", ["set", "steer"])
def test_a_feature_that_never_fires_on_the_reference_text_has_no_unit(model, hook, kind):
    here = Bench(model, hook, "jumprelu")
    here.reference.maximum_F[3] = 0
    refused(here, [Edit(5), Edit(3, 1.0, kind)], "never fires on the reference text", "no unit")
    assert here.editor((), [Edit(3, 1.0, kind, absolute=2.0)]).rows[1][0].absolute == 2.0
    here.editor((), [Edit(3, 1.0, "project")])


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ([Edit(1), Edit(1, 2.0, "steer")], "edited twice"),
        ([Edit(kind="reconstruct"), Edit(kind="reconstruct", at="last")], "reconstructed twice"),
        ([Edit(3, kind="reconstruct")], "about all features"),
        ([Edit(1, float("inf"), "steer")], "not a number"),
        ([Edit(1, 1.0, "set", absolute=float("nan"))], "not a number"),
        ([Edit(1, kind="project"), Edit(2, kind="project", at="last")], "same positions"),
        ([Edit(-1, 1.0, "steer")], "features 0 to 39"),
        ([Edit(40, 1.0, "set")], "features 0 to 39"),
        ([Edit(40, kind="project")], "features 0 to 39"),
        ([Edit(3), Edit(40)], "features 0 to 39"),
    ],
)
def test_what_cannot_be_applied_is_refused_and_leaves_everything_as_it_was(bench, edits, words):
    refused(bench("jumprelu"), edits, words)


def test_projected_directions_may_be_parallel_or_nothing(model, hook):
    here = Bench(model, hook, "jumprelu")
    a, b, c = here.features[:3]
    for rows in (here.weights["W_dec"], here.sae.w_dec_FD):
        rows[b] = -2 * rows[a] + 1e-6 * rows[c]
        rows[c] = 0
    editor = here.editor((), [Edit(f, 0.0, "project") for f in (a, b, c)])
    expect(editor, here.ids, START)
    found = editor.edit(here.h_TD.repeat(2, 1, 1))[1].double().numpy()
    _, u, mu = plain.normalise(here.h_TD.double().numpy(), "constant_norm_rescale")
    left = (found - u * here.weights["b_dec"].double().numpy() - mu) @ plain.arrays(here.weights)["W_dec"][[a, b]].T
    acted = editor.allowed_BT[1].numpy()
    assert np.abs(left[acted]).max() < 1e-4 * np.linalg.norm(found[acted], axis=1).max()
    assert np.isfinite(found).all()


def test_parallel_directions_with_different_strengths_are_the_formula(model, hook):
    here = Bench(model, hook, "jumprelu")
    a, b, c = here.features[:3]
    for rows in (here.weights["W_dec"], here.sae.w_dec_FD):
        rows[b] = -2 * rows[a]
    check(here, [Edit(a, 0.5, "project"), Edit(b, 0.0, "project"), Edit(c, 2.0, "project")])


# ---- what a captured step relies on


FORBIDDEN = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "bincount", "is_nonzero")


class Watch(TorchDispatchMode):
    """Refuses operations that bring numbers to Python, or whose shapes depend on them."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in FORBIDDEN and "unique" not in name, name
        return func(*args, **(kwargs or {}))


def lists(here):
    """Edit lists that differ in everything but their shape."""
    project = [here.edit("project", "all", 3), here.edit("project again", "all", 4)]
    return [
        [here.edit("scale"), here.edit("set", "all", 1), *project, here.edit("reconstruct")],
        [here.edit("steer", "all", 5), here.edit("reconstruct")],
        [Edit(f, 2.0, at="generated") for f in here.features] + [here.edit("reconstruct", "generated")],
        [Edit(here.features[7], 0.2, "project"), here.edit("scale"), here.edit("reconstruct")],
    ]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_step_reads_no_numbers_and_follows_writes_into_the_same_tensors(bench, encoder):
    here = bench(encoder)
    first, *others = lists(here)
    editor = here.editor((), first, first)
    ids, kind = torch.full((3, 1), 9), torch.full((3, 1), GENERATED)
    h_B1D = here.h_TD[None, START : START + 1].repeat(3, 1, 1)

    def step():
        editor.expect(ids, kind)
        return editor.edit(h_B1D), editor.allowed_BT, editor.active_BT

    with torch.inference_mode():
        with Watch():
            step()
        traced = trace(step, [ids, kind, h_B1D, *editor.tensors])  # as the engine runs it: no operation is fused
    addresses, shape = [tensor.data_ptr() for tensor in editor.tensors], editor.shape
    seen = []
    for edits in (first, *others, first):
        editor.set_rows([(), edits, first])
        assert ([tensor.data_ptr() for tensor in editor.tensors], editor.shape) == (addresses, shape)
        with torch.inference_mode():
            found, allowed, active = traced()
            plainly = step()
        assert all(torch.equal(a, b) for a, b in zip((found, allowed, active), plainly, strict=True))
        # at another address nothing is remembered: a new editor comes to the same
        fresh = here.editor((), edits, first)
        fresh.expect(ids, kind)
        assert torch.equal(fresh.edit(h_B1D), found)
        seen.append(found[1])
    assert torch.equal(seen[0], seen[-1])
    assert all(not torch.equal(seen[0], other) for other in seen[1:-1])


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_is_left_of_earlier_edits(bench, encoder):
    here = bench(encoder)
    editor = here.editor([Edit(f, 3.0) for f in here.features], lists(here)[0])
    for edits in ([Edit(f) for f in here.features[1::2]], [Edit(here.features[7], 0.2, "project")], []):
        editor.set_rows([(), edits])
        expect(editor, here.ids, START)
        found = editor.edit(here.h_TD.repeat(2, 1, 1))
        assert torch.equal(found[0], here.h_TD)
        assert far(found[1], here.expected(edits)[0]) < 3e-6


@pytest.mark.parametrize("encoder", ["jumprelu", "topk"])
def test_a_pass_of_some_rows_goes_under_their_edits(bench, encoder):
    here = bench(encoder)
    rows = ((), lists(here)[0], [here.edit("steer", "first-step")], lists(here)[3])
    whole, allowed_BT, active_BT = here.run(*rows)
    editor, chosen = here.editor(*rows), [3, 1, 0]
    ids_BT, kind_BT = torch.tensor([here.ids] * 3), torch.tensor([here.kinds] * 3)
    editor.expect(ids_BT, kind_BT, row_B=torch.tensor(chosen))
    found = editor.edit(here.h_TD.repeat(3, 1, 1))
    for at, row in enumerate(chosen):
        assert far(found[at], whole[row].double().numpy()) < 1e-6
    assert torch.equal(editor.allowed_BT, allowed_BT[chosen])
    assert torch.equal(editor.active_BT, active_BT[chosen])


def test_capacities_double_and_never_shrink(model, hook, monkeypatch):
    from engine.generation import edit_tensors as slots

    monkeypatch.setattr(slots, "FIRST_SLOTS", 4)
    here = Bench(model, hook, "jumprelu")
    editor = here.editor((), ())
    assert editor.shape == (4, 0, False, False)
    shapes = []
    for edits in (
        [Edit(f) for f in range(4)],
        [Edit(f) for f in range(5)],
        [Edit(f) for f in range(17)],
        [Edit(1, kind="project")],
        [Edit(f, kind="project") for f in range(9)],
        [Edit(kind="reconstruct", at="prompt")],
        [Edit(kind="reconstruct", at="generated")],
        [],
    ):
        editor.set_rows([(), edits])
        shapes.append(editor.shape)
        if edits:
            expect(editor, here.ids, START)
            expected_TD, _, _ = here.expected(edits)
            assert far(editor.edit(here.h_TD.repeat(2, 1, 1))[1], expected_TD) < 3e-6
    assert shapes == [
        (4, 0, False, False),
        (8, 0, False, False),
        (32, 0, False, False),
        (32, 8, False, False),
        (32, 16, False, False),
        (32, 16, False, False),
        (32, 16, True, False),
        (32, 16, False, False),
    ]


def test_a_topk_is_only_run_for_slots(bench, monkeypatch):
    here = bench("topk")
    editor = here.editor((), [Edit(here.features[0], kind="project")])
    assert editor.shape == (64, 8, False, False)
    calls, top_k = [], type(here.sae).top_k
    monkeypatch.setattr(type(here.sae), "top_k", lambda self, x: calls.append(len(x)) or top_k(self, x))
    for edits, encodes in (
        ([here.edit("scale")], True),
        ([Edit(here.features[0], kind="project")], False),
        ([], False),
    ):
        calls.clear()
        editor.set_rows([(), edits])
        assert editor.shape.encodes is encodes
        editor.expect(torch.full((2, 1), 9), torch.full((2, 1), GENERATED))
        editor.edit(here.h_TD[None, START : START + 1].repeat(2, 1, 1))
        assert bool(calls) is encodes


def test_edits_that_are_refused_leave_the_tensors_as_they_were(bench):
    here = bench("jumprelu")
    editor = here.editor((), [here.edit("scale")])
    before = [(tensor.data_ptr(), tensor.clone()) for tensor in editor.tensors]
    for bad in ([Edit(1, kind="project"), Edit(999)], [Edit(1, 1e39)], [Edit(1, 1.0, "set", absolute=-1e39)]):
        with pytest.raises(EditError):
            editor.set_rows([(), bad])
        assert all(tensor.data_ptr() == at for tensor, (at, _) in zip(editor.tensors, before, strict=True))
        assert all(torch.equal(tensor, old) for tensor, (_, old) in zip(editor.tensors, before, strict=True))


def test_edits_may_be_set_inside_inference_mode_and_outside(bench):
    here = bench("gated")
    with torch.inference_mode():
        editor = here.editor((), [Edit(1)])
        editor.set_rows([(), [Edit(2)]])
    editor.set_rows([(), [Edit(f) for f in here.features]])
    expect(editor, here.ids, START)
    expected_TD, _, _ = here.expected([Edit(f) for f in here.features])
    assert far(editor.edit(here.h_TD.repeat(2, 1, 1))[1], expected_TD) < 3e-6

"""A feature's card against brute force in float64: histogram, neighbours, co-active features; what is remembered."""

import dataclasses
import gc
import itertools
import weakref

import msgspec
import numpy as np
import plain
import pytest
import torch
from tiny import D_MODEL, D_SAE, SENTENCES, SINK, make_tokenizer, sae_weights
from transformers import OPTConfig, OPTForCausalLM

from engine.attribution import effect
from engine.cli.run import main
from engine.features import card as describing
from engine.features import logit_lens as lens
from engine.features import relations
from engine.features.card import histogram
from engine.features.logit_lens import through_norm
from engine.features.relations import by_rows, cosines, decoder_norms, neighbours
from engine.loading import open_pair as loading
from engine.loading.load_model import load_model
from engine.models import reference as references
from engine.models.hooks import final_norm
from engine.models.reference import EDGES, distinct, reference_tokens
from engine.models.sae import SaeConfig, SparseAutoencoder
from engine.records import Answer, Describe, Described, Effect, Finished, Load, Loaded, Measure, Probe, Progress, Prompt
from engine.records.errors import EditError, UsageError
from engine.serving.client import ask
from engine.serving.local import LocalClient

PROMPTS = (*map(Prompt, SENTENCES), Prompt(f"A nurse {SINK} said so."))


def finish(work):
    """What a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as done:
            return done.value


@pytest.fixture(scope="module")
def brute(pair, model, weights):
    """Activations of every counted token of the prompts, float64, found prompt by prompt."""
    rows = []
    for prompt in PROMPTS:
        ids = model.tokens.feed(prompt).ids
        h = plain.hidden(model.module, ids, layer=1)
        keep = np.array(plain.rank_mask(ids, h, pair.site.reference.sink_norm))
        assert not keep.all()
        rows.append(plain.encode(h, weights)[keep])
    return np.concatenate(rows)


@pytest.fixture(scope="module")
def busy(brute):
    """Features that fire on some of the prompts' tokens, the most frequent first."""
    found = np.argsort(-(brute > 0).sum(0), kind="stable")
    return [int(f) for f in found if (brute[:, f] > 0).any()]


def described(client, feature, prompts=PROMPTS, **more):
    return ask(client, Describe(feature, prompts, **more), Described)


# ---- histogram


def test_the_reference_histogram_equals_numpys(client, pair, model, weights):
    """Values in float64 against edges from another formula; none may lie so close to an edge that rounding decides."""
    ids, first = pair.site.reference.token_ids_T.tolist(), pair.site.reference.first_bin
    starts = [t for t, i in enumerate(ids) if i == 0] + [len(ids)]
    found = np.zeros((D_SAE, len(EDGES)), dtype=int)
    edges = np.array([0, *np.exp2(np.arange(-24, 41) / 2)])
    for start, end in itertools.pairwise(starts):
        h = plain.hidden(model.module, ids[start:end], layer=1)
        f = plain.encode(h, weights)[np.array(plain.rank_mask(ids[start:end], h, pair.site.reference.sink_norm))]
        for feature in range(D_SAE):
            values = f[:, feature][f[:, feature] > 0]
            assert not len(values) or np.abs(values[:, None] / edges[1:] - 1).min() > 1e-6
            found[feature] += np.histogram(values, edges)[0]
    stored = pair.site.reference.histogram_FB
    assert stored.dtype == torch.int32
    assert stored.tolist() == found[:, first : first + stored.shape[1]].tolist()
    assert found[:, :first].sum() == found[:, first + stored.shape[1] :].sum() == 0
    assert stored[:, 0].any()
    assert stored[:, -1].any()
    assert stored.sum(1).tolist() == pair.site.reference.count_F.tolist()


def test_a_value_on_an_edge_belongs_to_the_bin_below_it_and_the_last_bin_has_no_end():
    values = torch.tensor([1e-9, EDGES[0], EDGES[0] * 1.01, 1.0, 1.0001, EDGES[-1], 1e30, torch.inf])
    last = len(EDGES) - 1
    assert references.bins_of(values).tolist() == [0, 0, 1, 24, 25, last, last, last]


def test_a_cards_histogram_counts_reference_and_prompts_in_adjoining_bins(client, pair, brute, busy):
    for feature in (busy[0], busy[-1]):
        found = described(client, feature)
        assert found.prompt_count == (brute[:, feature] > 0).sum() == sum(b.prompts for b in found.histogram)
        assert sum(b.reference for b in found.histogram) == found.reference_count
        for one, other in itertools.pairwise(found.histogram):
            assert one.upper == other.lower
        for ends in (found.histogram[0], found.histogram[-1]):
            assert ends.reference + ends.prompts > 0
        for one in found.histogram:
            inside = (brute[:, feature] > one.lower) & (brute[:, feature] <= one.upper)
            assert one.prompts == inside.sum()
        assert found.histogram[-1].lower < found.reference_maximum or found.histogram[-1].reference == 0


def test_prompts_may_fall_outside_the_bins_of_the_reference(pair):
    reference = dataclasses.replace(
        pair.site.reference, histogram_FB=torch.tensor([[0, 3], [0, 0]], dtype=torch.int32), first_bin=24
    )
    found = histogram(reference, 0, [4.0, 0.1, 0.0])
    assert [(b.reference, b.prompts) for b in found if b.reference or b.prompts] == [(0, 1), (3, 0), (0, 1)]
    assert (found[0].lower < 0.1 <= found[0].upper, found[-1].upper) == (True, 4.0)
    assert len(found) == round(2 * np.log2(found[-1].upper / found[0].lower))
    assert histogram(reference, 1, []) == ()
    assert histogram(reference, 1, [1e-7])[0].lower == 0.0


# ---- neighbours


def brute_cosines(weights, feature):
    w = plain.arrays(weights)["W_dec"]
    return np.array([w[i] @ w[feature] / np.sqrt(w[i] @ w[i]) / np.sqrt(w[feature] @ w[feature]) for i in range(D_SAE)])


def test_neighbours_and_antipodes_are_the_largest_and_smallest_cosines(client, weights, pair):
    for feature in (0, 7, D_SAE - 1):
        expected = brute_cosines(weights, feature)
        found = described(client, feature, ())
        order = [i for i in np.argsort(-expected).tolist() if i != feature]
        assert [n.feature for n in found.neighbours] == order[:8]
        assert [n.feature for n in found.antipodes] == order[::-1][:8]
        for n in (*found.neighbours, *found.antipodes):
            assert n.cosine == pytest.approx(expected[n.feature], abs=1e-5)
            strongest = reference_tokens(pair.model.tokens, pair.site.reference, n.feature)
            assert n.tokens == distinct([(s.activation, s.token) for s in strongest])
        assert len(described(client, feature, (), top=3).neighbours) == 3


def test_only_features_that_point_the_same_way_are_neighbours(pair):
    cosine = torch.tensor([1.0, 0.5, -0.1, 0.0])
    same, opposite = neighbours(pair.model.tokens, pair.site.reference, 0, cosine, 8)
    assert [n.feature for n in same] == [1]
    assert [n.feature for n in opposite] == [2]
    assert opposite[0].cosine == pytest.approx(-0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rescaled", [False, True])
def test_cosines_are_those_of_directions_as_applied_and_no_copy_is_whole(monkeypatch, dtype, rescaled):
    monkeypatch.setattr(relations, "COPIED", 3 * D_MODEL)
    monkeypatch.setattr(relations, "PER_STEP", 9 * D_MODEL)
    weights = sae_weights("topk")
    weights["W_dec"] *= torch.rand(D_SAE, 1, generator=torch.Generator().manual_seed(1)) * 5
    weights["W_dec"][4] = 0
    weights = {name: w.to(dtype) if name == "W_dec" else w for name, w in weights.items()}
    config = SaeConfig("test", "topk", "none", False, "", "", k=3, rescale_acts_by_decoder_norm=rescaled)
    sae = SparseAutoencoder(config, weights)
    applied = sae.columns(range(D_SAE)).w_dec_KD.double()
    norm_F = finish(decoder_norms(sae))
    for feature in (0, D_SAE - 1):
        found = finish(cosines(sae, feature, norm_F))
        expected = torch.cosine_similarity(applied, applied[feature][None], eps=1e-6)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert not found[4]

    seen, steps = [], 0

    def compute(block_RD):
        assert block_RD.dtype == torch.float32
        seen.append(block_RD.clone())
        return block_RD[:, 0]

    work = by_rows(weights["W_dec"], compute)
    try:
        while isinstance(next(work), Progress):
            steps += 1
    except StopIteration as done:
        assert torch.equal(done.value, weights["W_dec"][:, 0].float())
    assert max(map(len, seen)) == 3
    assert torch.equal(torch.cat(seen), weights["W_dec"].float())
    assert steps == (len(seen) - 1) // 3


# ---- co-active features


def jaccards(brute, feature):
    """{other: (jaccard, both)} over counted tokens, for those that fire together at all."""
    fires = brute > 0
    found = {}
    for other in range(D_SAE):
        both = int((fires[:, feature] & fires[:, other]).sum())
        if other != feature and both:
            found[other] = both / int((fires[:, feature] | fires[:, other]).sum()), both
    return found


def test_co_active_features_have_the_largest_jaccard_indices(client, brute, busy):
    for feature in (busy[0], busy[len(busy) // 2]):
        expected = jaccards(brute, feature)
        found = described(client, feature).co_active
        assert len(found) == min(8, len(expected))
        assert all(
            (c.jaccard, c.both) == (pytest.approx(expected[c.feature][0]), expected[c.feature][1]) for c in found
        )
        best = sorted(expected.values(), reverse=True)[: len(found)]
        assert [(c.jaccard, c.both) for c in found] == [(pytest.approx(j), both) for j, both in best]
        assert len(described(client, feature, top=2).co_active) == min(2, len(expected))


def test_a_silent_feature_and_no_prompts_have_no_company(client, brute, busy):
    assert described(client, busy[0], ()).co_active == ()
    silent = [f for f in range(D_SAE) if not (brute[:, f] > 0).any()]
    for feature in silent[:1]:
        found = described(client, feature)
        assert (found.co_active, found.prompt_count) == ((), 0)


def test_a_prompt_given_twice_counts_twice(client, brute, busy):
    once, twice = described(client, busy[0]), described(client, busy[0], PROMPTS * 2)
    assert twice.prompt_count == 2 * once.prompt_count
    assert [c.both for c in twice.co_active] == [2 * c.both for c in once.co_active]
    assert [c.jaccard for c in twice.co_active] == [pytest.approx(c.jaccard) for c in once.co_active]


def test_batches_and_forgotten_firings_change_nothing(load, client, busy, monkeypatch):
    expected = described(client, busy[0])
    monkeypatch.setattr("engine.models.sae.FEATURES_PER_BLOCK", 7)
    monkeypatch.setattr("engine.features.pooling.TOKENS_PER_BLOCK", 30)
    monkeypatch.setattr(describing, "KEPT_FIRINGS", 50)
    other = LocalClient()
    ask(other, load, Loaded)
    assert described(other, busy[0]) == expected


# ---- what is remembered


@pytest.fixture
def fresh(load):
    """A client of its own: nothing is remembered."""
    client = LocalClient()
    ask(client, load, Loaded)
    return client


def counting(monkeypatch, owner, name):
    """Counts the calls of a function and lets them through."""
    calls, real = [], getattr(owner, name)

    def wrapped(*args, **kwargs):
        calls.append(args)
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, name, wrapped)
    return calls


def test_the_same_card_is_not_made_twice_and_firings_serve_all_features(fresh, monkeypatch):
    cards = counting(monkeypatch, describing, "logit_lens")
    encoded = counting(monkeypatch, SparseAutoencoder, "encode")
    first = described(fresh, 3)
    assert described(fresh, 3) == first
    assert len(cards) == 1
    assert sum(len(h) for _, h in encoded) == sum(len(r.h_TD) for r in fresh._pair._reads.values())
    described(fresh, 4)
    assert len(cards) == 2
    before = len(encoded)
    described(fresh, 5, PROMPTS[:2])
    assert len(encoded) == before


def test_a_card_depends_on_prompts_top_and_the_vectors(fresh, monkeypatch):
    cards = counting(monkeypatch, describing, "logit_lens")
    found = {described(fresh, 3), described(fresh, 3, PROMPTS[:1]), described(fresh, 3, top=4)}
    assert len(found) == len(cards) == 3
    fresh._pair.forget()  # as after reading the prompts anew
    gc.collect()
    described(fresh, 3)
    assert len(cards) == 4


def test_only_so_many_cards_are_kept(fresh, monkeypatch):
    monkeypatch.setattr(describing, "KEPT", 2)
    cards = counting(monkeypatch, describing, "logit_lens")
    for feature in (1, 2, 1, 3, 1, 2):
        described(fresh, feature)
    assert len(cards) == 4  # 2 had to make room for 3


def test_what_is_remembered_goes_with_the_model(fresh):
    described(fresh, 3)
    cards = weakref.ref(fresh._pair.kept(describing.Cards))
    assert cards().cards
    fresh.close()
    gc.collect()
    assert cards() is None


def test_a_card_comes_in_steps_and_can_be_stopped(fresh, monkeypatch):
    monkeypatch.setattr(relations, "COPIED", D_MODEL)
    monkeypatch.setattr(relations, "PER_STEP", D_MODEL)
    events = []
    for event in fresh.stream(Describe(3, PROMPTS)):
        events.append(event)
        if len(events) == 50:
            fresh.cancel()
    assert len(events) == 51
    assert described(fresh, 3).feature == 3


# ---- effect, errors


MEASURE = Measure((Probe("Who said so", answers=(Answer("she", (" she",)), Answer("he", (" he",)))),), "she", "he")


def test_the_effect_is_the_exact_ablations_and_is_found_once(fresh, monkeypatch):
    calls = []

    def exact(pair, measure, feature):
        calls.append((measure, feature))
        yield Progress("ablating")
        return Effect(measure.toward, measure.against, 1, False, 0.5, 0.25 + feature)

    monkeypatch.setattr(effect, "exact_effect", exact)
    plain_card = described(fresh, 3)
    assert plain_card.effect is None
    found = described(fresh, 3, measure=MEASURE)
    assert found == msgspec.structs.replace(plain_card, effect=Effect("she", "he", 1, False, 0.5, 3.25))
    assert described(fresh, 3, PROMPTS[:1], measure=MEASURE).effect == found.effect
    other = msgspec.structs.replace(MEASURE, toward="he", against="she")
    assert described(fresh, 3, measure=other).effect.toward == "he"
    assert described(fresh, 4, measure=MEASURE).effect.ablated == 4.25
    assert calls == [(MEASURE, 3), (other, 3), (MEASURE, 4)]


def test_the_effect_of_the_engines_own_ablation_is_passed_on(fresh, busy):
    found = described(fresh, busy[0], measure=MEASURE).effect
    assert (found.toward, found.against, found.n_probes) == ("she", "he", 1)


def test_a_feature_the_sae_does_not_have_and_a_bad_measure_are_errors(fresh):
    with pytest.raises(EditError, match="no feature 40"):
        described(fresh, 40)
    with pytest.raises(UsageError):
        described(fresh, 3, measure=Measure((), "she", "he"))
    assert isinstance(list(fresh.stream(Describe(3)))[-1], Finished)


# ---- the norm, and statistics of before


def test_a_norm_of_an_unknown_kind_is_read_by_what_it_does():
    """No weight, or a gain stored as its logarithm: neither name nor storage may matter."""

    class Odd(torch.nn.Module):
        def forward(self, x):
            x = x - x.mean(-1, keepdim=True)
            return x / x.std(-1, keepdim=True, unbiased=False) * torch.linspace(-1, 2, 8) + 5

    direction = torch.randn(8, generator=torch.Generator().manual_seed(0))
    found = through_norm(Odd(), direction, direction)
    torch.testing.assert_close(found, (direction - direction.mean()) * torch.linspace(-1, 2, 8))


def test_a_model_whose_blocks_nobody_knows_has_no_final_norm():
    assert final_norm(torch.nn.Sequential(torch.nn.Linear(2, 2))) is None


def test_a_shipped_file_of_before_the_histogram_is_measured_anew(pair, files, tmp_path, monkeypatch):
    from safetensors.torch import load_file, save_file
    from tiny import write_sae

    folder = write_sae(tmp_path / "sae")
    shipped = folder / loading.SHIPPED_REFERENCE
    references.save(pair.site.reference, shipped)
    request = Load(sae=str(folder))
    work = (request, pair.model, pair.site.sae, pair.site.reads_at, folder)
    assert finish(loading.find_reference(*work)).n_tokens == pair.site.reference.n_tokens
    tensors = {name: tensor for name, tensor in load_file(shipped).items() if name != "histogram_FB"}
    save_file(tensors, shipped, {"text": "t", **dict.fromkeys(references.NUMBERS, "1")})
    with pytest.raises(references.OutdatedError, match="older version"):
        references.load(shipped)
    monkeypatch.setattr("prompts.NEUTRAL_TEXT", tmp_path / "text.txt")
    (tmp_path / "text.txt").write_text("Some neutral text.\n" * 20, "utf-8")
    found = finish(loading.find_reference(*work))
    assert found.text == "text.txt"
    assert found.histogram_FB.sum() == found.count_F.sum()


def test_a_model_whose_logits_are_not_read_straight_from_the_residual_stream_has_no_lens(tmp_path, files, capsys):
    """OPT-350m has a projection behind its last block; another model's final norm may have a name that nobody knows."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "word_embed_proj_dim": 8, "num_attention_heads": 2, "ffn_dim": 32}
    config = OPTConfig(vocab_size=263, num_hidden_layers=3, max_position_embeddings=512, init_std=0.3, **sizes)
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    make_tokenizer().save_pretrained(tmp_path / "opt")
    pair = ["--model", str(tmp_path / "opt"), "--sae", files.sae, "--reference", files.reference, "--device", "cpu"]
    assert main(["feature", "3", *pair]) == 0
    assert "No logit lens: no straight way" in capsys.readouterr().out


def test_a_norm_that_is_not_found_is_missed(files, monkeypatch):
    model = load_model(files.model, "tiny", torch.device("cpu"), torch.float32)
    norm = final_norm(model.module)
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.2, 3, len(norm.weight)))
    assert lens.reads_straight(model)
    monkeypatch.setattr(lens, "final_norm", lambda module: None)
    monkeypatch.setattr(lens, "_straight", {})
    assert not lens.reads_straight(model)

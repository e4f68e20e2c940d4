"""Reference statistics against a brute-force computation in float64; saving, loading, caching."""

import dataclasses
import itertools
from pathlib import Path

import msgspec
import numpy as np
import plain
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import BOS, D_SAE, SENTENCES, SINK, write_sae

from engine.loading.demo.model import finish
from engine.loading.formats import load_sae
from engine.loading.load_model import load_model
from engine.loading.open_pair import DEMO_SAE, SHIPPED_REFERENCE
from engine.models import reference as references
from engine.models import sae as sae_module
from engine.models.reference import PASSAGE_TOKENS, STRONGEST
from engine.records import Describe, Described, Loaded, Prompt
from engine.records.errors import SaeError, UsageError
from engine.serving.client import ask
from engine.serving.local import LocalClient


@pytest.fixture(scope="module")
def passages(files, model):
    """Token ids of every passage, cut by hand."""
    found = []
    for line in Path(files.reference).read_text("utf-8").splitlines():
        if line.strip():
            ids = [BOS, *model.tokens.tokenizer(line.strip()).input_ids]
            found.append(ids[:256])
            if len(ids) > 256 + 64:
                found.append([BOS, *ids[256:]])
    assert max(map(len, found)) == 256
    assert len(found) > 16  # more than one batch
    return found


@pytest.fixture(scope="module")
def brute(passages, model, weights):
    """Everything about every kept token: (position in the text, vector, activations)."""
    all_h = [plain.hidden(model.module, ids, layer=1) for ids in passages]
    median = np.sort(np.concatenate([np.linalg.norm(h, axis=1) for h in all_h[:16]]))
    median = median[(len(median) - 1) // 2]
    h_TD = np.concatenate(all_h)
    ids = [i for p in passages for i in p]
    counted = [np.linalg.norm(h) for i, h in zip(ids, h_TD[: sum(map(len, passages[:16]))], strict=False) if i > 1]
    sink = min(10 * median, 3 * np.quantile(counted, 0.99))
    keep = np.array(plain.rank_mask(ids, h_TD, sink))
    return {
        "ids": ids,
        "median": median,
        "sink": sink,
        "at": np.arange(len(ids))[keep],
        "h": h_TD[keep],
        "f": plain.encode(h_TD[keep], weights),
    }


def test_the_text_is_fed_passage_by_passage_each_with_its_leading_token(pair, brute):
    assert pair.site.reference.token_ids_T.tolist() == brute["ids"]


def test_special_tokens_and_sinks_are_not_counted(pair, brute, model):
    reference = pair.site.reference
    assert reference.n_tokens == len(brute["at"])
    left_out = set(range(len(brute["ids"]))) - set(brute["at"].tolist())
    assert {model.tokens.string(brute["ids"][at]) for at in left_out} == {"<s>", SINK}
    assert not set(reference.position_FS[reference.strongest_FS > 0].tolist()) & left_out


def test_counts_and_maxima_equal_brute_force(pair, brute):
    reference = pair.site.reference
    assert reference.count_F.tolist() == (brute["f"] > 0).sum(0).tolist()
    np.testing.assert_allclose(reference.maximum_F.numpy(), brute["f"].max(0), rtol=1e-4, atol=1e-5)
    assert reference.l0 == pytest.approx((brute["f"] > 0).sum() / len(brute["f"]))


def test_the_strongest_tokens_equal_brute_force(pair, brute):
    reference = pair.site.reference
    for feature in range(D_SAE):
        column = brute["f"][:, feature]
        expected = np.sort(column)[::-1][:STRONGEST]
        np.testing.assert_allclose(reference.strongest_FS[feature].numpy(), expected, rtol=1e-4, atol=1e-5)
        for value, at in zip(reference.strongest_FS[feature], reference.position_FS[feature], strict=True):
            if value > 0:
                assert column[np.searchsorted(brute["at"], int(at))] == pytest.approx(float(value), rel=1e-4)
        positions = reference.position_FS[feature][reference.strongest_FS[feature] > 0].tolist()
        assert len(set(positions)) == len(positions)


def test_norms_and_variance_explained_equal_brute_force(pair, brute, weights):
    reference = pair.site.reference
    assert reference.median_norm == pytest.approx(brute["median"], rel=1e-5)
    assert reference.sink_norm == pytest.approx(brute["sink"], rel=1e-5)
    u = np.sort(np.linalg.norm(brute["h"], axis=1) / 4)
    assert reference.median_u == pytest.approx(u[(len(u) - 1) // 2], rel=1e-5)
    residue = ((brute["h"] - plain.decode(brute["f"], brute["h"], weights)) ** 2).sum()
    total = ((brute["h"] - brute["h"].mean(0)) ** 2).sum()
    assert reference.variance_explained == pytest.approx(1 - residue / total, rel=1e-4)


def test_a_sink_below_ten_medians_is_not_counted_either(files, hook):
    model = load_model(files.model, "tiny", torch.device("cpu"), torch.float32)
    sentences = [f"{text} {SINK} {text[::-1]}" if n % 6 == 1 else text for n, text in enumerate(SENTENCES * 6)]
    embedding = model.module.get_input_embeddings().weight[model.tokens.tokenizer.convert_tokens_to_ids(SINK)]
    for _ in range(20):  # until its norm is that of Gemma 3's sinks
        vectors = model.capture_batch(hook, [model.tokens.feed(Prompt(text)).ids for text in sentences])
        norm_T = torch.cat(vectors).norm(dim=-1)
        embedding *= 8 * norm_T.median() / norm_T.max()
    assert 7 < norm_T.max() / norm_T.median() < 9
    reference = finish(references.compute(model, load_sae(Path(files.sae)), hook, sentences, "text"))
    sinks = sum(SINK in text for text in sentences)
    assert sinks == 6
    assert reference.n_tokens == len(norm_T) - len(sentences) - sinks


def test_norms_that_are_all_alike_or_spread_evenly_hold_no_sink():
    special_T = torch.zeros(1000, dtype=torch.bool)
    for norm_T in (torch.ones(1000), torch.linspace(1, 9, 1000), torch.rand(1000).exp()):
        assert references.sink_limit(norm_T, special_T) > norm_T.max()
    assert references.sink_limit(torch.full((4,), torch.nan), special_T[:4]) != 0
    assert references.sink_limit(torch.ones(4), ~special_T[:4]) == 10


@pytest.mark.parametrize(
    ("text", "counted"), [("Hi", 2), ("<s></s>" * 200, 0), ("ab " * 99 + "c", 199)], ids=["short", "special", "just"]
)
def test_a_text_too_short_to_say_anything_is_refused(load, tmp_path, text, counted):
    (tmp_path / "text.txt").write_text(text, "utf-8")
    said = rf"text.txt is too short: {counted} of its tokens count.*at least 200"
    with pytest.raises(UsageError, match=said) as caught:
        ask(LocalClient(), msgspec.structs.replace(load, reference=str(tmp_path / "text.txt")), Loaded)
    assert "--reference" in caught.value.remedy


def test_a_text_that_is_just_long_enough_is_used_and_no_density_is_above_one(load, tmp_path):
    (tmp_path / "text.txt").write_text("ab " * 99 + "cd", "utf-8")
    client, request = LocalClient(), msgspec.structs.replace(load, reference=str(tmp_path / "text.txt"))
    assert ask(client, request, Loaded).reference_tokens == 200
    reference = client._pair.site.reference
    counted = [(max(10, int(k)) + 0.5) / 201 for k in reference.count_F]
    assert reference.density_F().tolist() == pytest.approx(counted) and max(counted) <= 1
    assert dataclasses.replace(reference, n_tokens=3).density_F().tolist() == [1.0] * D_SAE


def test_density_is_smoothed_and_floored_at_ten(pair):
    reference = dataclasses.replace(pair.site.reference, n_tokens=999, count_F=torch.tensor([0, 3, 10, 11, 999]))
    assert reference.density_F().tolist() == pytest.approx([0.0105, 0.0105, 0.0105, 0.0115, 0.9995])


def test_batches_do_not_change_the_statistics(pair, files, monkeypatch):
    monkeypatch.setattr(sae_module, "FEATURES_PER_BLOCK", 7)
    monkeypatch.setattr(sae_module, "TOKENS_PER_BLOCK", 3)
    texts = references.read_text(Path(files.reference))
    again = finish(references.compute(pair.model, pair.site.sae, pair.site.reads_at, texts, "again"))
    assert again.fingerprint() == pair.site.reference.fingerprint()
    torch.testing.assert_close(again.strongest_FS, pair.site.reference.strongest_FS)
    assert again.variance_explained == pytest.approx(pair.site.reference.variance_explained)


def test_every_token_of_a_long_passage_is_read(model):
    text = "ferry " * 300
    sequences = references.passages_of(model, [text])
    assert all(len(ids) <= PASSAGE_TOKENS and ids[0] == BOS for ids in sequences)
    read = "".join(model.tokens.decode(ids) for ids in sequences)
    assert len(read) > len(text) - PASSAGE_TOKENS / 4


def test_a_limit_spreads_the_passages_over_the_text(model):
    texts = [f"{n:03d} passage of some length" for n in range(100)]
    sequences = references.passages_of(model, texts, limit=500)
    assert 250 < sum(map(len, sequences)) <= 500
    numbers = [int(model.tokens.decode(ids)[:3]) for ids in sequences]
    assert numbers[0] < 10
    assert numbers[-1] > 80
    assert len({b - a for a, b in itertools.pairwise(numbers)}) == 1


def test_saved_statistics_come_back_equal(pair, tmp_path):
    path = tmp_path / "deep" / "reference.safetensors"
    references.save(pair.site.reference, path)
    again = references.load(path)
    for name in references.TENSORS:
        assert torch.equal(getattr(again, name), getattr(pair.site.reference, name))
    for name in (*references.NUMBERS, "text"):
        assert getattr(again, name) == getattr(pair.site.reference, name)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("damage", ["cut", "empty", "no metadata", "no name", "no tensor", "not a number", "missing"])
def test_broken_statistics_are_an_error_that_names_the_file(pair, tmp_path, damage):
    path = tmp_path / "reference.safetensors"
    references.save(pair.site.reference, path)
    tensors = load_file(path)
    metadata = {"text": "t", **dict.fromkeys(references.NUMBERS, "1")}
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "missing":
        path.unlink()
    elif damage == "no metadata":
        save_file(tensors, path)
    elif damage == "no name":
        save_file(tensors, path, {k: v for k, v in metadata.items() if k != "text"})
    elif damage == "no tensor":
        save_file({k: v for k, v in tensors.items() if k != "count_F"}, path, metadata)
    else:
        save_file(tensors, path, metadata | {"median_norm": "long"})
    with pytest.raises(SaeError, match=r"reference.safetensors are broken") as caught:
        references.load(path)
    assert caught.value.remedy == "Delete the file."


def test_the_second_load_reads_the_cache(load, client, own_cache, monkeypatch):
    def fail(*_):
        raise AssertionError("computed again")

    monkeypatch.setattr(references, "compute", fail)
    again = LocalClient()
    assert ask(again, load, Loaded) == client._pair.loaded
    assert again._pair.site.reference.fingerprint() == client._pair.site.reference.fingerprint()
    assert list((own_cache / "reference").glob("*.safetensors"))


def test_another_text_hook_or_sae_is_not_served_from_the_cache(load, tmp_path):
    other_text = tmp_path / "text.txt"
    other_text.write_text("Quite another text, though short.\n" * 10, "utf-8")
    changes = [
        {"reference": str(other_text)},
        {"hook": "blocks.2.hook_resid_pre"},
        {"sae": str(write_sae(tmp_path / "sae", seed=5))},
        {"dtype": "bfloat16"},
    ]
    client = LocalClient()
    prints = {ask(client, load, Loaded).reference_fingerprint}
    for change in changes:
        prints.add(ask(client, msgspec.structs.replace(load, **change), Loaded).reference_fingerprint)
    assert len(prints) == 5


def test_the_same_files_wired_otherwise_are_not_served_from_the_cache(load, monkeypatch):
    client = LocalClient()
    as_the_files_say = ask(client, load, Loaded).reference_fingerprint

    def as_a_registry_says(located, device):
        return load_sae(located.place, device=device, published={"centered": True})

    monkeypatch.setattr("engine.loading.open_pair.read_sae", as_a_registry_says)
    assert ask(client, load, Loaded).reference_fingerprint != as_the_files_say


def test_what_an_older_version_cached_is_measured_anew(load, own_cache, monkeypatch):
    client = LocalClient()
    ask(client, load, Loaded)
    before = set((own_cache / "reference").glob("*.safetensors"))
    monkeypatch.setattr(references, "VERSION", "0")
    ask(client, load, Loaded)
    assert len(set((own_cache / "reference").glob("*.safetensors")) - before) == 1


def test_the_shipped_statistics_are_whole():
    shipped = references.load(DEMO_SAE / SHIPPED_REFERENCE)
    assert torch.equal(shipped.histogram_FB.sum(1), shipped.count_F)
    assert torch.equal(shipped.maximum_F, shipped.strongest_FS[:, 0])
    highest = (shipped.histogram_FB > 0).int().cumsum(1).argmax(1) + shipped.first_bin
    fires = shipped.count_F > 0
    assert torch.equal(highest[fires], references.bins_of(shipped.maximum_F)[fires])


def test_of_equal_activations_the_earlier_tokens_are_kept(pair):
    same_TD = torch.randn(1, 16, generator=torch.Generator().manual_seed(3)).repeat(40, 1)
    gathered = references._Gatherer(pair.site.sae, 1e9, special={BOS})
    for _ in range(3):
        gathered.add([BOS, *range(5, 44)], same_TD)
    found = gathered.finish("same", 1.0)
    fires = found.count_F > 0
    assert fires.sum() > 3
    assert found.position_FS[fires].tolist() == [list(range(1, 1 + STRONGEST))] * int(fires.sum())


def test_an_unwritable_cache_does_not_stop_a_load(load, tmp_path, monkeypatch):
    blocker = tmp_path / "file"
    blocker.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(blocker))
    assert ask(LocalClient(), load, Loaded).d_sae == D_SAE


@pytest.mark.parametrize("content", [None, b"", b"\n \n", b"\xff\xfe"])
def test_a_reference_text_that_cannot_be_used_is_a_usage_error(load, tmp_path, content):
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=r"text.txt"):
        ask(LocalClient(), msgspec.structs.replace(load, reference=str(path)), Loaded)


# ---- what a feature's card makes of them


def test_a_card_lists_reference_and_prompt_tokens_strongest_first(client, pair, brute, model):
    feature = int(pair.site.reference.count_F.argmax())
    found = ask(client, Describe(feature, (Prompt("The nurse ~ fed"),), top=6), Described)
    values = [s.activation for s in found.strongest]
    assert values == sorted(values, reverse=True)
    assert {s.source for s in found.strongest} <= {"reference", "prompt"}
    strongest = next(s for s in found.strongest if s.source == "reference")
    at = int(brute["at"][brute["f"][:, feature].argmax()])
    assert strongest.token == model.tokens.string(brute["ids"][at])
    assert strongest.before == model.tokens.decode(brute["ids"][max(0, at - 8) : at])
    assert strongest.after == model.tokens.decode(brute["ids"][at + 1 : at + 9])
    assert found.reference_count == int((brute["f"][:, feature] > 0).sum())


def test_the_logit_lens_is_the_centred_product_with_norm_and_unembedding(client, model, weights):
    found = ask(client, Describe(7, top=5), Described)
    gain = model.module.model.norm.weight.detach().double().numpy()
    logits = model.module.lm_head.weight.double().numpy() @ (gain * plain.arrays(weights)["W_dec"][7])
    logits -= logits.mean()
    assert [t.token_id for t in found.promoted] == np.argsort(-logits)[:5].tolist()
    assert [t.token_id for t in found.suppressed] == np.argsort(logits)[:5].tolist()
    assert [t.logit for t in found.promoted] == pytest.approx(np.sort(logits)[::-1][:5].tolist(), rel=1e-4)
    assert all(t.token == model.tokens.string(t.token_id) for t in found.promoted)


def test_a_card_longer_than_the_vocabulary_ends_with_it(client, model):
    found = ask(client, Describe(7, top=10_000), Described)
    assert len(found.promoted) == len(found.suppressed) == model.module.config.vocab_size

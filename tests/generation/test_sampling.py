"""How tokens are chosen: against plain definitions in float64, with the same random numbers for every arm."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.generation.sampling import Chooser, stops
from engine.records import Edit, Generate, Generated, Prompt, Sampling
from engine.records.errors import UsageError
from engine.records.texts import check_sampling
from engine.serving.client import ask

TEXT = "The kettle boils on the beach, because she said"

LOGITS = [2.0, 1.0, 0.5, 0.0, -1.0, -3.0]


def generate(client, sampling, edits=(), **fields):
    return ask(client, Generate(Prompt(TEXT), edits, sampling, **fields), Generated)


def shares(sampling, rounds=4000):
    chooser = Chooser(sampling, [0], torch.device("cpu"))
    logits_BV = torch.tensor([LOGITS])
    tokens = [int(chooser.choose(logits_BV, index)) for index in range(rounds)]
    return np.bincount(tokens, minlength=len(LOGITS)) / rounds


def kept(keep, temperature=1.0):
    p = np.exp(np.array(LOGITS) / temperature) * np.array(keep)
    return p / p.sum()


@pytest.mark.parametrize(
    ("settings", "keep"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"temperature": 0.5}, [1, 1, 1, 1, 1, 1]),
        ({"top_k": 2}, [1, 1, 0, 0, 0, 0]),
        ({"top_p": 0.6}, [1, 1, 0, 0, 0, 0]),  # the first has 0.54
        ({"top_p": 0.5}, [1, 0, 0, 0, 0, 0]),
        ({"min_p": 0.2}, [1, 1, 1, 0, 0, 0]),  # exp(-1.5) = 0.22 of the likeliest, exp(-2) = 0.14
        ({"top_k": 4, "top_p": 0.9, "min_p": 0.3}, [1, 1, 0, 0, 0, 0]),
        ({"temperature": 3.0, "min_p": 0.3}, [1, 1, 1, 1, 1, 0]),  # the temperature comes first
    ],
)
def test_tokens_follow_the_distribution(settings, keep):
    sampling = Sampling(**{"temperature": 1.0, **settings})
    found, expected = shares(sampling), kept(keep, sampling.temperature)
    assert found == pytest.approx(expected, abs=0.025)
    assert (found[np.array(keep) == 0] == 0).all()


def test_greedy_takes_the_likeliest_whatever_else_is_set():
    chooser = Chooser(Sampling(top_k=3, top_p=0.1, seed=4), [0, 1], torch.device("cpu"))
    assert chooser.choose(torch.tensor([LOGITS, LOGITS[::-1]]), 0).tolist() == [0, 5]


def test_a_token_of_probability_zero_is_never_chosen(monkeypatch):
    chooser = Chooser(Sampling(temperature=1.0, top_k=1), [0], torch.device("cpu"))
    for number in (0.0, 0.5, 1 - 2**-53):
        monkeypatch.setattr(chooser, "_number", lambda sample, index, number=number: number)
        assert int(chooser.choose(torch.tensor([[-1.0, 3.0, 0.0]]), 0)) == 1


def test_numbers_depend_on_seed_and_index_alone():
    def numbers(seed, sample, order):
        chooser = Chooser(Sampling(temperature=1.0, seed=seed), [sample], torch.device("cpu"))
        return {index: chooser._number(sample, index) for index in order}

    straight = numbers(7, 0, range(20))
    assert numbers(7, 0, [19, 3, 3, 0, *range(20)]) == straight
    assert numbers(5, 2, range(20)) == straight  # a sample further is a seed further
    assert numbers(8, 0, range(20)) != straight
    assert len(set(straight.values())) == 20


def test_rows_of_a_sample_share_their_number_and_samples_do_not():
    chooser = Chooser(Sampling(temperature=1.0), [0, 0, 1, 1], torch.device("cpu"))
    flat_BV = torch.zeros(4, 1000)
    found = [chooser.choose(flat_BV, index).tolist() for index in range(10)]
    assert all(a == b and c == d for a, b, c, d in found)
    assert any(a != c for a, _, c, _ in found)


def test_both_arms_say_the_same_until_their_distributions_part(client):
    for seed in range(3):
        result = generate(client, Sampling(24, temperature=1.0, seed=seed), (Edit(3, 1.0),))
        assert result.baseline == result.edited


def test_each_sample_is_what_its_seed_gives_alone(client):
    edits = (Edit(3, -4.0), Edit(5, -4.0), Edit(7, 6.0))
    result = generate(client, Sampling(16, temperature=1.0, seed=5), edits, samples=3)
    assert [(arm.sample, arm.edited) for arm in result.more] == [(1, False), (1, True), (2, False), (2, True)]
    assert result.rows == 7
    for sample in (1, 2):
        alone = generate(client, Sampling(16, temperature=1.0, seed=5 + sample), edits)
        for edited, expected in ((False, alone.baseline), (True, alone.edited)):
            (found,) = [arm.arm for arm in result.more if (arm.sample, arm.edited) == (sample, edited)]
            assert found.token_ids == expected.token_ids
            assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-4)  # of a batch of another size


def test_variants_are_arms_of_their_own_beside_the_edited_one(client):
    lists = ((Edit(3, -4.0),), (Edit(5, 6.0, at="prompt"), Edit(7, -2.0, at="last")), ())
    result = generate(client, Sampling(16), lists[0], variants=lists[1:])
    assert result.variants == lists[1:]
    assert [(arm.sample, arm.edited, arm.variant) for arm in result.more] == [(0, True, 0), (0, True, 1)]
    alone = generate(client, Sampling(16), lists[1])
    assert result.more[0].arm.token_ids == alone.edited.token_ids
    assert (result.more[0].positions, result.more[0].inactive_positions) == (alone.positions, alone.inactive_positions)
    assert result.more[1].arm == result.baseline
    assert result.edited.token_ids != result.more[0].arm.token_ids


def test_a_stop_string_ends_a_text_and_stays_in_it(client):
    free = generate(client, Sampling(40))
    at = next(n for n, token in enumerate(free.baseline.tokens) if n > 4 and token.isascii() and token.isprintable())
    stop = free.baseline.tokens[at]
    result = generate(client, Sampling(40, stop=("never said", stop)))
    first = next(n for n, token in enumerate(free.baseline.tokens) if stop in token)
    assert result.baseline.token_ids == free.baseline.token_ids[: first + 1]


@pytest.mark.parametrize(
    ("text", "stop", "ends"),
    [
        ("a cab", ("cab",), True),
        ("a cab.", ("cab",), True),
        ("a ca", ("cab",), False),
        ("é", ("é",), True),
        ("x" * 50 + "\n\n", ("\n\n",), True),
        ("cab" + "x" * 50, ("cab",), False),  # it has ended long before
        ("cab", (), False),
    ],
)
def test_stops_looks_at_the_end_of_the_text(pair, text, stop, ends):
    tokens = pair.model.tokens
    ids = tokens.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert stops(tokens, ids, stop) is ends


def test_a_space_that_a_tokenizer_drops_at_the_start_is_seen_all_the_same():
    """Of a run of tokens some tokenizers leave out the space in front."""
    tokens = SimpleNamespace(decode=lambda ids: "".join(map(chr, ids)).lstrip(" "))
    assert stops(tokens, list(map(ord, "a cab")), (" cab",))


@pytest.mark.parametrize(
    ("settings", "samples", "words"),
    [
        ({"top_k": -1}, 1, "--top-k"),
        ({"top_p": 0.0}, 1, "--top-p"),
        ({"top_p": float("nan")}, 1, "--top-p"),
        ({"min_p": 1.5}, 1, "--min-p"),
        ({"stop": ("",)}, 1, "--stop"),
        ({"seed": 2**63 - 2, "temperature": 1.0}, 3, "--seed"),
        ({}, 2, "the same text"),
        ({"temperature": 1.0}, 0, "--samples"),
    ],
)
def test_settings_that_make_no_sense_are_refused(client, settings, samples, words):
    with pytest.raises(UsageError, match=words):
        check_sampling(Sampling(**settings), samples)
    with pytest.raises(UsageError, match=words):
        generate(client, Sampling(**settings), samples=samples)


def test_a_prefill_is_read_as_part_of_the_prompt_and_recorded(client, pair):
    result = generate(client, Sampling(8), prefill="it was")
    ids = pair.model.tokens.feed(Prompt(TEXT), "it was").ids
    assert list(result.prompt.token_ids) == ids and result.prompt.prefill == "it was"
    assert generate(client, Sampling(8)).prompt.prefill == ""
    whole = ask(client, Generate(Prompt(TEXT + " it was"), (), Sampling(8)), Generated)
    assert whole.baseline.token_ids == result.baseline.token_ids

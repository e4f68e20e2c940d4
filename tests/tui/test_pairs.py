"""Rows, and which two of them are looked at, against the engine's own order; what branches are called."""

import msgspec
import pytest
import samples

from engine.generation.decoding import rows_of as engine_rows
from engine.records import Edit, EditsFrom, Generate, Prompt, Sampling
from engine.records.texts import first_difference, first_unlike
from tui.state import texts as branches
from tui.state import texts as pairs
from tui.state.texts import Pair, Row, Rows

replace = msgspec.structs.replace


@pytest.mark.parametrize(("num_samples", "n_variants"), [(1, 0), (3, 0), (1, 2), (3, 2)])
def test_the_rows_are_in_the_engine_s_order(num_samples, n_variants):
    request = Generate(Prompt("x"), samples=num_samples, variants=((Edit(1),),) * n_variants)
    rows = [row for row in engine_rows(request) if not row.forced]
    assert pairs.rows_of(num_samples, n_variants) == [(r.sample, r.edited, r.variant) for r in rows]


def test_a_recorded_text_s_rows():
    found = Rows.of(samples.ARMS)
    assert found.pairs == [Pair(0), Pair(0, 0), Pair(0, 1), Pair(1), Pair(1, 0), Pair(1, 1)]
    words = {row: "".join(tokens) for row, tokens in found.tokens.items()}
    assert words[Row(0, False, None)] == "She is\na nurse."  # the end token is no part of it
    assert words[Row(0, True, None)] == "They is |both|" and words[Row(1, False, None)] == "base"
    assert (words[Row(1, True, None)], words[Row(0, True, 1)], words[Row(1, True, 0)]) == ("three", "two", "four")
    assert pairs.positions_of(samples.ARMS, Row(1, True, 0)) == (14, 4)
    assert pairs.positions_of(samples.ARMS, Row(0, True, None)) == (9, 4)
    assert pairs.samples_of(samples.ARMS) == 2 and pairs.samples_of(samples.GENERATED) == 1


def test_where_texts_differ():
    assert first_unlike("abcd", "abXd") == first_difference("abcd", "abXd") == 2
    assert first_unlike("ab", "abc") is None and first_difference("ab", "abc") == 2
    assert first_unlike("Xb", "ab", 1) is None and first_difference("ab", "ab") is None
    assert pairs.unlike("abc", "aX") == ([False, True, True], [False, True])
    assert pairs.differing("abc", "bc") == ([True, False, False], [False, False])


# ---- branches


def test_what_a_branch_asks_for():
    """What was recorded rules up to there, with what its strengths came to; then what is on now."""
    now = (Edit(1),)
    request = branches.rewound(samples.ARMS, 3, now, 9)
    assert request == Generate(
        Prompt(samples.NEGATIVE.text, "chat"),
        samples.EDITS,
        replace(samples.ARMS.sampling, max_tokens=9),
        prefill="It |is|",
        samples=2,
        variants=samples.ARMS.variants,
        schedule=(EditsFrom(2, ()), EditsFrom(3, now)),
        branched_at=3,
    )
    assert branches.rewound(samples.ARMS, 3, (), 9).schedule == (EditsFrom(2, ()),)  # no change
    last = samples.ARMS.schedule[-1].edits
    assert (
        branches.rewound(samples.ARMS, 4, tuple(replace(e, absolute=None) for e in last), 9).schedule
        == (samples.ARMS.schedule[1:])
    )
    of_a_variant = branches.rewound(samples.ARMS, 2, now, 9, Pair(1, 1))
    assert of_a_variant.edits == samples.PUBLISHED and of_a_variant.schedule == (EditsFrom(2, now),)
    assert of_a_variant.variants == ()
    from_the_start = branches.rewound(samples.ARMS, 0, now, 1)
    assert from_the_start.schedule == () and from_the_start.sampling.max_tokens == 1
    assert branches.rewound(samples.ARMS, 3, now, 3).sampling.max_tokens == 4  # one token more than is kept


def test_the_kl_a_branch_goes_on_from():
    branch = branches.rewound(samples.GENERATED, 2, (), 9)
    assert pairs.kl_kept(samples.GENERATED, branch, Pair()) == list(samples.GENERATED.kl[:2]) != []
    assert pairs.kl_kept(samples.GENERATED, branch, Pair(0, 0)) == []
    assert pairs.kl_kept(samples.GENERATED, replace(branch, branched_at=None), Pair()) == []
    assert pairs.kl_kept(None, branch, Pair()) == []


def test_what_kept_texts_are_called():
    assert branches.name_of(samples.GENERATED) == "whole text · 4133 ablate, 574 ×0.125"
    assert branches.name_of(samples.ARMS) == (
        "from token 3 · stopped · 4133 ablate, 574 ×0.125 → from token 3: no edits → from token 4: 7 = 2 max at "
        "generated · 2 samples · 2 variants"
    )
    other = replace(samples.GENERATED, edited=replace(samples.GENERATED.edited, tokens=("They", " are", "\n")))
    assert branches.difference_in_words(other, samples.GENERATED) == "… are⏎"
    assert branches.difference_in_words(other, other) == branches.difference_in_words(other, None) == "They are⏎"


def test_texts_of_a_question():
    raw = replace(samples.GENERATED, prompt=replace(samples.NEGATIVE, format="raw"))
    found = branches.siblings([samples.GENERATED, raw, samples.ARMS], Prompt(samples.NEGATIVE.text, "chat"))
    assert found == [samples.ARMS, samples.GENERATED]


def test_what_makes_a_text_out_of_date():
    found = samples.ARMS
    edits = tuple(replace(e, absolute=None) for e in found.schedule[-1].edits)
    now = Generate(Prompt(samples.NEGATIVE.text, "chat"), edits, found.sampling, "It |is|", 2)
    assert branches.staleness(found, now) == ""
    assert "edits changed" in branches.staleness(found, replace(now, edits=samples.EDITS))
    others = {"prompt": Prompt("x", "chat"), "sampling": Sampling(), "prefill": "", "samples": 1}
    for name, value in others.items():
        assert "question or settings changed" in branches.staleness(found, replace(now, **{name: value}))

"""Sessions as csv, jsonl and markdown, from hand-made results."""

import csv
import io

import msgspec
import pytest
import samples
from samples import instead

from engine.files import session
from engine.files.export import formats as export
from engine.files.export.markdown import grid
from engine.records import Edit, EditsFrom, Loaded, MinimalSet, Sampling
from engine.records.errors import UsageError
from engine.records.words.edits import edits_in_words, with_recorded_amounts, without_amounts

replace = msgspec.structs.replace


@pytest.fixture
def full():
    found = session.new(samples.LOAD, samples.LOADED)
    for result in (samples.RANKING, samples.GENERATED, samples.PROBES, samples.ATTRIBUTION, samples.MINIMAL_SET):
        found = session.add(found, result, samples.PROMPT_SET)
    return found


def without_set(session):
    return replace(session, results=tuple(r for r in session.results if not isinstance(r, MinimalSet)))


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_of_features_holds_every_column_exactly(full):
    first, second = rows(export.to_csv(full, "features"))
    row = samples.RANKING.features[0]
    assert float(first["score"]) == row.score  # every digit
    assert (first["ranking"], first["rank"], first["feature"]) == ("0", "1", "4133")
    assert first["tokens"] == " women | \n | [red]"
    assert set(first) == {"ranking", "rank", *type(row).__struct_fields__} - {"g_infinite"}
    assert (second["rank"], second["g"], second["p"], second["loo"], second["tokens"]) == ("2", "", "0.01", "4", "")


def test_csv_numbers_the_rankings(full):
    again = session.add(full, samples.RANKING)
    assert [(r["ranking"], r["rank"]) for r in rows(export.to_csv(again, "features"))] == [
        ("0", "1"),
        ("0", "2"),
        ("1", "1"),
        ("1", "2"),
    ]


def test_csv_of_generations_keeps_line_breaks_and_bars(full):
    (row,) = rows(export.to_csv(full, "generations"))
    assert row["baseline"] == "She is\na nurse."
    assert row["edited"] == "They is |both|"
    assert row["prompt"] == "Cats [b]|\nsleep"
    assert row["edits"] == "4133 ablated, 574 x 0.125"
    assert (row["kl_mean"], row["first_divergence"]) == ("0.25", "0")
    assert (row["inactive_positions"], row["positions"]) == ("4", "9")


def test_csv_has_a_row_for_every_sample_and_variant_beside_its_own_baseline(full):
    found = rows(export.to_csv(instead(full, samples.GENERATED, samples.ARMS), "generations"))
    texts = [(r["generation"], r["sample"], r["variant"], r["baseline"], r["edited"]) for r in found]
    assert texts == [
        ("0", "1", "", "She is\na nurse.", "They is |both|"),
        ("1", "1", "", "She is\na nurse.", "They is |both|"),
        ("1", "1", "1", "She is\na nurse.", "one"),
        ("1", "1", "2", "She is\na nurse.", "two"),
        ("1", "2", "", "base", "three"),
        ("1", "2", "1", "base", "four"),
        ("1", "2", "2", "base", "five"),
    ]
    assert [(r["inactive_positions"], r["positions"]) for r in found[1:]] == [
        ("4", "9"), ("1", "11"), ("2", "12"), ("3", "13"), ("4", "14"), ("5", "15"),
    ]  # fmt: skip
    assert [r["kl_mean"] for r in found] == ["0.25", "0.25", "", "", "", "", ""]
    assert [r["first_divergence"] for r in found] == ["0", "0", "", "", "", "", ""]
    later = "from token 3: no edits; from token 4: 7 set to 2 x its maximum (generated)"
    assert [r["later_edits"] for r in found] == ["", later, "", "", later, "", ""]
    published = "4133 x 0.125 (first step), reconstructed, the SAE's error dropped (first step)"
    assert [r["edits"] for r in found[2:4]] == ["9 ablated", published]
    assert {r["prefill"] for r in found[1:]} == {"It |is|"}
    assert found[1]["sampling"] == "temperature 0.5, seed 3, top-k 40, top-p 0.9, min-p 0.05, ends at '.' or '\\n'"
    assert found[0]["sampling"] == "temperature 0.5, seed 3"


def test_markdown_shows_every_arm_what_changed_on_the_way_and_what_to_know(full):
    text = export.to_markdown(without_set(instead(full, samples.ARMS)))
    published = "4133 x 0.125 (first step), reconstructed, the SAE's error dropped (first step)"
    assert f"| sample | baseline | edited | variant 1: 9 ablated | variant 2: {published} |" in text
    assert "| 1 | She is a nurse. | They is \\|both\\| | one | two |\n| 2 | base | three | four | five |" in text
    notes = [line for line in text.splitlines() if line.startswith("- ")][3:10]
    assert notes == [
        "- put in the model's mouth: 'It |is|'",
        "- temperature 0.5, seed 3, top-k 40, top-p 0.9, min-p 0.05, ends at '.' or '\\n'",
        "- from token 3: no edits",
        "- from token 4: 7 set to 2 x its maximum (generated)",
        "- branched off at token 3: what is before it is another text's",
        "- stopped before its end",
        "- lossy: the SAE's reconstruction stands in for the model's own vectors, whatever it misses is dropped",
    ]
    assert "- first step: only the prompt's pass is edited" in text
    plain = export.to_markdown(instead(full, replace(samples.GENERATED, sampling=Sampling(8))))
    assert "lossy" not in plain
    assert "first step" not in plain
    assert "greedy" not in plain


def test_edits_of_which_one_has_to_know_are_found_wherever_they_were_in_force(full):
    later = (EditsFrom(0, samples.EDITS), EditsFrom(3, samples.PUBLISHED))
    for where in ({"edits": samples.PUBLISHED}, {"schedule": later}, {"variants": (samples.PUBLISHED,)}):
        text = export.to_markdown(instead(full, replace(samples.GENERATED, **where)))
        assert "- lossy: " in text
        assert "- first step: " in text


def test_markdown_says_what_to_know_of_the_probes_edits(full):
    edits = (Edit(3, at="first-step"),)
    text = export.to_markdown(instead(full, replace(samples.PROBES, edits=edits)))
    assert "## Probes, edits: 3 ablated (first step)" in text
    assert "- first step: only the prompt's pass is edited" in text


def test_csv_of_probes_has_a_row_an_answer(full):
    found = rows(export.to_csv(full, "probes"))
    assert [(r["answer"], r["p_baseline"], r["p_edited"]) for r in found] == [
        ("female", "0.75", "0.5"),
        ("male", "0.125", "0.25"),
    ]
    assert {r["probe"] for r in found} == {"Which gender?"}
    assert {r["prefill"] for r in found} == {"It is"}


def test_a_probe_without_tracked_answers_still_has_its_row(full):
    bare = replace(samples.PROBES.rows[0], answers=())
    table = replace(samples.PROBES, rows=(bare, samples.PROBES.rows[0]))
    found = rows(export.to_csv(instead(full, table), "probes"))
    assert len(found) == 3
    assert found[0]["baseline"] == "She is\na nurse."
    assert found[0]["answer"] == ""


@pytest.mark.parametrize("table", ["features", "generations", "probes", "attributions", "sets"])
def test_an_empty_table_is_a_usage_error(table):
    with pytest.raises(UsageError, match=f"has no {table}"):
        export.to_csv(session.new(samples.LOAD, samples.LOADED), table)


def test_jsonl_is_one_record_a_line_and_the_first_says_what_was_loaded(full):
    lines = export.to_jsonl(full).splitlines()
    assert msgspec.json.decode(lines[0], type=Loaded) == samples.LOADED
    assert msgspec.json.decode(lines[1], type=type(samples.RANKING)) == samples.RANKING
    assert msgspec.json.decode(lines[2], type=type(samples.GENERATED)) == samples.GENERATED
    assert msgspec.json.decode(lines[3], type=type(samples.PROBES)) == samples.PROBES
    assert msgspec.json.decode(lines[4], type=type(samples.ATTRIBUTION)) == samples.ATTRIBUTION
    assert msgspec.json.decode(lines[5], type=type(samples.MINIMAL_SET)) == samples.MINIMAL_SET
    assert len(lines) == 6
    assert export.to_jsonl(full).endswith("\n")


def test_markdown_has_a_section_a_result_and_says_how_far_the_evidence_goes(full):
    text = export.to_markdown(full)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# saescope session",
        "## Features that tell 5 positive from 2 negative prompts",
        "## Cats [b]| sleep",
        "## Probes, edits: 4133 ablated, 574 x 0.125",
        "## What female against male depends on",
        "## The smallest set that carries female against male",
    ]
    assert "associated with the behaviour, no more" in text
    assert f"*{samples.RANKING.warnings[0]}*" in text
    assert "65,536 features at blocks.1.hook_resid_pre" in text
    assert "inactive at 4 of 9 positions, mean KL 0.2500" in text
    assert "female 0.750 → 0.500; male 0.125 → 0.250" in text


def test_markdown_tables_keep_their_shape_whatever_the_cells_hold(full):
    for line in export.to_markdown(full).splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")
    assert "| She is a nurse. | They is \\|both\\| |" in export.to_markdown(full)
    lines = grid(("a", "b"), [["x|y", "1\n2"], ["", "z"]])
    assert lines == ["| a | b |", "| --- | --- |", "| x\\|y | 1 2 |", "|  | z |"]


def test_a_generation_without_kl_says_nothing_of_it(full):
    bare = without_set(instead(full, replace(samples.GENERATED, kl=())))
    assert "mean KL" not in export.to_markdown(bare)
    assert rows(export.to_csv(bare, "generations"))[0]["kl_mean"] == ""


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ((), "none"),
        ((Edit(3),), "3 ablated"),
        ((Edit(3, -0.5), Edit(4, 1.0)), "3 x -0.5, 4 x 1"),
        ((Edit(3, 2.0, "set", "prompt", absolute=7.5),), "3 set to 2 x its maximum (prompt)"),
        ((Edit(3, 0.0, "set", "generated"),), "3 set to 0 x its maximum (generated)"),
        ((Edit(3, -1.5, "steer", "last"),), "3 steered by -1.5 (last prompt token)"),
        ((Edit(3, 0.0, "project"), Edit(4, 0.5, "project")), "3 projected out, 4 projected to x 0.5"),
        ((Edit(kind="reconstruct", at="first-step"),), "reconstructed, the SAE's error dropped (first step)"),
    ],
)
def test_edits_in_words(edits, words):
    assert edits_in_words(edits) == words


def test_many_edits_are_counted_instead_of_spelled_out():
    few = tuple(Edit(i) for i in range(8))
    assert edits_in_words(few).count("ablated") == 8
    assert edits_in_words((*few, Edit(9))) == "9 features ablated"
    assert edits_in_words((*few, Edit(9, 0.5), Edit(10, 2.0))) == "8 features ablated, 2 scaled"
    zeros = (Edit(9, 0.0, "set"), Edit(10, 0.0, "project"), Edit(kind="reconstruct"))
    assert edits_in_words((*few, *zeros)) == "8 features ablated, 1 set, 1 projected, reconstructed"
    steered = tuple(replace(edit, kind="steer", at="last") for edit in few)
    assert edits_in_words((*steered, Edit(9, at="last"))) == "1 feature ablated, 8 steered (last prompt token)"
    assert edits_in_words((*steered, Edit(9))) == "1 feature ablated, 8 steered (at different positions)"


def test_what_was_asked_is_what_was_recorded_but_for_the_absolute_values():
    recorded = (Edit(3, 2.0, "set", "last", absolute=7.5), Edit(4))
    assert without_amounts(recorded) == (Edit(3, 2.0, "set", "last"), Edit(4))
    wanted = (Edit(4), Edit(3, 2.0, "set"), Edit(3, 2.0, "set", "last"))
    assert with_recorded_amounts(wanted, recorded) == (Edit(4), Edit(3, 2.0, "set"), recorded[0])


# ---- causes


def test_csv_of_attributions_holds_every_row_exactly_with_what_it_lets_one_say(full):
    found = rows(export.to_csv(full, "attributions"))
    assert [(r["attribution"], r["rank"], r["feature"], r["evidence"]) for r in found] == [
        ("0", "1", "4133", "influences"),
        ("0", "2", "7", "associated"),
        ("0", "3", "9", "associated"),
        ("0", "4", "11", "associated"),
        ("0", "5", "12", "associated"),
    ]
    assert float(found[1]["exact"]) == samples.ATTRIBUTION.features[1].exact  # every digit
    assert [r["share"] for r in found[:3:2]] == ["0.5", "0.03125"]  # of the exact effect, else of the estimate
    assert (found[2]["exact"], found[2]["percentile"]) == ("", "")
    assert {(r["toward"], r["against"], r["baseline"], r["unit"]) for r in found} == {
        ("female", "male", "0.25", "nats per unit of the covariate")
    }
    assert set(found[0]) >= set(type(samples.ATTRIBUTION.features[0]).__struct_fields__)


def test_csv_of_sets_has_a_row_a_member(full):
    found = rows(export.to_csv(full, "sets"))
    assert [(r["set"], r["place"], r["feature"], r["share_with"], r["share_without"]) for r in found] == [
        ("0", "1", "4133", "0.5", "0.0625"),
        ("0", "2", "7", "0.5625", "0.5"),
    ]
    assert {(r["share"], r["share_asked"], r["facts_kept"], r["kl"]) for r in found} == {
        ("0.5625", "0.5", "0.96875", "0.0078125")
    }
    assert {r["set_evidence"] for r in found} == {"influences"}


def section(text, heading):
    return text[text.index(heading) :].split("\n## ")[0]


def test_markdown_of_an_attribution_says_what_was_measured_and_what_the_rows_let_one_say(full):
    text = section(export.to_markdown(full), "## What female")
    assert "log-odds of 'female' against 'male': their slope on the covariate of 2 probes" in text
    assert "Baseline +0.25 nats per unit of the covariate" in text
    assert "| 4133 | women, , [red] | -0.0625 | -0.125 | 50% | 0.0005 | 100% | influences |" in text
    assert "| 9 | a | -0.007812 | – | 3% | 0.1250 | – | associated |" in text
    assert "| 11 |" not in text  # only here for comparison
    assert "20 other features" in text
    assert "at most 0.004, in the middle 0.003" in text
    assert "Spearman 0.88, activation by 0.12" in text
    assert "- influences: " in text
    assert "- associated: " in text
    assert f"- *{samples.ATTRIBUTION.warnings[0]}*" in text
    assert "| The plumber [b] said that | -0.500 | 0.125 | -4.96 |" in text
    assert "cause" not in text


def test_markdown_lists_what_was_ablated_and_counts_the_rest(full):
    rest = samples.ATTRIBUTION.features[2]
    many = (*samples.ATTRIBUTION.features[:2], *(replace(rest, feature=100 + n) for n in range(30)))
    text = export.to_markdown(instead(full, replace(samples.ATTRIBUTION, features=many)))
    assert text.count("| associated |") == 19
    assert "- 12 more rows, estimates alone" in text
    assert "32 are listed, 2 of them ablated" in text
    assert "more rows" not in export.to_markdown(full)


def test_a_row_that_is_also_there_for_comparison_stays_among_the_others(full):
    first, second, third, *controls = samples.ATTRIBUTION.features
    mixed = (first, second, replace(third, control=True, exact=0.5), replace(third, feature=10), *controls)
    text = export.to_markdown(instead(full, replace(samples.ATTRIBUTION, features=mixed)))
    assert "4 are listed, 2 of them ablated" in text
    assert "| 9 |" in text
    assert "| 11 |" not in text


def test_words_of_influence_need_enough_features_to_compare_with(full):
    few = instead(full, replace(samples.ATTRIBUTION, n_controls=19))
    assert "influences" not in section(export.to_markdown(few), "## What female")
    assert {r["evidence"] for r in rows(export.to_csv(few, "attributions"))} == {"associated"}


def test_markdown_of_a_set_says_what_it_takes_away_and_spares(full):
    text = section(export.to_markdown(full), "## The smallest set")
    assert "2 features, ablated together, take 56% away (50% asked for)." in text
    assert "| 4133 | women, , [red] | 50% | 6% |" in text
    assert "97% of the right answers' log-odds is left on 1 question of fact" in text
    assert "penalty 0.5: lost facts and predictions counted against a feature in the search" in text
    assert "mean KL 0.00781 nats a token on 256 tokens" in text
    assert "20 random sets" in text
    assert "more than 20 of them" in text
    assert "influences: more than random sets" in text
    assert "chosen on these very probes" in text
    assert "*Something [to know].*" in text


@pytest.mark.parametrize(
    ("changes", "part", "evidence"),
    [
        ({"control_shares": (0.0,) * 19}, "19 random sets", "associated"),
        ({"control_shares": (0.0,) * 18 + (-0.9, 0.9)}, "more than 18 of them", "associated"),
        ({"control_shares": (0.0,) * 19 + (-0.9,)}, "more than 19 of them", "influences"),
        ({"control_shares": ()}, "it takes more than", "associated"),
        ({"reached": False, "share": 0.25}, "25% is all that 2 features take away, not the 50% asked for", ""),
        (
            {"reached": False, "share": 0.25, "request": replace(samples.MINIMAL_SET.request, most=2, penalty=0.0)},
            "25% is all that 2 features (as many as were allowed) take away",
            "",
        ),
        ({"members": samples.MINIMAL_SET.members[:1]}, "1 feature, ablated alone, takes 56% away", ""),
        ({"members": (), "reached": False, "share": 0.0}, "no candidate was worth ablating", ""),
    ],
)
def test_sets_that_show_less_are_said_to(full, changes, part, evidence):
    found = replace(samples.MINIMAL_SET, **changes)
    text = section(export.to_markdown(instead(full, found)), "## The smallest set")
    assert part in text
    assert f"- {evidence}" in text


def test_a_session_that_holds_only_causes_exports_them():
    only = session.add(session.new(samples.LOAD, samples.LOADED), samples.MINIMAL_SET)
    assert "## The smallest set" in export.to_markdown(only)
    with pytest.raises(UsageError) as caught:
        export.to_csv(only, "features")
    assert "attributions, sets" in caught.value.remedy

"""Sessions as csv, jsonl and markdown, from hand-made results."""

import csv
import io

import msgspec
import pytest
import samples

from engine import export, session
from engine.errors import UsageError
from engine.records import Edit, Loaded

replace = msgspec.structs.replace


@pytest.fixture
def full():
    found = session.new(samples.LOAD, samples.LOADED)
    for result in (samples.RANKING, samples.GENERATED, samples.PROBES):
        found = session.add(found, result, samples.PROMPT_SET)
    return found


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_of_features_holds_every_column_exactly(full):
    first, second = rows(export.to_csv(full, "features"))
    row = samples.RANKING.features[0]
    assert float(first["score"]) == row.score  # every digit
    assert (first["ranking"], first["rank"], first["feature"]) == ("0", "1", "4133")
    assert first["tokens"] == " women | \n | [red]"
    assert set(first) == {"ranking", "rank", *type(row).__struct_fields__}
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
    found = rows(export.to_csv(replace(full, probe_tables=(table,)), "probes"))
    assert len(found) == 3
    assert found[0]["baseline"] == "She is\na nurse."
    assert found[0]["answer"] == ""


@pytest.mark.parametrize("table", ["features", "generations", "probes"])
def test_an_empty_table_is_a_usage_error(table):
    with pytest.raises(UsageError, match=f"has no {table}"):
        export.to_csv(session.new(samples.LOAD, samples.LOADED), table)


def test_jsonl_is_one_record_a_line_and_the_first_says_what_was_loaded(full):
    lines = export.to_jsonl(full).splitlines()
    assert msgspec.json.decode(lines[0], type=Loaded) == samples.LOADED
    assert msgspec.json.decode(lines[1], type=type(samples.RANKING)) == samples.RANKING
    assert msgspec.json.decode(lines[2], type=type(samples.GENERATED)) == samples.GENERATED
    assert msgspec.json.decode(lines[3], type=type(samples.PROBES)) == samples.PROBES
    assert len(lines) == 4
    assert export.to_jsonl(full).endswith("\n")


def test_markdown_has_a_section_a_result_and_says_how_far_the_evidence_goes(full):
    text = export.to_markdown(full)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert headings == [
        "# saescope session",
        "## Features that tell 5 positive from 2 negative prompts",
        "## Cats [b]| sleep",
        "## Probes, edits: 4133 ablated, 574 x 0.125",
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
    lines = export.grid(("a", "b"), [["x|y", "1\n2"], ["", "z"]])
    assert lines == ["| a | b |", "| --- | --- |", "| x\\|y | 1 2 |", "|  | z |"]


def test_a_generation_without_kl_says_nothing_of_it(full):
    bare = replace(full, generations=(replace(samples.GENERATED, kl=()),))
    assert "mean KL" not in export.to_markdown(bare)
    assert rows(export.to_csv(bare, "generations"))[0]["kl_mean"] == ""


@pytest.mark.parametrize(
    ("edits", "words"),
    [((), "none"), ((Edit(3),), "3 ablated"), ((Edit(3, -0.5), Edit(4, 1.0)), "3 x -0.5, 4 x 1")],
)
def test_edits_in_words(edits, words):
    assert export.edits_in_words(edits) == words


def test_many_edits_are_counted_instead_of_spelled_out():
    few = tuple(Edit(i) for i in range(8))
    assert export.edits_in_words(few).count("ablated") == 8
    assert export.edits_in_words((*few, Edit(9))) == "9 features ablated"
    assert export.edits_in_words((*few, Edit(9, 0.5), Edit(10, 2.0))) == "8 features ablated, 2 scaled"

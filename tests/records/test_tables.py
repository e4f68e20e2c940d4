"""The tables of facts: a row more is all it takes for every place that is made of them."""

import dataclasses
from types import SimpleNamespace
from typing import get_args

import msgspec
import numpy as np
import pytest
import samples
import torch
from msgspec.structs import replace

from engine.cli import features, options
from engine.cli.printing import features as printed
from engine.features import rank
from engine.files import recorded, session
from engine.files.export import command_line, formats, markdown, nnsight_script, tables
from engine.files.recorded import RECORDED, KindOfResult, Replaying
from engine.generation import edit_tensors
from engine.records import (
    RANK_COLUMNS,
    RANKED_BY,
    Edit,
    EditKind,
    FeatureRow,
    Generate,
    Load,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    Recorded,
    Replay,
    Replayable,
    Replayed,
    Sampling,
    texts,
)
from engine.records.edits import EDIT_KINDS, EditForm, KindOfEdit, Linear, SlotMaths
from engine.records.errors import EditError, UsageError
from engine.records.features import BY_NAME, RankColumn
from engine.records.texts import SAMPLING, Setting, check_sampling
from engine.records.words import edits as edit_words
from engine.records.words import texts as words
from engine.serving import verbs
from tui.commands.keys import BY_ID
from tui.panes import leaderboard_columns as leaderboard
from tui.panes.edits import EditsPane
from tui.screens import text_forms
from tui.state import edits

TYPICAL = Setting(
    "typical_p", "typical-p", "above 0 and at most 1", "typical tokens (1)", read_as=float, above_least=True, most=1,
    limits_choice=True,
)  # fmt: skip


@pytest.fixture
def more_sampling(monkeypatch):
    """Sampling with a field more, and its row."""
    more = msgspec.defstruct("More", [("typical_p", float, 1.0)], bases=(Sampling,), frozen=True)
    for module in (texts, options, command_line, words, text_forms):
        monkeypatch.setattr(module, "SAMPLING", (*SAMPLING, TYPICAL))
        monkeypatch.setattr(module, "Sampling", more)
    return more


def test_every_field_of_sampling_has_a_row():
    assert {setting.field for setting in SAMPLING} == set(Sampling.__struct_fields__)


def test_a_setting_more_is_an_option_with_limits(more_sampling):
    parser = options.Parser()
    options.add_edit_options(parser, 24)
    usual = msgspec.structs.asdict(more_sampling(24)) | {"stop": []}
    assert vars(parser.parse_args([])) == usual | {"edits": [], "published": None, "at": "all"}
    assert parser.parse_args(["--typical-p", "0.5"]).typical_p == 0.5
    for wrong in (0.0, 1.5, float("nan")):
        with pytest.raises(UsageError, match="--typical-p must be above 0 and at most 1"):
            check_sampling(more_sampling(typical_p=wrong))


def test_a_setting_more_is_a_field_of_the_form(more_sampling):
    typed = {field.name: field.value for field in text_forms.sampling_fields(more_sampling(typical_p=0.5))}
    assert typed["typical_p"] == "0.5" and text_forms.sampling_of(typed) == more_sampling(typical_p=0.5)
    wrong = {**typed, "samples": "1", "typical_p": "0"}
    assert text_forms.check_settings(wrong) == "typical-p: above 0 and at most 1."


def test_a_setting_more_is_said_and_is_in_the_command(more_sampling):
    sampling = more_sampling(temperature=1.0, typical_p=0.5)
    assert words.sampling_in_words(sampling) == "temperature 1, seed 0, typical-p 0.5"
    command = command_line.command_line(Load(), Generate(Prompt("x"), (), sampling))
    assert command == "saescope generate --raw --temperature 1.0 --typical-p 0.5 x"


# ---- the leaderboard's columns


def test_every_number_of_a_row_has_a_column():
    names = {*FeatureRow.__struct_fields__} - {"feature", "tokens", "g_infinite"}
    assert sorted(column.name for column in RANK_COLUMNS) == sorted(names)
    assert sorted(column.place for column in RANK_COLUMNS) == list(range(len(RANK_COLUMNS)))


@pytest.fixture
def more_columns(monkeypatch):
    """The leaderboard's table with a row more, and a ranking of rows that have it, once as infinity."""
    column = RankColumn(
        "median", "the middle of the positives", 11, 8, ".1f", heading="mid", ranks=False, sorts_rows=True,
        least_prompts=3, in_report=True, note="mid: over {n_positive} positives",
    )  # fmt: skip
    table = (*RANK_COLUMNS, column)
    for module in (printed, markdown, leaderboard):
        monkeypatch.setattr(module, "RANK_COLUMNS", table)
    monkeypatch.setattr(leaderboard, "COLUMNS", leaderboard.columns(table))
    monkeypatch.setitem(BY_NAME, "median", column)
    more = msgspec.defstruct(
        "Row", [("median", float | None, None), ("median_infinite", bool, False)], bases=(FeatureRow,), frozen=True
    )
    row = more(7, ("a",), 1.0, 1.0, 1.0, 1.0, None, 1.0, 0.5, 0.1, 2.0, median=0.25)
    other = replace(row, feature=8, diff=-1.0, median=None, median_infinite=True)
    ranking = Ranking((row, other), "score", "max", False, True, 3, 3, 9, 2, 0.5, (), ())
    return table, ranking


def test_a_column_more_is_shown_on_a_terminal(more_columns):
    _, ranking = more_columns
    found = {column.name: column.cells for column in printed.columns(ranking)}
    assert found["mid"] == ["0.2", "-∞"] and found["cover +/−"] == ["100%/50%"] * 2 and not {"p", "loo"} & {*found}
    assert printed.columns_in_words(ranking) == " · mid: over 3 positives"
    assert printed.columns_in_words(replace(ranking, features=())) == ""


def test_a_column_more_is_in_the_table_file_and_the_report(more_columns):
    assert [row["median"] for row in tables.feature_rows(more_columns[1])] == [0.25, "-∞"]
    heading = next(line for line in markdown.ranking_section(more_columns[1]) if line.startswith("| feature"))
    assert heading == "| feature | tokens | score | auroc | t | g | density | median |"


def test_a_column_more_is_shown_and_explained_in_the_app(more_columns):
    table, ranking = more_columns
    last = leaderboard.columns(table)[-1]
    assert (last.heading, last.by, last.cell(ranking.features[0], None)) == ("median", "median", "0.2")
    assert leaderboard.meanings(table).endswith(" · median: the middle of the positives")


def test_the_app_sorts_by_a_column_more_where_there_are_enough_prompts_and_numbers(more_columns):
    _, ranking = more_columns
    assert leaderboard.sorts_rows("median") and "median" in leaderboard.sortable(ranking, None)
    assert "median" not in leaderboard.sortable(replace(ranking, n_negative=2), None)
    empty = tuple(replace(row, median=None, median_infinite=False) for row in ranking.features)
    assert "median" not in leaderboard.sortable(replace(ranking, features=empty), None)


def test_ranking_by_a_column_needs_as_many_prompts_as_its_row_says(monkeypatch):
    monkeypatch.setitem(BY_NAME, "t", dataclasses.replace(BY_NAME["t"], least_prompts=2))
    few = PromptSet("few", (Prompt("a"), Prompt("b")), (Prompt("c"),))
    with pytest.raises(UsageError, match="t needs at least two prompts in each set"):
        rank.check(Rank(few, by="t"))
    rank.check(Rank(few))


def test_an_infinite_number_becomes_a_field_of_its_own():
    numbers = {name: np.array([0.5]) for name in BY_NAME} | {"g": np.array([-np.inf]), "p": None, "loo": None}
    row = rank.feature_row(3, 0, numbers)
    assert (row.g, row.g_infinite, row.p, row.score) == (None, True, None, 0.5)


def test_features_are_ranked_by_what_the_table_says():
    parser = options.Parser()
    features.add_rank_options(parser)
    by = next(action for action in parser._actions if action.dest == "by")
    assert tuple(by.choices) == RANKED_BY == tuple(c.name for c in RANK_COLUMNS if c.name not in ("p", "loo"))


# ---- kinds of edits


@pytest.fixture
def lift(monkeypatch):
    """An edit of a kind that the table has a row more for."""
    form = EditForm("lift", "FEATURE=MAXIMA", "add so many maxima", "4133=2")
    row = KindOfEdit(
        (form,), "lift by", "f becomes f + {strength:g}", "lift adds to it.", "{feature} lifted by {strength:g}",
        "+ {strength:g}", "lifted", steps=(1.0, 2.0), tried=(0.5, 1.0), unit="activation",
        slot=SlotMaths(gain=Linear(0.0, -0.5), offset=Linear(0.0, 1.0), amount_is="f + amount"),
    )  # fmt: skip
    monkeypatch.setitem(EDIT_KINDS, "lift", row)
    return Edit(7, 2.0, "lift")


def test_every_kind_of_edit_has_a_row():
    assert (*EDIT_KINDS,) == get_args(EditKind)


def test_a_kind_more_is_an_option_and_a_word_of_variants(lift):
    parser = options.Parser()
    options.add_edit_options(parser, 24)
    assert parser.parse_args(["--lift", "7=2", "--reconstruct"]).edits == [("lift", "7=2"), ("reconstruct", "")]
    assert edit_words.parse("lift", "7=2", "all", None) == [lift]
    assert edit_words.parse_list("lift 7=2, at all", "last", None) == (lift,)
    assert edit_words.spelled([lift]) == ("all", [("lift", "7=2.0")])
    with pytest.raises(EditError, match="--lift 7: expected FEATURE=MAXIMA"):
        edit_words.parse("lift", "7", "all", None)


def test_a_kind_more_is_said_in_sentences_and_in_few_letters(lift):
    assert edit_words.edits_in_words([lift]) == "7 lifted by 2" and edit_words.edits_in_short([lift]) == "7 + 2"
    assert edit_words.edits_in_words([lift] * 9) == "9 features lifted"


def test_a_kind_more_is_in_the_form_and_has_its_steps(lift):
    values = {"kind": "lift by", "strength": "2", "at": "all tokens"}
    assert text_forms.edit_of(7, values) == lift and edit_words.meaning_of(lift) == "f becomes f + 2"
    assert edits.stepped(edits.slot_of(lift), -5).strength == 1.0


def test_the_help_and_the_key_of_edits_name_every_kind():
    assert edit_words.kinds_explained() in EditsPane.HELP
    assert edit_words.choices_in_words() in BY_ID["feature.edit"].tooltip


def test_a_kind_more_is_named_in_the_help_and_by_the_key(lift):
    assert edit_words.kinds_explained().endswith(" lift adds to it.")
    assert edit_words.choices_in_words() == "scale, set, steer, project or lift"


def test_the_maths_of_a_kind_more_are_those_of_its_row(lift):
    slot = EDIT_KINDS["lift"].slot
    assert edit_tensors.numbers_of(slot, 4.0) == (-2.0, 4.0, 0.0, 0.0)
    acting = replace(lift, absolute=4.0)
    assert edit_tensors.flags_of(acting) == (True, True, False, False)
    assert not edit_tensors.flags_of(replace(lift, absolute=0.0))[1]


LOADED = SimpleNamespace(encoder="standard", normalisation="none", sae_format="", centered=False, rescaled=False)


def test_a_kind_more_with_a_slot_is_in_the_script(lift):
    assert nnsight_script.is_plain(LOADED, Load(), [lift])
    assert "left out: 7 lifted by 2; generate with it first" in nnsight_script._notes([lift])
    script = nnsight_script._edits([replace(lift, absolute=4.0), Edit(8, 0.5)], "cpu")
    assert "KIND = {7: 'lift'}  # lift: f + amount" in script["edits"]
    names = {"torch": torch, "EDITS": {7: 4.0, 8: 0.5}, "KIND": {7: "lift"}}
    exec(script["amounts"], names)
    assert (names["gain"].tolist(), names["offset"].tolist()) == ([-2.0, -0.5], [4.0, 0.0])


def test_a_kind_more_without_a_slot_is_left_out_of_the_script_in_words(lift, monkeypatch):
    monkeypatch.setitem(EDIT_KINDS, "lift", dataclasses.replace(EDIT_KINDS["lift"], unit="", slot=None))
    assert not nnsight_script.is_plain(LOADED, Load(), [lift])
    assert "left out: 7 lifted by 2; this script has no lines for it" in nnsight_script._notes([lift])
    request = Generate(Prompt("x"), (lift, Edit(8)))
    text = nnsight_script.nnsight_snippet(samples.LOADED, Load(), request)
    assert "EDITS = {8: 0.0}" in text and "lift" not in text.replace("left out: 7 lifted", "")


# ---- kinds of results that a session keeps


def test_every_kind_of_result_has_a_row_and_a_table():
    assert {*RECORDED} == {*get_args(Recorded)} and len({*formats.TABLES}) == len(RECORDED)
    assert {kind for kind, row in RECORDED.items() if row.replaying} == {*get_args(Replayable)}


class Count(msgspec.Struct):
    number: int


@pytest.fixture
def counts(monkeypatch):
    """A session with two results of a kind that the table has a row more for."""
    replaying = Replaying(
        lambda recorded: Generate(Prompt(str(recorded.number))),
        lambda old, new: Replayed(old == new),
        lambda recorded, again: [f"the count {recorded.number} came out {'the same' if again.same else 'otherwise'}"],
    )
    row = KindOfResult(
        "counts", lambda result: iter([{"number": result.number}]), "count", lambda result: [f"## {result.number}"],
        replaying,
    )  # fmt: skip
    monkeypatch.setitem(RECORDED, Count, row)
    return replace(session.new(Load()), results=(Count(3), Count(4)))


def test_a_kind_of_result_more_is_exported(counts):
    assert formats.to_csv(counts, "counts") == "count,number\n0,3\n1,4\n"
    assert formats.to_markdown(counts).endswith("\n## 3\n## 4")


def test_a_kind_of_result_more_is_replayed_and_put_in_words(counts, monkeypatch):
    assert recorded.replayable(counts) == [Count(3), Count(4)]
    forgotten = []
    pair = SimpleNamespace(forget=lambda: forgotten.append(True))

    def count_again(pair, request):
        return Count(int(request.prompt.text) // 4 * 4)
        yield

    monkeypatch.setitem(verbs.VERBS, Generate, count_again)
    three, four = (list_out(verbs.replay(pair, Replay(result))) for result in counts.results)
    assert (three.same, four.same, len(forgotten)) == (False, True, 2)
    assert recorded.replay_in_words(Count(4), four) == ["the count 4 came out the same"]


def list_out(work):
    """What a verb returns."""
    try:
        while True:
            next(work)
    except StopIteration as end:
        return end.value

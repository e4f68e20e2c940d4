"""The tables of facts: a row more is all it takes for every place that is made of them."""

from types import SimpleNamespace
from typing import get_args

import msgspec
import pytest

from engine.cli import features, options
from engine.cli.printing import features as printed
from engine.files.export import command_line, nnsight_script, tables
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
    Ranking,
    Sampling,
    texts,
)
from engine.records.edits import EDIT_KINDS, EditForm, KindOfEdit
from engine.records.errors import EditError, UsageError
from engine.records.features import RankColumn
from engine.records.texts import SAMPLING, Setting, check_sampling
from engine.records.words import edits as edit_words
from engine.records.words import texts as words
from tui.panes import leaderboard
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
    """The leaderboard's table with a row more, and a ranking of rows that have it."""
    table = (*RANK_COLUMNS, RankColumn("median", "the middle of the positives", 11, 8, ".1f", heading="mid"))
    monkeypatch.setattr(printed, "RANK_COLUMNS", table)
    more = msgspec.defstruct("Row", [("median", float, 0.0)], bases=(FeatureRow,), frozen=True)
    monkeypatch.setattr(tables, "FeatureRow", more)
    row = more(7, ("a",), 1.0, 1.0, 1.0, 1.0, None, 1.0, 0.5, 0.1, 2.0, median=0.25)
    ranking = Ranking((row,), "score", "max", False, True, 1, 1, 9, 2, 0.5, (), ())
    return table, ranking


def test_a_column_more_is_shown_on_a_terminal(more_columns):
    _, ranking = more_columns
    found = {column.name: column.cells for column in printed.columns(ranking)}
    assert found["mid"] == ["0.2"] and found["cover +/−"] == ["100%/50%"] and not {"p", "loo"} & {*found}


def test_a_column_more_is_in_the_table_file(more_columns):
    session = SimpleNamespace(of=lambda kind: (more_columns[1],))
    assert next(tables.feature_rows(session))["median"] == 0.25


def test_a_column_more_is_shown_and_explained_in_the_app(more_columns):
    table, ranking = more_columns
    last = leaderboard.columns(table)[-1]
    assert (last.heading, last.by, last.cell(ranking.features[0], None)) == ("median", "median", "0.2")
    assert leaderboard.meanings(table).endswith(" · median: the middle of the positives")


def test_features_are_ranked_by_what_the_table_says():
    parser = options.Parser()
    features.add_rank_options(parser)
    by = next(action for action in parser._actions if action.dest == "by")
    assert tuple(by.choices) == RANKED_BY == tuple(c.name for c in RANK_COLUMNS if c.name not in ("p", "loo"))


# ---- kinds of edits


@pytest.fixture
def clamp(monkeypatch):
    """An edit of a kind that the table has a row more for."""
    form = EditForm("clamp", "FEATURE=MAXIMA", "no more than so many maxima", "4133=2")
    row = KindOfEdit(
        (form,), "clamp to", "f becomes {strength:g} at most", "{feature} clamped to {strength:g}", "≤ {strength:g}",
        "clamped", steps=(1.0, 2.0), tried=(0.5, 1.0), has_unit=True,
    )  # fmt: skip
    monkeypatch.setitem(EDIT_KINDS, "clamp", row)
    return Edit(7, 2.0, "clamp")


def test_every_kind_of_edit_has_a_row():
    assert (*EDIT_KINDS,) == get_args(EditKind)


def test_a_kind_more_is_an_option_and_a_word_of_variants(clamp):
    parser = options.Parser()
    options.add_edit_options(parser, 24)
    assert parser.parse_args(["--clamp", "7=2", "--reconstruct"]).edits == [("clamp", "7=2"), ("reconstruct", "")]
    assert edit_words.parse("clamp", "7=2", "all", None) == [clamp]
    assert edit_words.parse_list("clamp 7=2, at all", "last", None) == (clamp,)
    assert edit_words.spelled([clamp]) == ("all", [("clamp", "7=2.0")])
    with pytest.raises(EditError, match="--clamp 7: expected FEATURE=MAXIMA"):
        edit_words.parse("clamp", "7", "all", None)


def test_a_kind_more_is_said_in_sentences_and_in_few_letters(clamp):
    assert edit_words.edits_in_words([clamp]) == "7 clamped to 2" and edit_words.edits_in_short([clamp]) == "7 ≤ 2"
    assert edit_words.edits_in_words([clamp] * 9) == "9 features clamped"


def test_a_kind_more_is_in_the_form_and_has_its_steps(clamp):
    values = {"kind": "clamp to", "strength": "2", "at": "all tokens"}
    assert text_forms.edit_of(7, values) == clamp and edit_words.meaning_of(clamp) == "f becomes 2 at most"
    assert edits.stepped(edits.slot_of(clamp), -5).strength == 1.0


def test_a_kind_more_takes_a_slot_where_its_row_says_so(clamp):
    loaded = SimpleNamespace(encoder="standard", normalisation="none", sae_format="", centered=False, rescaled=False)
    assert nnsight_script.is_plain(loaded, Load(), [clamp])
    assert not nnsight_script.is_plain(loaded, Load(), [Edit(7, 0.0, "project")])
    assert "left out: 7 clamped to 2" in nnsight_script._notes([clamp])
    assert edit_tensors.flags_of(clamp) == (True, True, False, False)

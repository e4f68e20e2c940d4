"""The tables of facts: a row more is all it takes for every place that is made of them."""

from types import SimpleNamespace

import msgspec
import pytest

from engine.cli import features, options
from engine.cli.printing import features as printed
from engine.files.export import command_line, tables
from engine.records import RANK_COLUMNS, RANKED_BY, FeatureRow, Generate, Load, Prompt, Ranking, Sampling, texts
from engine.records.errors import UsageError
from engine.records.features import RankColumn
from engine.records.texts import SAMPLING, Setting, check_sampling
from engine.records.words import texts as words
from tui import text_flows
from tui.panes import leaderboard

TYPICAL = Setting(
    "typical_p", "typical-p", "above 0 and at most 1", "typical tokens (1)", read_as=float, above_least=True, most=1,
    limits_choice=True,
)  # fmt: skip


@pytest.fixture
def more_sampling(monkeypatch):
    """Sampling with a field more, and its row."""
    more = msgspec.defstruct("More", [("typical_p", float, 1.0)], bases=(Sampling,), frozen=True)
    for module in (texts, options, command_line, words, text_flows):
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
    typed = {field.name: field.value for field in text_flows.sampling_fields(more_sampling(typical_p=0.5))}
    assert typed["typical_p"] == "0.5" and text_flows.sampling_of(typed) == more_sampling(typical_p=0.5)
    wrong = {**typed, "samples": "1", "typical_p": "0"}
    assert text_flows.check_settings(wrong) == "typical-p: above 0 and at most 1."


def test_a_setting_more_is_said_and_is_in_the_command(more_sampling):
    sampling = more_sampling(temperature=1.0, typical_p=0.5)
    assert words.sampling_in_words(sampling) == "temperature 1, seed 0, typical-p 0.5"
    command = command_line.command_line(Load(), Generate(Prompt("x"), (), sampling))
    assert command == "saescope generate --raw --temperature 1.0 --typical-p 0.5 x"


# ---- the leaderboard's columns


def test_every_number_of_a_row_has_a_column():
    names = {*FeatureRow.__struct_fields__} - {"feature", "tokens"}
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
    session = SimpleNamespace(rankings=(more_columns[1],))
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

"""The tables of facts: a row more is all it takes for every place that is made of them."""

import msgspec
import pytest

from engine.cli import options
from engine.files.export import command_line
from engine.records import Generate, Load, Prompt, Sampling, texts
from engine.records.errors import UsageError
from engine.records.texts import SAMPLING, Setting, check_sampling
from engine.records.words import texts as words
from tui import text_flows

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

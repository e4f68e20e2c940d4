"""What is printed beside the golden texts: JSON, standard error, colours. The texts are in test_golden.py."""

import json

import msgspec
import pytest
import samples

from engine.printing import Printer, shade
from engine.records import Arm, Progress, RankReplayed, TokenStep

replace = msgspec.structs.replace


@pytest.mark.parametrize(
    ("method", "record", "more"),
    [
        ("ranking", samples.RANKING, ()),
        ("shown", samples.SHOWN, (1,)),
        ("described", samples.DESCRIBED, ()),
        ("generated", samples.GENERATED, (False,)),
        ("probe_table", samples.PROBES, ()),
        ("diagnosis", samples.DIAGNOSIS, ()),
    ],
)
def test_json_is_one_line_that_holds_the_whole_record(method, record, more, capsys):
    getattr(Printer(json=True), method)(record, *more)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert msgspec.json.decode(out.encode(), type=type(record)) == record


def test_json_prints_no_headings(capsys):
    printer = Printer(json=True)
    printer.heading("1  A step")
    printer.tour_end()
    printer.replayed([(samples.RANKING, RankReplayed(True, None, 0.0))], [])
    assert json.loads(capsys.readouterr().out)["rankings"][0]["same"] is True


def test_brackets_in_messages_are_not_taken_for_markup(capsys):
    printer = Printer(json=False)
    printer.error("No file [b]x[/b].", "Try [red].")
    printer.note("saved to /tmp/[x]")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "error: No file [b]x[/b].\nTry [red].\nsaved to /tmp/[x]\n"


def test_a_pipe_gets_one_line_per_stage(capsys):
    with Printer(json=False).watching() as on_event:
        for event in (Progress("a", 0, 2), Progress("a", 1, 2), TokenStep(0, "x", "y"), Progress("b"), Progress("a")):
            on_event(event)
    assert capsys.readouterr().err == "a\nb\n"


def test_differences_name_only_what_changed(capsys):
    Printer(json=False).differences(samples.LOADED, replace(samples.LOADED, dtype="bfloat16", threads=2))
    assert sorted(capsys.readouterr().err.splitlines()) == [
        "dtype: recorded float32, now bfloat16",
        "threads: recorded 1, now 2",
    ]
    Printer(json=False).differences(samples.LOADED, samples.LOADED)
    assert capsys.readouterr().err == ""


def test_the_shade_grows_with_the_activation_and_is_empty_for_silence():
    assert shade(0.0, 5.0) == shade(-1.0, 5.0) == shade(1.0, 0.0) == ""
    reds = [int(shade(v, 5.0).split("rgb(")[1].split(",")[0]) for v in (0.01, 1.0, 2.5, 4.0, 5.0, 50.0)]
    assert reds == sorted(reds)
    assert len(set(reds)) == 5
    assert reds[-1] == 255


def test_the_end_token_is_left_out_and_a_text_without_one_is_shown_whole(capsys):
    ended = Arm("one two", (1, 2, 0), ("one", " two", "</s>"), (0.0, 0.0, 0.0))
    cut = Arm("one two", (1, 2), ("one", " two"), (0.0, 0.0))
    Printer(json=False).generated(replace(samples.GENERATED, baseline=ended, edited=cut), compare=True)
    out = capsys.readouterr().out
    assert out.count("one two") == 2
    assert "</s>" not in out


def test_without_compare_the_edited_text_alone_is_printed_and_without_edits_the_baselines(capsys):
    Printer(json=False).generated(samples.GENERATED, compare=False)
    Printer(json=False).generated(replace(samples.GENERATED, edits=()), compare=False)
    assert capsys.readouterr().out == f"{samples.GENERATED.edited.text}\n{samples.GENERATED.baseline.text}\n"

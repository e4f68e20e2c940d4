"""What is printed beside the golden texts: JSON, standard error, colours. The texts are in test_golden.py."""

import json

import msgspec
import pytest
import samples
from rich.console import Console

from engine.cli.printing import Printer, attribution, card, features, pair, texts
from engine.cli.printing.layout import Column, bar, print_table
from engine.records import Arm, Progress, Replayed, Sampling, TokenStep
from engine.records.words.shades import shade

replace = msgspec.structs.replace


@pytest.mark.parametrize(
    ("show", "record", "more"),
    [
        (features.ranking, samples.RANKING, ()),
        (features.shown, samples.SHOWN, (1,)),
        (card.described, samples.DESCRIBED, ()),
        (card.described, samples.CARD, ("a/page",)),
        (attribution.attribution, samples.ATTRIBUTION, (3,)),
        (attribution.minimal_set, samples.MINIMAL_SET, ()),
        (None, samples.GENERATED, (False,)),
        (None, samples.ARMS, (False,)),
        (texts.probe_table, samples.PROBES, ()),
        (pair.diagnosis, samples.DIAGNOSIS, ()),
    ],
)
def test_json_is_one_line_that_holds_the_whole_record(show, record, more, capsys):
    printer = Printer(json=True)
    printer.result(show, record, *more) if show else printer.generated(record, *more)
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert msgspec.json.decode(out.encode(), type=type(record)) == record


def test_json_prints_no_headings(capsys):
    printer = Printer(json=True)
    printer.heading("1  A step")
    printer.tour_end()
    printer.replayed([(samples.RANKING, Replayed(True, None, 0.0))])
    assert json.loads(capsys.readouterr().out)["results"][0]["same"] is True


def test_an_attribution_with_its_set_is_one_json_object(capsys):
    Printer(json=True).attribution_with_set(samples.ATTRIBUTION, samples.MINIMAL_SET)
    Printer(json=True).attribution_with_set(samples.ATTRIBUTION, None)
    with_set, without = map(json.loads, capsys.readouterr().out.splitlines())
    assert with_set["features"][2] == {
        "feature": 9,
        "tokens": [" a"],
        "estimate": -0.0078125,
        "exact": None,
        "activation": 2.0,
        "density": 0.125,
        "percentile": None,
        "control": False,
    }
    smallest = with_set.pop("minimal_set")
    assert msgspec.convert(with_set, type(samples.ATTRIBUTION)) == samples.ATTRIBUTION
    assert msgspec.convert(smallest, type(samples.MINIMAL_SET)) == samples.MINIMAL_SET
    assert without["minimal_set"] is None


def test_replays_as_json_are_told_apart_by_kind(capsys):
    found = [(samples.MINIMAL_SET, Replayed(False, 0, 1.0)), (samples.ATTRIBUTION, Replayed(True, None, 0))]
    Printer(json=True).replayed(found)
    printed = json.loads(capsys.readouterr().out)
    assert [(r["recorded"], r["same"]) for r in printed["results"]] == [("MinimalSet", False), ("Attribution", True)]


@pytest.mark.parametrize(("value", "cells"), [(0, ""), (1, "▏"), (500, "█" * 12), (1000, "█" * 24), (21, "▌")])
def test_a_bar_is_as_long_as_its_share_and_never_lost(value, cells):
    assert bar(value, 1000, 24) == cells


@pytest.mark.parametrize(
    ("baseline", "ablated", "words"),
    [(0.5, 0.25, "50% taken away"), (-0.5, -0.25, "50% taken away"), (0.5, 0.75, "50% more of it"), (0.0, 0.1, "0% ")],
)
def test_an_effect_says_whether_it_takes_away_or_adds(baseline, ablated, words, capsys):
    effect = replace(samples.CARD.effect, baseline=baseline, ablated=ablated)
    Printer(json=False).result(card.described, replace(samples.CARD, effect=effect))
    assert words in capsys.readouterr().out


def table(width, capsys, *columns):
    print_table(Console(highlight=False, width=width), columns)
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_narrow_table_drops_columns_in_their_order_then_cuts_texts(capsys):
    columns = [
        Column("n", ["1234"]),
        Column("text", ["[b] " + "x" * 26], flexible=True),
        Column("late", ["1"], drop=1),
        Column("soon", ["2"], drop=2),
    ]
    wide = table(80, capsys, *columns)
    assert wide == ["   n  text                            late  soon", "1234  [b] " + "x" * 26 + "     1     2"]
    first = table(30, capsys, *columns)
    assert first[0].split() == ["n", "text", "late"]
    assert first[1] == "1234  [b] xxxxxxxxxxxxx…     1"
    assert first[2] == "no room for: soon (in --json)"
    least = table(22, capsys, *columns)
    assert least[:2] == ["   n  text", "1234  [b] xxxxxxxxxxx…"]
    assert " ".join(least[2:]) == "no room for: late, soon (in --json)"


@pytest.mark.parametrize(("n_controls", "rows", "bold"), [(20, None, ["4133"]), (19, None, []), (20, 1, ["4133"])])
def test_only_what_beats_enough_other_features_is_said_to_influence(n_controls, rows, bold, capsys):
    Printer(json=False).result(attribution.attribution, replace(samples.ATTRIBUTION, n_controls=n_controls), rows)
    out = capsys.readouterr().out
    influence = [line.split()[0] for line in out.splitlines() if line.endswith("influences")]
    assert influence == bold
    assert ("influences: on these probes" in out) == bool(bold)
    assert "associated: " in out
    assert ("2 more with estimates alone" in out) == (rows == 1)
    assert "cause" not in out


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


def test_the_command_that_shows_a_set_is_whole_however_many_members_it_has(capsys):
    member = samples.MINIMAL_SET.members[0]
    members = tuple(replace(member, feature=60_000 + n) for n in range(64))
    Printer(json=False).result(attribution.minimal_set, replace(samples.MINIMAL_SET, members=members))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "saescope generate" in line]
    assert line.endswith(" ".join(f"--ablate {m.feature}" for m in members))


def test_a_text_is_said_to_end_at_its_stop_strings_and_how_it_was_sampled_only_where_it_was(capsys):
    for sampling, words in (
        (Sampling(8, stop=(".", "\n")), "greedy, ends at '.' or '\\n'"),
        (Sampling(8, 0.5, 3), "temperature 0.5, seed 3"),
        (Sampling(8), ""),
    ):
        Printer(json=False).generated(replace(samples.GENERATED, sampling=sampling), compare=True)
        out = capsys.readouterr().out
        assert words in out.splitlines() or not words
        assert ("greedy" in out, "temperature" in out) == ("greedy" in words, "temperature" in words)


def test_edits_that_had_nowhere_to_act_are_not_said_to_have_been_silent(capsys):
    for positions, silent in ((0, False), (3, True)):
        counted = replace(samples.GENERATED, positions=positions, inactive_positions=positions)
        Printer(json=False).generated(counted, compare=True)
        assert ("silent everywhere" in capsys.readouterr().out) == silent

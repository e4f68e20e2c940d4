"""What results look like on a terminal, byte for byte, from hand-made records.

After a change that is meant: SAESCOPE_REWRITE_GOLDEN=1 make test, then read the diff.
"""

import os
from pathlib import Path

import msgspec
import pytest

from engine.cli.printing import Printer, card, features, pair, texts
from engine.records import (
    Answer,
    AnswerRow,
    Arm,
    ArmReplay,
    Check,
    Described,
    Diagnosis,
    Edit,
    EditsFrom,
    FeatureRow,
    FedPrompt,
    Generated,
    OtherArm,
    Probe,
    ProbeRow,
    ProbeTable,
    Ranking,
    Replayed,
    Sampling,
    Shown,
    StrongToken,
    TokenLogit,
)
from engine.records.words.rich_text import Terminal

GOLDEN = Path(__file__).parents[1] / "golden"


def fed(text, *tokens):
    mask = (False, *(True for _ in tokens))
    return FedPrompt(text, "raw", tuple(range(len(tokens) + 1)), ("<s>", *tokens), mask, mask)


NURSE = fed("Which gender is a nurse?", "Which", " gender", " is", " a", " nurse", "?", "\n")

EDITS = (Edit(4133), Edit(574, 0.125))


def arm(*tokens):
    return Arm("".join(tokens), tuple(range(len(tokens))), tokens, tuple(-0.5 for _ in tokens))


GENERATED = Generated(
    prompt=NURSE,
    sampling=Sampling(max_tokens=8),
    edits=EDITS,
    schedule=(EditsFrom(0, EDITS),),
    rows=2,
    baseline=arm("A", " nurse", " is", " [often]", " female", "."),
    edited=arm("A", " nurse", " can", " be", " anyone", "."),
    first_divergence=2,
    kl=(0.0, 0.0, 0.5, 0.25),
    positions=12,
    inactive_positions=7,
    tokens_per_second=31.4,
)

PUBLISHED = (Edit(4133, 0.125, at="first-step"), Edit(kind="reconstruct", at="first-step"))

SET = (Edit(574, 2.0, "set", "prompt", absolute=14.5),)

PROJECTED = (*EDITS, Edit(9, 0.5, "project", "last"), Edit(1234, -1.5, "steer", "generated", absolute=-9.0))

ARMS = msgspec.structs.replace(
    GENERATED,
    prompt=msgspec.structs.replace(NURSE, prefill="It [is]"),
    sampling=Sampling(8, 0.8, 3, top_k=40, top_p=0.9, min_p=0.05, stop=(".", "\n\n")),
    edits=PROJECTED,
    schedule=(EditsFrom(0, PROJECTED), EditsFrom(2, ()), EditsFrom(4, PUBLISHED)),
    rows=9,
    variants=(SET, PUBLISHED),
    more=(
        OtherArm(0, True, 0, arm("A", " nurse", " is", " a", " nurse"), 10, 2),
        OtherArm(0, True, 1, arm("It", " depends", "."), 8, 0),
        OtherArm(1, False, None, arm("Nurses", " [are]", " women", ".")),
        OtherArm(1, True, None, arm("Nurses", " are", " people", "."), 12, 6),
        OtherArm(1, True, 0, arm("Nurses", " [are]", " kind", "."), 12, 5),
        OtherArm(1, True, 1, arm("Who", " knows", "?"), 9, 0),
    ),
    branched_at=2,
    stopped=True,
)

VARIANT = msgspec.structs.replace(
    GENERATED, variants=((Edit(9),),), more=(OtherArm(0, True, 0, arm("A", " nurse", " is", " a", " nurse"), 10, 10),)
)


def row(feature, tokens, score, g):
    return FeatureRow(feature, tokens, score, 0.61, 1.0, 3.25, g, 1.0, 0.125, 0.0081, 12.34)


RECORDS = {
    "ranking": (
        "ranking",
        Ranking(
            features=(row(4133, (" gender", " sex", "\n"), 1.494, 2.5), row(7, (), -0.2, None)),
            by="score",
            pool="max",
            include_masked=False,
            density_weight=True,
            n_positive=5,
            n_negative=2,
            n_active_features=1234,
            labelings=21,
            p_floor=1 / 21,
            warnings=("5 against 2 prompts has only 21 labelings: no p below 0.0476 is possible.",),
            prompts=(NURSE, NURSE),
        ),
        (),
    ),
    "shown": (
        "shown",
        Shown(
            4133,
            (NURSE, fed("Tea [is] hot.", "Tea", " [is]", " hot", ".")),
            ((9.0, 0, 6.5, 0, 0, 1.5, 0, 0), (0,) * 5),
            7.2,
        ),
        (1,),
    ),
    "described": (
        "described",
        Described(
            feature=4133,
            density=0.0081,
            reference_maximum=6.5,
            reference_count=810,
            reference_tokens=100_000,
            strongest=(
                StrongToken(7.2, " gender", "Which", " is a", "prompt"),
                StrongToken(6.5, "\n", "end [of]", "line", "reference"),
            ),
            promoted=(TokenLogit(5, " gender", 1.25), TokenLogit(6, "[x]", 1.0)),
            suppressed=(TokenLogit(8, " tea", -1.5), TokenLogit(9, "\t", -1.0)),
        ),
        (),
    ),
    "compared": ("generated", GENERATED, (True,)),
    "arms": ("generated", ARMS, (False,)),
    "variant": ("generated", VARIANT, (True,)),
    "edited_alone": ("generated", GENERATED, (False,)),
    "probes": (
        "probe_table",
        ProbeTable(
            EDITS,
            (
                ProbeRow(
                    Probe(
                        "Which gender is a nurse?",
                        "raw",
                        "It is",
                        (Answer("female", (" she",)), Answer("male", (" he",))),
                    ),
                    GENERATED,
                    (AnswerRow("female", 0.614, 0.312), AnswerRow("male", 0.181, 0.28)),
                ),
            ),
        ),
        (),
    ),
    "diagnosis": (
        "diagnosis",
        Diagnosis(
            (
                Check("hook", None, "blocks.1"),
                Check("d_in", True, "16 [ok]"),
                Check("L0", False, "0 features fire per token, " * 6, "Too few [fire]."),
                Check("model", None, "gemma-2-2b-it", "It was trained on gemma-2-2b."),
            ),
            0.0,
            0.8,
            100,
        ),
        (),
    ),
}


def compare(name, text):
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("SAESCOPE_REWRITE_GOLDEN"):
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


FUNCTIONS = {
    "ranking": features.ranking,
    "shown": features.shown,
    "described": card.described,
    "probe_table": texts.probe_table,
    "diagnosis": pair.diagnosis,
}


def show(printer, name, record, more):
    if name in FUNCTIONS:
        printer.result(FUNCTIONS[name], record, *more)
    else:
        getattr(printer, name)(record, *more)


@pytest.mark.parametrize("name", ["compared", "arms", "probes"])
def test_output_in_80_columns(name, capsys):
    method, record, more = RECORDS[name]
    printer = Printer(json=False)
    printer.out = Terminal(width=80)
    show(printer, method, record, more)
    found = capsys.readouterr().out
    assert max(map(len, found.splitlines())) <= 80
    compare(f"{name}_80", found)


@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("name", RECORDS)
def test_output(name, colour, capsys):
    method, record, more = RECORDS[name]
    printer = Printer(json=False)
    options = {"force_terminal": True, "color_system": "truecolor"} if colour else {}
    printer.out = Terminal(width=100, **options)
    show(printer, method, record, more)
    compare(f"{name}_colour" if colour else name, capsys.readouterr().out)


def test_replay_output(capsys):
    parted = ArmReplay("edited", False, 3, " be", " is", 0.00213)
    again = Replayed(False, prompt_ids_same=False, arms=(ArmReplay("baseline", True), parted))
    ranking = RECORDS["ranking"][1]
    printer = Printer(json=False)
    printer.out = Terminal(width=100)
    printer.replayed([(ranking, Replayed(True, None, 1.5e-6)), (GENERATED, again)])
    compare("replayed", capsys.readouterr().out)


def test_an_edit_that_never_fired_is_pointed_out(capsys):
    printer = Printer(json=False)
    printer.generated(msgspec.structs.replace(GENERATED, inactive_positions=12), compare=True)
    assert "the edit changed nothing" in capsys.readouterr().out


def test_an_error_names_the_remedy_on_standard_error(capsys):
    Printer(json=True).error("It [failed].", "Do this.")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: It [failed].\nDo this.\n"

"""--toward and --against as a measure: tracked names, strings of one's own, and what is refused."""

import pytest
import samples

from engine.records import Answer, Probe
from engine.records.errors import UsageError
from engine.records.measures import measure_toward

NURSE, PLUMBER, SISTER = samples.MEASURE.probes

BARE = Probe("What now", "raw")

THREE = Probe("Who?", "raw", "", (*NURSE.answers, Answer("neither", (" they",))))


def made(toward, against, probes=samples.MEASURE.probes):
    notes = []
    return measure_toward(toward, against, probes, notes.append), notes


def answers(probe):
    return {answer.name: answer.strings for answer in probe.answers}


@pytest.mark.parametrize(
    ("toward", "against", "names"),
    [
        ([], [], ("female", "male")),
        (["female"], ["male"], ("female", "male")),
        (["male"], [], ("male", "female")),
        ([], ["female"], ("male", "female")),
    ],
)
def test_tracked_names_are_measured_as_they_are_and_nothing_is_remarked(toward, against, names):
    found, notes = made(toward, against)
    assert (found.toward, found.against) == names
    assert found.probes == samples.MEASURE.probes
    assert notes == []


def test_strings_become_an_extra_answer_of_every_probe_but_questions_of_fact():
    found, notes = made([" girl", " woman"], ["I don't know"], (NURSE, SISTER, BARE))
    assert (found.toward, found.against) == (" girl| woman", "I don't know")
    extra = {" girl| woman": (" girl", " woman"), "I don't know": ("I don't know",)}
    assert answers(found.probes[0]) == answers(NURSE) | extra
    assert found.probes[1] == SISTER
    assert answers(found.probes[2]) == extra
    assert (found.probes[0].covariate, found.probes[0].text) == (NURSE.covariate, NURSE.text)
    assert len(notes) == 3
    assert notes[0] == "' girl' is taken as a string of its own (the probes track female, male)"
    assert notes[2].endswith("; without a space in front it continues the word before it")


def test_a_name_and_a_string_count_together_and_a_string_once():
    found, notes = made(["female", " girl", " she"], ["male"])
    assert found.toward == "female| girl| she"
    assert answers(found.probes[0])["female| girl| she"] == (" she", " her", " girl")
    assert len(notes) == 2


def test_a_probe_that_does_not_track_one_of_the_names_is_left_out():
    found, _ = made(["female", " girl"], ["male"], (NURSE, BARE))
    assert found.probes[1] == BARE


def test_a_name_that_nearly_is_one_is_taken_literally_and_said_to_be():
    found, notes = made(["femal"], ["male"])
    assert answers(found.probes[0])["femal"] == ("femal",)
    assert "'femal' is taken as a string of its own (the probes track female, male); without a space" in notes[0]


@pytest.mark.parametrize(
    ("toward", "against", "probes", "part"),
    [
        ([], [], (), "no probes to measure on"),
        ([" a"], [" b"], (SISTER,), "no probes to measure on"),
        ([], [], (BARE,), "fewer than two answers"),
        (["female"], ["female"], (NURSE,), "against itself"),
        (["female"], [], (THREE,), "--against is missing"),
        ([" girl"], [], (NURSE,), "--against is missing"),
        ([], ["female", " girl"], (NURSE,), "--toward is missing"),
        ([" "], ["male"], (NURSE,), "no letters"),
        (["female"], [" her", " him"], (NURSE,), "' her' would count for both sides"),
        (["female"], ["neither"], (NURSE, Probe("x", answers=(Answer("neither", ("y",)),))), "No probe tracks both"),
    ],
)
def test_what_cannot_be_measured_is_bad_usage(toward, against, probes, part):
    with pytest.raises(UsageError) as caught:
        made(toward, against, probes)
    assert part in caught.value.message
    assert caught.value.remedy

"""What is typed about probes, measures and sets."""

from __future__ import annotations

from math import isfinite

from engine.records import Answer, Attribution, Measure, Probe
from engine.records import attribution as measures
from engine.records.attribution import listed
from engine.records.errors import UsageError
from engine.records.words.numbers import count_in_words
from tui.state.effects import Choice, measure_in_words, strings_in_words, typed_answer, with_answers
from tui.widgets.fields import is_whole
from tui.widgets.forms import Values

ANSWERS_EXAMPLE = "female: female, woman; male: male (a space goes before each)"


def check_probe(values: dict[str, str]) -> str:
    """What is wrong with a probe's form; "" if nothing is."""
    if not values["text"].strip():
        return "A probe needs a question."
    try:
        names = [answer.name for answer in answers_from_text(values["answers"])]
    except ValueError as error:
        return f"tracked answers: {error}."
    try:
        if values["covariate"].strip() and not isfinite(float(values["covariate"])):
            return "covariate: a finite number."
    except ValueError:
        return "covariate: a number, or nothing."
    right = values["right"].strip()
    if right and right not in names:
        return f"right answer: {right!r} is no tracked answer."
    return ""


def answers_from_text(text: str) -> tuple[Answer, ...]:
    """Tracked answers as typed: "female: female, woman; male: male". Each string gets the space before a word.

    Raises ValueError saying what is wrong.
    """
    found = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, colon, strings = part.partition(":")
        forms = tuple(" " + s.strip() for s in strings.split(",") if s.strip())
        if not colon or not name.strip() or not forms:
            raise ValueError(f"{part!r} is not NAME: WORD, WORD")
        found.append(Answer(name.strip(), forms))
    return tuple(found)


def answers_to_text(answers: tuple[Answer, ...]) -> str:
    """The reverse of `answers_from_text`."""
    return "; ".join(f"{a.name}: {', '.join(s.strip() for s in a.strings)}" for a in answers)


EXACT = "those ablated one by one"

ESTIMATED = "estimated ones too"

UNMEASURED, MEASURED = "not measured", "1,000 tokens"

NEUTRAL_TOKENS = 1000

SHARE = 0.5
"""Proposed; a share is of 1."""


TYPED_EXAMPLE = "strings that count, | between; spaces count too"


def answers_to_compare(probes: tuple[Probe, ...]) -> tuple[str, ...]:
    """The names of answers a measure may be about."""
    return measures.answer_names([p for p in probes if not p.right])


def first_choice(names: tuple[str, ...]) -> Choice:
    """The first tracked answer against the second."""
    return Choice(names[0], names[1]) if len(names) > 1 else Choice("", "")


def typed_strings(text: str) -> tuple[str, ...]:
    """As typed: a space in front is part of the string."""
    return tuple(s for s in text.split("|") if s.strip())


def measure_of(values: Values, probes: tuple[Probe, ...]) -> Measure:
    """The measure the fields name. Raises UsageError where an answer is missing."""
    names = list(measures.answer_names(probes))
    sides, typed = [], []
    for side in ("toward", "against"):
        strings = typed_strings(values[f"typed_{side}"])
        if strings:
            typed.append(typed_answer(strings, names))
            sides.append(typed[-1].name)
        elif values.get(side):
            sides.append(values[side])
        else:
            raise UsageError(
                "The probes track fewer than two answers, so there is nothing to compare.",
                "Give a probe two answers (enter on it in pane 1), or type both here.",
            )
    known: dict[str, Answer] = {answer.name: answer for answer in typed}
    return Measure(with_answers(probes, tuple(known.values())), sides[0], sides[1])


def summary_of(measure: Measure) -> str:
    """What is measured, on what, and what is left out."""
    probes = measures.check_measure(measure)
    answers = {answer.name: answer.strings for answer in probes[0].answers}
    lines = [
        f"log p of {strings_in_words(answers[measure.toward])}",
        f"− log p of {strings_in_words(answers[measure.against])}",
        measure_in_words(measure),
    ]
    facts = len(measures.facts(measure.probes))
    others = len(measure.probes) - facts - len(probes)
    if others:
        lines.append(f"{count_in_words(others, 'probe')} left out: not both answers")
    if facts:
        lines.append(f"{count_in_words(facts, 'question')} of fact left out")
    return "\n".join(lines)


def candidates(found: Attribution, estimated: bool) -> tuple[int, ...]:
    """Features whose ablation takes some of the measure away, most first; ablated ones before `estimated` ones."""
    rows = [row for row in listed(found) if (measures.share_of_baseline(found, row) or 0) > 0]
    rows.sort(key=lambda row: (row.exact is None, -(measures.share_of_baseline(found, row) or 0)))
    return tuple(row.feature for row in rows if estimated or row.exact is not None)


def share_of(found: Attribution, features: tuple[int, ...]) -> float:
    """What these features take away if each one's share counts by itself."""
    return sum(measures.share_of_baseline(found, row) or 0 for row in found.features if row.feature in features)


def check_set(values: Values) -> str:
    """What is wrong with the search's fields; "" if nothing is."""
    try:
        share, penalty = float(values["share"]), float(values["penalty"])
    except ValueError:
        return "Share and penalty are numbers."
    if not 0 < share <= 100:
        return "Share wanted: above 0, at most 100 %."
    if not 0 <= penalty < float("inf"):
        return "Penalty: 0 or more."
    if not is_whole(values["most"], 1, 1000):
        return "Most features: a whole number from 1 to 1,000."
    return ""

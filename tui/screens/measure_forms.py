"""The forms of probes, measures and smallest sets: reading and checking what was typed."""

from __future__ import annotations

from math import isfinite

from engine.records import Answer, Attribution, Measure, Probe
from engine.records import attribution as measures
from engine.records.errors import UsageError
from engine.records.measures import typed_answer, with_answers
from engine.records.words.attribution import measure_in_short
from engine.records.words.numbers import count
from tui.state.effects import Choice, strings_in_words
from tui.widgets.fields import is_whole
from tui.widgets.forms import Values

ANSWERS_EXAMPLE = "female: female, woman; male: male (a space goes before each)"


def check_probe(values: dict[str, str]) -> str:
    """Say what is wrong with a probe's form; "" if nothing is."""
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
    """Return tracked answers as typed: "female: female, woman; male: male". Each string gets a leading space.

    Raises ValueError saying what is wrong.
    """
    answers = []
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, colon, strings = part.partition(":")
        forms = tuple(" " + s.strip() for s in strings.split(",") if s.strip())
        if not colon or not name.strip() or not forms:
            raise ValueError(f"{part!r} is not NAME: WORD, WORD")
        answers.append(Answer(name.strip(), forms))
    return tuple(answers)


def answers_to_text(answers: tuple[Answer, ...]) -> str:
    """Return tracked answers as the user types them; the inverse of `answers_from_text`."""
    return "; ".join(f"{a.name}: {', '.join(s.strip() for s in a.strings)}" for a in answers)


EXACT = "those ablated one by one"

ESTIMATED = "estimated ones too"

UNMEASURED, MEASURED = "not measured", "1,000 tokens"

NEUTRAL_TOKENS = 1000

SHARE = 0.5
"""The proposed share of the measure that the set should carry, of 1."""


TYPED_EXAMPLE = "strings that count, | between; spaces count too"


def answers_to_compare(probes: tuple[Probe, ...]) -> tuple[str, ...]:
    """Return the names of answers that a measure may compare: those of probes that are no questions of fact."""
    return measures.answer_names([p for p in probes if not p.right])


def first_choice(names: tuple[str, ...]) -> Choice:
    """Return the choice of the first tracked answer against the second; empty if there are fewer than two."""
    return Choice(names[0], names[1]) if len(names) > 1 else Choice("", "")


def typed_strings(text: str) -> tuple[str, ...]:
    """Return the strings of a field, separated by |; spaces around them are part of them."""
    return tuple(s for s in text.split("|") if s.strip())


def measure_of(values: Values, probes: tuple[Probe, ...]) -> Measure:
    """Return the measure that the fields name. Raises UsageError if an answer is missing."""
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
    """Return the summary of a measure: what is measured on which probes, and which are left out. Raises UsageError."""
    probes = measures.check_measure(measure)
    answers = {answer.name: answer.strings for answer in probes[0].answers}
    lines = [
        f"log p of {strings_in_words(answers[measure.toward])}",
        f"− log p of {strings_in_words(answers[measure.against])}",
        measure_in_short(measure),
    ]
    facts = len(measures.facts(measure.probes))
    incomplete = len(measure.probes) - facts - len(probes)
    if incomplete:
        lines.append(f"{count(incomplete, 'probe')} left out: not both answers")
    if facts:
        lines.append(f"{count(facts, 'question')} of fact left out")
    return "\n".join(lines)


def share_of(effects: Attribution, features: tuple[int, ...]) -> float:
    """Return the sum of the shares of the measure that ablating each of these features takes away."""
    return sum(measures.share_of_baseline(effects, row) or 0 for row in effects.features if row.feature in features)


def check_set(values: Values) -> str:
    """Say what is wrong with the fields of a search for a set; "" if nothing is."""
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

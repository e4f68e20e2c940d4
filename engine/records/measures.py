"""Which measure is meant: tracked answers or the user's own strings, and whether the probes still measure it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from engine.records.attribution import Measure, answer_names, check_measure, default_measure, measured_probes
from engine.records.errors import UsageError
from engine.records.prompts import Answer, Probe


def measure_toward(
    toward: Sequence[str], against: Sequence[str], probes: Sequence[Probe], note: Callable[[str], None]
) -> Measure:
    """Return the measure that --toward and --against ask for, by default the first tracked answer against the second.

    A string that is not a tracked answer's name becomes an answer of its own; `note` gets a remark on it. Raises
    UsageError.
    """
    if not any(not probe.right for probe in probes):
        raise UsageError("The prompt set has no probes to measure on.", "Add a [[probe]] to it.")
    names = answer_names([probe for probe in probes if not probe.right])
    if not toward and not against:
        return default_measure(probes)
    sides = toward or other_side(against, names, "--toward"), against or other_side(toward, names, "--against")
    for value in dict.fromkeys([*sides[0], *sides[1]]):
        if value not in names:
            note(literally(value, names))
    extended = tuple(with_answer(with_answer(probe, sides[0], names), sides[1], names) for probe in probes)
    measure = Measure(extended, "|".join(sides[0]), "|".join(sides[1]))
    for probe in check_measure(measure):
        strings = {answer.name: answer.strings for answer in probe.answers}
        both = sorted(set(strings[measure.toward]) & set(strings[measure.against]))
        if both:
            raise UsageError(f"{both[0]!r} would count for both sides.", "Give --toward and --against other strings.")
    return measure


def other_side(one_side: Sequence[str], names: Sequence[str], option: str) -> list[str]:
    """Return the only other tracked answer. Raises UsageError if it is not clear which one that is."""
    others = [name for name in names if name not in one_side]
    if len(one_side) != 1 or one_side[0] not in names or len(others) != 1:
        known = f"One of {', '.join(names)}, or" if names else "Give"
        raise UsageError(f"What is to be measured with {one_side[0]!r}? {option} is missing.", f"{known} a string.")
    return others


def literally(value: str, names: Sequence[str]) -> str:
    """Return a note saying that the string is taken as an answer of its own. Raises UsageError for an empty string."""
    if not value.strip():
        raise UsageError("An answer to measure has no letters.", 'For example --toward " yes" --against " no".')
    tracked = f"the probes track {', '.join(names)}" if names else "the probes track no answers"
    space = "" if value[0].isspace() else "; without a space in front it continues the word before it"
    return f"{value!r} is taken as a string of its own ({tracked}){space}"


def with_answer(probe: Probe, values: Sequence[str], names: Sequence[str]) -> Probe:
    """Return the probe with one more answer: these strings, and the strings of the tracked answers named among them.

    The probe stays as it is if a single tracked answer is asked for, if it does not track one of those named, or if it
    is a question of fact.
    """
    own = {answer.name: answer.strings for answer in probe.answers}
    missing = [value for value in values if value in names and value not in own]
    if missing or (len(values) == 1 and values[0] in names):
        return probe
    strings = [string for value in values for string in (own[value] if value in names else (value,))]
    return with_answers((probe,), (Answer("|".join(values), tuple(dict.fromkeys(strings))),))[0]


def again(measure: Measure, probes: Sequence[Probe]) -> Measure:
    """Return the same measure on these probes, with the answers typed for it added again if no probe has them."""
    measured = measured_probes(measure)
    known = answer_names(probes)
    wanted = measured[0].answers if measured else ()
    typed = [a for a in wanted if a.name in (measure.toward, measure.against) and is_typed(a) and a.name not in known]
    return Measure(with_answers(probes, typed), measure.toward, measure.against)


TYPED = " (typed)"
"""Ends the name of a typed answer whose strings would otherwise give it the name of another answer."""


def typed_answer(strings: tuple[str, ...], names: Sequence[str]) -> Answer:
    """Return an answer named after its strings; `names` are those already taken."""
    name = "|".join(strings)
    return Answer(name + TYPED if name in names else name, strings)


def is_typed(answer: Answer) -> bool:
    """Return whether the answer was typed for a measure."""
    return answer.name.removesuffix(TYPED) == "|".join(answer.strings)


def with_answers(probes: Sequence[Probe], answers: Sequence[Answer]) -> tuple[Probe, ...]:
    """Return the probes with more answers to track; questions of fact stay as they are."""
    return tuple(p if p.right else replace(p, answers=(*p.answers, *answers)) for p in probes)


def is_current(measure: Measure, probes: Sequence[Probe]) -> bool:
    """Return whether these probes still measure the same thing."""
    return bool(essence(measure)) and essence(measure) == essence(again(measure, probes))


def essence(measure: Measure) -> list[Probe]:
    """Return what the measure depends on: its probes, each with the two measured answers only."""
    names = (measure.toward, measure.against)
    return [
        replace(p, answers=tuple(sorted((a for a in p.answers if a.name in names), key=lambda a: a.name)))
        for p in measured_probes(measure)
    ]

"""Which measure is meant: tracked answers or strings of one's own, and whether probes still measure it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from engine.records.attribution import Measure, answer_names, check_measure, default_measure, measured_probes
from engine.records.errors import UsageError
from engine.records.prompts import Answer, Probe


def measure_toward(
    toward: Sequence[str], against: Sequence[str], probes: Sequence[Probe], note: Callable[[str], None]
) -> Measure:
    """The measure asked for, by default the first tracked answer against the second. Raises UsageError."""
    if not any(not probe.right for probe in probes):
        raise UsageError("The prompt set has no probes to measure on.", "Add a [[probe]] to it.")
    names = answer_names([probe for probe in probes if not probe.right])
    if not toward and not against:
        return default_measure(probes)
    sides = toward or other_side(against, names, "--toward"), against or other_side(toward, names, "--against")
    for value in dict.fromkeys([*sides[0], *sides[1]]):
        if value not in names:
            note(literally(value, names))
    asked = tuple(with_answer(with_answer(probe, sides[0], names), sides[1], names) for probe in probes)
    found = Measure(asked, "|".join(sides[0]), "|".join(sides[1]))
    for probe in check_measure(found):
        strings = {answer.name: answer.strings for answer in probe.answers}
        both = sorted(set(strings[found.toward]) & set(strings[found.against]))
        if both:
            raise UsageError(f"{both[0]!r} would count for both sides.", "Give --toward and --against other strings.")
    return found


def other_side(given: Sequence[str], names: Sequence[str], option: str) -> list[str]:
    """The one other tracked answer. Raises UsageError where that is not clear."""
    others = [name for name in names if name not in given]
    if len(given) != 1 or given[0] not in names or len(others) != 1:
        known = f"One of {', '.join(names)}, or" if names else "Give"
        raise UsageError(f"What is to be measured with {given[0]!r}? {option} is missing.", f"{known} a string.")
    return others


def literally(value: str, names: Sequence[str]) -> str:
    """What is done with a string that is no tracked answer's name. Raises UsageError for an empty one."""
    if not value.strip():
        raise UsageError("An answer to measure has no letters.", 'For example --toward " yes" --against " no".')
    tracked = f"the probes track {', '.join(names)}" if names else "the probes track no answers"
    space = "" if value[0].isspace() else "; without a space in front it continues the word before it"
    return f"{value!r} is taken as a string of its own ({tracked}){space}"


def with_answer(probe: Probe, values: Sequence[str], names: Sequence[str]) -> Probe:
    """The probe with an extra answer: these strings, and the strings of these tracked answers.

    As it is where a single tracked answer is asked for, where it does not track one of them, and where it is a
    question of fact.
    """
    own = {answer.name: answer.strings for answer in probe.answers}
    missing = [value for value in values if value in names and value not in own]
    if missing or (len(values) == 1 and values[0] in names):
        return probe
    strings = [string for value in values for string in (own[value] if value in names else (value,))]
    return with_answers((probe,), (Answer("|".join(values), tuple(dict.fromkeys(strings))),))[0]


def again(measure: Measure, probes: Sequence[Probe]) -> Measure:
    """The same measure on these probes. Answers that were typed for it, and are in no probe, are put in again."""
    measured = measured_probes(measure)
    known = answer_names(probes)
    wanted = measured[0].answers if measured else ()
    typed = [a for a in wanted if a.name in (measure.toward, measure.against) and is_typed(a) and a.name not in known]
    return Measure(with_answers(probes, typed), measure.toward, measure.against)


TYPED = " (typed)"
"""Marks a typed answer whose strings are the name of another one."""


def typed_answer(strings: tuple[str, ...], names: Sequence[str]) -> Answer:
    """An answer that is called what it consists of; `names` are taken."""
    name = "|".join(strings)
    return Answer(name + TYPED if name in names else name, strings)


def is_typed(answer: Answer) -> bool:
    """Whether it was typed for a measure."""
    return answer.name.removesuffix(TYPED) == "|".join(answer.strings)


def with_answers(probes: Sequence[Probe], answers: Sequence[Answer]) -> tuple[Probe, ...]:
    """The probes with more answers to track; questions of fact stay as they are."""
    return tuple(p if p.right else replace(p, answers=(*p.answers, *answers)) for p in probes)


def is_current(measure: Measure, probes: Sequence[Probe]) -> bool:
    """Whether these probes still measure that."""
    return bool(essence(measure)) and essence(measure) == essence(again(measure, probes))


def essence(measure: Measure) -> list[Probe]:
    """What the measure depends on: its probes, with nothing but the two answers."""
    names = (measure.toward, measure.against)
    return [
        replace(p, answers=tuple(sorted((a for a in p.answers if a.name in names), key=lambda a: a.name)))
        for p in measured_probes(measure)
    ]

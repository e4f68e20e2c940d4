"""--toward and --against as a measure: names of answers that the probes track, or strings of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec.structs import replace

from engine import measures
from engine.errors import UsageError
from engine.records import Answer, Measure, Probe


def measure(
    toward: Sequence[str], against: Sequence[str], probes: Sequence[Probe], note: Callable[[str], None]
) -> Measure:
    """The measure asked for, by default the first tracked answer against the second. Raises UsageError."""
    if not any(not probe.right for probe in probes):
        raise UsageError("The prompt set has no probes to measure on.", "Add a [[probe]] to it.")
    names = measures.answer_names([probe for probe in probes if not probe.right])
    if not toward and not against:
        return measures.default_measure(probes)
    sides = toward or other_side(against, names, "--toward"), against or other_side(toward, names, "--against")
    for value in dict.fromkeys([*sides[0], *sides[1]]):
        if value not in names:
            note(literally(value, names))
    asked = tuple(with_answer(with_answer(probe, sides[0], names), sides[1], names) for probe in probes)
    found = Measure(asked, "|".join(sides[0]), "|".join(sides[1]))
    for probe in measures.check(found):
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
    if probe.right or missing or (len(values) == 1 and values[0] in names):
        return probe
    strings = [string for value in values for string in (own[value] if value in names else (value,))]
    return replace(probe, answers=(*probe.answers, Answer("|".join(values), tuple(dict.fromkeys(strings)))))

"""What an attribution says of single features, in the words that it has earned. No widgets: records in, words out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from engine.records import Answer, AttributedFeature, Attribution, Measure, Probe
from engine.records import attribution as measures
from engine.records.words.numbers import count_in_words
from engine.records.words.tokens import visible

replace = msgspec.structs.replace

ALL, LISTED = "all features", "the leaderboard's"


@dataclass(frozen=True)
class Choice:
    """What the user wants measured: two tracked answers, or strings typed in their place; among which features."""

    toward: str
    against: str
    typed_toward: str = ""
    typed_against: str = ""
    among: str = ALL


class Effects:
    """An attribution, by feature."""

    def __init__(self, found: Attribution) -> None:
        self.found = found
        self._rows = {row.feature: row for row in found.features}

    def row(self, feature: int) -> AttributedFeature | None:
        """What it says of a feature; None where it has no row."""
        return self._rows.get(feature)

    def evidence(self, feature: int) -> measures.Evidence:
        """What may be said of a feature."""
        return measures.evidence(self.row(feature), self.found.n_controls)

    def size(self, feature: int) -> float:
        """How much it changes the measure, either way; -1 for a feature without a row, so that it sorts last."""
        row = self.row(feature)
        return -1.0 if row is None else abs(measures.signed_effect(row))

    def words(self, feature: int) -> str:
        """The effect, "≈" before an estimate; "–" for a feature without a row."""
        row = self.row(feature)
        return "–" if row is None else ("≈" if row.exact is None else "") + effect_in_words(self.found, row)

    def influence(self, features: Sequence[int]) -> int:
        """How many of them are shown to influence the answer."""
        return sum(self.evidence(feature) == "influences" for feature in features)


def effect_in_words(found: Attribution, row: AttributedFeature) -> str:
    """Such as "−12%": ablating it takes 12 % of the measure away. In the measure's unit where that is 0."""
    share = measures.share_of_baseline(found, row)
    return number(measures.signed_effect(row), 3) if share is None else percent(-share)


def percent(share: float) -> str:
    """With a sign, and a decimal where it is small; "0%" where that shows nothing."""
    if abs(share) < 0.0005:
        return "0%"
    return f"{share:+.{0 if abs(share) >= 0.0995 else 1}%}".replace("-", "−")


def number(value: float, digits: int = 2) -> str:
    """With a sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


# ---- the measure


def again(measure: Measure, probes: Sequence[Probe]) -> Measure:
    """The same measure on these probes. Answers that were typed for it, and are in no probe, are put in again."""
    measured = measures.measured_probes(measure)
    known = measures.answer_names(probes)
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
        for p in measures.measured_probes(measure)
    ]


def measure_in_words(measure: Measure) -> str:
    """Such as "female against male · mean over 4 probes"."""
    probes = measures.measured_probes(measure)
    how = "slope on the covariate" if measures.is_slope(probes) else "mean"
    return f"{measure.toward} against {measure.against} · {how} over {count_in_words(len(probes), 'probe')}"


def strings_in_words(strings: Sequence[str]) -> str:
    """In quotation marks, so that a space in front is seen."""
    return " ".join(f"“{visible(s)}”" for s in strings)

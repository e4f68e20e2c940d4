"""What an attribution says of single features, in the words that it has earned. No widgets: records in, words out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.records import AttributedFeature, Attribution
from engine.records import attribution as measures
from engine.records.words.tokens import visible

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


def strings_in_words(strings: Sequence[str]) -> str:
    """In quotation marks, so that a space in front is seen."""
    return " ".join(f"“{visible(s)}”" for s in strings)

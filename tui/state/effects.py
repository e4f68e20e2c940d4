"""Effects of single features from an attribution, in words no stronger than the evidence. No widgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.records import AttributedFeature, Attribution
from engine.records import attribution as measures
from engine.records.words.safe_text import visible

ALL, LISTED = "all features", "the leaderboard's"


@dataclass(frozen=True)
class Choice:
    """The user's choice of a measure, by tracked answers or by typed strings, and of the features to attribute to."""

    toward: str
    against: str
    typed_toward: str = ""
    typed_against: str = ""
    among: str = ALL


class Effects:
    """The effects of an attribution, by feature."""

    def __init__(self, attribution: Attribution) -> None:
        self.found = attribution
        self._rows = {row.feature: row for row in attribution.features}

    def row(self, feature: int) -> AttributedFeature | None:
        """Return a feature's row; None if it has none."""
        return self._rows.get(feature)

    def evidence(self, feature: int) -> measures.Evidence:
        """Return what the evidence allows to say of a feature."""
        return measures.evidence(self.row(feature), self.found.n_controls)

    def size(self, feature: int) -> float:
        """Return the size of a feature's effect; -1 for a feature without a row, so that it sorts last."""
        row = self.row(feature)
        return -1.0 if row is None else abs(measures.signed_effect(row))

    def words(self, feature: int) -> str:
        """Return a feature's effect in words, "≈" before an estimate; "–" for a feature without a row."""
        row = self.row(feature)
        return "–" if row is None else ("≈" if row.exact is None else "") + effect_in_words(self.found, row)

    def influence(self, features: Sequence[int]) -> int:
        """Return how many of these features are shown to influence the answer."""
        return sum(self.evidence(feature) == "influences" for feature in features)


def effect_in_words(attribution: Attribution, row: AttributedFeature) -> str:
    """Return a row's effect in words: "−12%" if ablating takes 12 % of the measure away.

    In the measure's unit where its baseline is 0.
    """
    share = measures.share_of_baseline(attribution, row)
    return number(measures.signed_effect(row), 3) if share is None else percent(-share)


def percent(share: float) -> str:
    """Format a share as percent with a sign, with a decimal where it is small; "0%" where that shows none."""
    if abs(share) < 0.0005:
        return "0%"
    return f"{share:+.{0 if abs(share) >= 0.0995 else 1}%}".replace("-", "−")


def number(value: float, digits: int = 2) -> str:
    """Format a number with a sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def strings_in_words(strings: Sequence[str]) -> str:
    """Put strings in quotation marks, so that leading spaces are seen."""
    return " ".join(f"“{visible(s)}”" for s in strings)

"""The rows of csv tables, a function per kind of result."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from engine.records import (
    Attribution,
    Generated,
    MinimalSet,
    ProbeTable,
    Ranking,
)
from engine.records import attribution as measures
from engine.records.attribution import set_evidence
from engine.records.features import BY_NAME
from engine.records.texts import Comparison, comparisons
from engine.records.words.edits import edits_in_words
from engine.records.words.texts import changes_in_words, sampling_in_words

ROW_COLUMNS = ("estimate", "exact", "activation", "density", "percentile", "control")


def feature_rows(ranking: Ranking) -> Iterator[dict[str, Any]]:
    """Yield the rows of a ranking."""
    for rank, row in enumerate(ranking.features, 1):
        numbers = {name: BY_NAME[name].value(row) for name in row.__struct_fields__ if name in BY_NAME}
        yield {"rank": rank, "feature": row.feature, "tokens": " | ".join(row.tokens), **numbers}


def generation_rows(result: Generated) -> Iterator[dict[str, Any]]:
    """Yield a row per edited text; further samples and variants have their own, each with its sample's baseline."""
    for pair in comparisons(result):
        yield pair_values(result, pair)


def pair_values(result: Generated, pair: Comparison) -> dict[str, Any]:
    """Return the table's values for one edited text; samples and variants are counted from 1."""
    first = pair.sample == 0 and pair.variant is None
    return {
        "prompt": result.prompt.text,
        "edits": edits_in_words(pair.edits),
        "later_edits": "; ".join(changes_in_words(result.schedule)) if pair.variant is None else "",
        "sample": pair.sample + 1,
        "variant": None if pair.variant is None else pair.variant + 1,
        "prefill": result.prompt.prefill,
        "sampling": sampling_in_words(result.sampling),
        "baseline": pair.baseline.text,
        "edited": pair.edited.text,
        # measured on the first pair of texts only
        "first_divergence": result.first_divergence if first else None,
        "kl_mean": mean_kl(result) if first else None,
        "inactive_positions": pair.inactive_positions,
        "positions": pair.positions,
    }


def mean_kl(result: Generated) -> float | None:
    """Return the mean KL in nats per baseline token; None if it was not measured."""
    return sum(result.kl) / len(result.kl) if result.kl else None


def probe_rows(table: ProbeTable) -> Iterator[dict[str, Any]]:
    """Yield a row per probe and tracked answer; a probe without answers has one row."""
    for row in table.rows:
        for answer in row.answers or (None,):
            yield {
                "probe": row.probe.text,
                "prefill": row.probe.prefill,
                "edits": edits_in_words(table.edits),
                "answer": answer.name if answer else None,
                "p_baseline": answer.baseline if answer else None,
                "p_edited": answer.edited if answer else None,
                "baseline": row.generated.baseline.text,
                "edited": row.generated.edited.text,
            }


def attribution_rows(attribution: Attribution) -> Iterator[dict[str, Any]]:
    """Yield the rows of an attribution, controls included."""
    for rank, row in enumerate(attribution.features, 1):
        yield {
            "toward": attribution.request.measure.toward,
            "against": attribution.request.measure.against,
            "unit": measures.unit_of(attribution.slope),
            "baseline": attribution.baseline,
            "rank": rank,
            "feature": row.feature,
            "tokens": " | ".join(row.tokens),
            "share": measures.share_of_baseline(attribution, row),
            **{name: getattr(row, name) for name in ROW_COLUMNS},
            "evidence": measures.evidence(row, attribution.n_controls),
        }


def set_rows(minimal_set: MinimalSet) -> Iterator[dict[str, Any]]:
    """Yield the members of a minimal set; an empty set has no rows."""
    for place, member in enumerate(minimal_set.members, 1):
        yield {
            "toward": minimal_set.request.measure.toward,
            "against": minimal_set.request.measure.against,
            "unit": measures.unit_of(minimal_set.slope),
            "baseline": minimal_set.baseline,
            "ablated": minimal_set.ablated,
            "share": minimal_set.share,
            "share_asked": minimal_set.request.share,
            "place": place,
            "feature": member.feature,
            "tokens": " | ".join(member.tokens),
            "share_with": member.share_with,
            "share_without": member.share_without,
            "facts_kept": minimal_set.facts_kept,
            "kl": minimal_set.kl,
            "set_evidence": set_evidence(minimal_set),
        }

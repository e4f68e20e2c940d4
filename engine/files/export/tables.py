"""Session results as csv: one table a file."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args

from engine.files.session import Session
from engine.records import (
    Attribution,
    FeatureRow,
    Generated,
    MinimalSet,
    ProbeTable,
    Ranking,
)
from engine.records import attribution as measures
from engine.records.attribution import set_evidence
from engine.records.errors import UsageError
from engine.records.texts import Comparison, comparisons
from engine.records.words.edits import edits_in_words
from engine.records.words.texts import changes_in_words, sampling_in_words
from engine.records.words.tokens import safe

Table = Literal["features", "generations", "probes", "attributions", "sets"]

ROW_COLUMNS = ("estimate", "exact", "activation", "density", "percentile", "control")


def to_csv(session: Session, table: Table) -> str:
    """One table: such as leaderboard rows. Raises UsageError where the session has none."""
    rows = list(ROWS[table](session))
    if not rows:
        raise UsageError(f"The session has no {table}.", f"Choose another --table: {', '.join(TABLES)}.")
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return safe(out.getvalue())


def feature_rows(session: Session) -> Iterator[dict[str, Any]]:
    """Rows of every ranking, numbered by ranking."""
    for number, ranking in enumerate(session.of(Ranking)):
        for rank, row in enumerate(ranking.features, 1):
            values = {name: getattr(row, name) for name in FeatureRow.__struct_fields__}
            yield {"ranking": number, "rank": rank, **values, "tokens": " | ".join(row.tokens)}


def generation_rows(session: Session) -> Iterator[dict[str, Any]]:
    """One row an edited text: further samples and variants have rows of their own, each with its sample's baseline."""
    for number, result in enumerate(session.of(Generated)):
        for pair in comparisons(result):
            yield {"generation": number, **pair_values(result, pair)}


def pair_values(result: Generated, pair: Comparison) -> dict[str, Any]:
    """What a table shows of one edited text; samples and variants are counted from 1."""
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
        # measured on the first texts alone
        "first_divergence": result.first_divergence if first else None,
        "kl_mean": mean_kl(result) if first else None,
        "inactive_positions": pair.inactive_positions,
        "positions": pair.positions,
    }


def mean_kl(result: Generated) -> float | None:
    """In nats per baseline token; None where it was not measured."""
    return sum(result.kl) / len(result.kl) if result.kl else None


def probe_rows(session: Session) -> Iterator[dict[str, Any]]:
    """One row a probe and tracked answer; a probe without any still has its row."""
    for number, table in enumerate(session.of(ProbeTable)):
        for row in table.rows:
            for answer in row.answers or (None,):
                yield {
                    "table": number,
                    "probe": row.probe.text,
                    "prefill": row.probe.prefill,
                    "edits": edits_in_words(table.edits),
                    "answer": answer.name if answer else None,
                    "p_baseline": answer.baseline if answer else None,
                    "p_edited": answer.edited if answer else None,
                    "baseline": row.generated.baseline.text,
                    "edited": row.generated.edited.text,
                }


def attribution_rows(session: Session) -> Iterator[dict[str, Any]]:
    """Rows of every attribution, features that are there for comparison included."""
    for number, found in enumerate(session.of(Attribution)):
        for rank, row in enumerate(found.features, 1):
            yield {
                "attribution": number,
                "toward": found.request.measure.toward,
                "against": found.request.measure.against,
                "unit": measures.unit_of(found.slope),
                "baseline": found.baseline,
                "rank": rank,
                "feature": row.feature,
                "tokens": " | ".join(row.tokens),
                "share": measures.share_of_baseline(found, row),
                **{name: getattr(row, name) for name in ROW_COLUMNS},
                "evidence": measures.evidence(row, found.n_controls),
            }


def set_rows(session: Session) -> Iterator[dict[str, Any]]:
    """Members of every minimal set; one in which no feature is has none."""
    for number, found in enumerate(session.of(MinimalSet)):
        for place, member in enumerate(found.members, 1):
            yield {
                "set": number,
                "toward": found.request.measure.toward,
                "against": found.request.measure.against,
                "unit": measures.unit_of(found.slope),
                "baseline": found.baseline,
                "ablated": found.ablated,
                "share": found.share,
                "share_asked": found.request.share,
                "place": place,
                "feature": member.feature,
                "tokens": " | ".join(member.tokens),
                "share_with": member.share_with,
                "share_without": member.share_without,
                "facts_kept": found.facts_kept,
                "kl": found.kl,
                "set_evidence": set_evidence(found),
            }


ROWS: dict[Table, Callable[[Session], Iterator[dict[str, Any]]]] = {
    "features": feature_rows,
    "generations": generation_rows,
    "probes": probe_rows,
    "attributions": attribution_rows,
    "sets": set_rows,
}

TABLES: tuple[Table, ...] = get_args(Table)

"""Session results as csv, jsonl or markdown. Writes text; knows nothing about torch or screens."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from engine.errors import UsageError
from engine.records import Edit, Generated, Loaded, ProbeTable, Ranking
from engine.session import Session

Table = Literal["features", "generations", "probes"]
EDITS_SPELLED_OUT = 8
FEATURE_COLUMNS = (
    "feature", "tokens", "score", "diff", "auroc", "t", "g", "coverage_positive", "coverage_negative", "density",
    "seed", "p", "loo",
)  # fmt: skip


def to_jsonl(session: Session) -> str:
    """Every result on a line of its own, each with its type; the first line says what was loaded.

    Where nothing was, it holds the Load that would have loaded it.
    """
    records = [session.loaded or session.load, *session.rankings, *session.generations, *session.probe_tables]
    return "".join(msgspec.json.encode(record).decode() + "\n" for record in records)


def to_csv(session: Session, table: Table) -> str:
    """One table: leaderboard rows, generations or probes. Raises UsageError where the session has none."""
    rows = list({"features": feature_rows, "generations": generation_rows, "probes": probe_rows}[table](session))
    if not rows:
        raise UsageError(f"The session has no {table}.", "Choose another --table: features, generations or probes.")
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def feature_rows(session: Session) -> Iterator[dict[str, Any]]:
    """Rows of every ranking, numbered by ranking."""
    for number, ranking in enumerate(session.rankings):
        for rank, row in enumerate(ranking.features, 1):
            values = {name: getattr(row, name) for name in FEATURE_COLUMNS}
            yield {"ranking": number, "rank": rank, **values, "tokens": " | ".join(row.tokens)}


def generation_rows(session: Session) -> Iterator[dict[str, Any]]:
    """One row a generation."""
    for number, result in enumerate(session.generations):
        yield {"generation": number, **generation_values(result)}


def generation_values(result: Generated) -> dict[str, Any]:
    """What a table shows of one generation."""
    return {
        "prompt": result.prompt.text,
        "edits": edits_in_words(result.edits),
        "baseline": result.baseline.text,
        "edited": result.edited.text,
        "first_divergence": result.first_divergence,
        "kl_mean": sum(result.kl) / len(result.kl) if result.kl else None,
        "inactive_positions": result.inactive_positions,
        "positions": result.positions,
    }


def probe_rows(session: Session) -> Iterator[dict[str, Any]]:
    """One row a probe and tracked answer; a probe without any still has its row."""
    for number, table in enumerate(session.probe_tables):
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


def edits_in_words(edits: tuple[Edit, ...]) -> str:
    """Such as "4133 ablated, 574 x 0.125"; many edits are counted, their list is in the record."""
    if len(edits) > EDITS_SPELLED_OUT:
        ablated = sum(e.scale == 0 for e in edits)
        rest = f", {len(edits) - ablated} scaled" if ablated < len(edits) else ""
        return f"{ablated} features ablated{rest}"
    return ", ".join(f"{e.feature} ablated" if e.scale == 0 else f"{e.feature} x {e.scale:g}" for e in edits) or "none"


def to_markdown(session: Session) -> str:
    """A report to read: what was loaded, the leaderboards, the texts side by side, the probes."""
    lines = ["# saescope session", "", f"- written {session.created}", *loaded_lines(session.loaded), ""]
    for ranking in session.rankings:
        lines += ranking_section(ranking)
    for result in session.generations:
        lines += generation_section(result)
    for table in session.probe_tables:
        lines += probe_section(table)
    return "\n".join(lines)


def loaded_lines(loaded: Loaded | None) -> list[str]:
    """What was loaded, as list items."""
    if loaded is None:
        return ["- nothing was loaded"]
    return [
        f"- model {loaded.model} ({loaded.dtype}, {loaded.device}), SAE {loaded.sae}: {loaded.d_sae:,} features "
        f"at {loaded.hook}",
        f"- model fingerprint {loaded.model_fingerprint[:16]}, SAE fingerprint {loaded.sae_fingerprint[:16]}",
    ]


def ranking_section(ranking: Ranking) -> list[str]:
    """One leaderboard."""
    names = ("feature", "tokens", "score", "auroc", "t", "density")
    rows = [
        [str(r.feature), ", ".join(r.tokens), f"{r.score:.3f}", f"{r.auroc:.2f}", f"{r.t:.2f}", f"{r.density:.4f}"]
        for r in ranking.features
    ]
    heading = f"## Features that tell {ranking.n_positive} positive from {ranking.n_negative} negative prompts"
    notes = [f"*{warning}*" for warning in ranking.warnings]
    return [
        heading,
        "",
        *grid(names, rows),
        "",
        "These features are associated with the behaviour, no more.",
        *notes,
        "",
    ]


def generation_section(result: Generated) -> list[str]:
    """One generation, both arms."""
    values = generation_values(result)
    kl = "" if values["kl_mean"] is None else f", mean KL {values['kl_mean']:.4f} nats per baseline token"
    return [
        f"## {one_line(result.prompt.text)}",
        "",
        f"Edits: {values['edits']}; inactive at {result.inactive_positions} of {result.positions} positions{kl}.",
        "",
        *grid(("baseline", "edited"), [[result.baseline.text, result.edited.text]]),
        "",
    ]


def probe_section(table: ProbeTable) -> list[str]:
    """One table of probes."""
    rows = []
    for row in table.rows:
        answers = "; ".join(f"{a.name} {a.baseline:.3f} → {a.edited:.3f}" for a in row.answers)
        rows.append([row.probe.text, row.generated.baseline.text, row.generated.edited.text, answers])
    names = ("probe", "baseline", "edited", "answers after the prefill")
    return [f"## Probes, edits: {edits_in_words(table.edits)}", "", *grid(names, rows), ""]


def grid(names: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    """A markdown table; bars and line breaks in cells are escaped."""
    lines = [" | ".join(names), " | ".join("---" for _ in names)]
    lines += [" | ".join(one_line(cell).replace("|", "\\|") for cell in row) for row in rows]
    return [f"| {line} |" for line in lines]


def one_line(text: str) -> str:
    """Text without line breaks."""
    return " ".join(text.split())

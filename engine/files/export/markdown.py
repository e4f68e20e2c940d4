"""The sections of a markdown report, a function per kind of result."""

from __future__ import annotations

from collections.abc import Sequence

from engine.files.export.tables import mean_kl
from engine.records import RANK_COLUMNS, Attribution, Generated, Loaded, MinimalSet, ProbeTable, Ranking
from engine.records import attribution as measures
from engine.records.attribution import ablated, listed
from engine.records.texts import comparisons, edits_in_force
from engine.records.words.attribution import attribution_notes, measure_in_words, set_notes, set_title
from engine.records.words.edits import edit_notes, edits_in_words
from engine.records.words.numbers import percent
from engine.records.words.texts import story


def loaded_lines(loaded: Loaded | None) -> list[str]:
    """Return what was loaded, as list items."""
    if loaded is None:
        return ["- nothing was loaded"]
    return [
        f"- model {loaded.model} ({loaded.dtype}, {loaded.device}), SAE {loaded.sae}: {loaded.d_sae:,} features "
        f"at {loaded.hook}",
        f"- model fingerprint {loaded.model_fingerprint[:16]}, SAE fingerprint {loaded.sae_fingerprint[:16]}",
    ]


def ranking_section(ranking: Ranking) -> list[str]:
    """Return the section on one leaderboard."""
    columns = [column for column in RANK_COLUMNS if column.in_report]
    names = ("feature", "tokens", *(column.name for column in columns))
    rows = [
        [str(row.feature), ", ".join(row.tokens), *(column.cell(row) for column in columns)] for row in ranking.features
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
    """Return the section on one generation with all its arms: a row per sample, a column per variant."""
    pairs = comparisons(result)
    names = ["baseline", "edited"]
    names += [f"variant {n}: {edits_in_words(edits)}" for n, edits in enumerate(result.variants, 1)]
    rows = []
    for sample in sorted({pair.sample for pair in pairs}):
        own = [pair for pair in pairs if pair.sample == sample]
        rows.append([own[0].baseline.text, *(pair.edited.text for pair in own)])
    if len(rows) > 1:
        names, rows = ["sample", *names], [[str(n), *row] for n, row in enumerate(rows, 1)]
    mean = mean_kl(result)
    kl = "" if mean is None else f", mean KL {mean:.4f} nats per baseline token"
    notes = [*story(result), *edit_notes(edits_in_force(result)), *(f"*{warning}*" for warning in result.warnings)]
    return [
        f"## {one_line(result.prompt.text)}",
        "",
        f"Edits: {edits_in_words(result.edits)}; inactive at {result.inactive_positions} of {result.positions} "
        f"positions{kl}.",
        "",
        *grid(names, rows),
        "",
        *(f"- {note}" for note in notes),
        *([""] if notes else []),
    ]


def probe_section(table: ProbeTable) -> list[str]:
    """Return the section on one table of probes."""
    rows = []
    for row in table.rows:
        answers = "; ".join(f"{a.name} {a.baseline:.3f} → {a.edited:.3f}" for a in row.answers)
        rows.append([row.probe.text, row.generated.baseline.text, row.generated.edited.text, answers])
    names = ("probe", "baseline", "edited", "answers after the prefill")
    notes = [f"- {note}" for note in edit_notes(table.edits)]
    heading = f"## Probes, edits: {edits_in_words(table.edits)}"
    return [heading, "", *grid(names, rows), "", *notes, *([""] if notes else [])]


def attribution_section(attribution: Attribution) -> list[str]:
    """Return the section on the features that a measure depends on, and on its value on each probe."""
    measure = attribution.request.measure
    names = ("feature", "tokens", "estimate", "exact", "share", "density", "percentile", "evidence")
    rows = [
        [
            str(row.feature),
            ", ".join(row.tokens),
            f"{row.estimate:+.4g}",
            "–" if row.exact is None else f"{row.exact:+.4g}",
            percent(measures.share_of_baseline(attribution, row)),
            f"{row.density:.4f}",
            percent(row.percentile),
            measures.evidence(row, attribution.n_controls),
        ]
        for row in ablated(attribution)
    ]
    more = len(listed(attribution)) - len(rows)
    probes = [
        [p.fed.text, f"{p.value:+.3f}", f"{p.mass:.3f}", "–" if p.covariate is None else f"{p.covariate:g}"]
        for p in attribution.probes
    ]
    return [
        f"## What {measure.toward} against {measure.against} depends on",
        "",
        f"Measure: {measure_in_words(measure, len(attribution.probes), attribution.slope)}. "
        f"Baseline {attribution.baseline:+.4g} {measures.unit_of(attribution.slope)}.",
        "",
        *grid(names, rows),
        "",
        *([f"- {more} more rows, estimates alone: in csv and jsonl"] if more else []),
        *(f"- {note}" for note in attribution_notes(attribution)),
        *(f"- *{warning}*" for warning in attribution.warnings),
        "",
        *grid(("probe", "value in nats", "probability of both answers", "covariate"), probes),
        "",
    ]


def set_section(minimal_set: MinimalSet) -> list[str]:
    """Return the section on the smallest set that carries a measure."""
    measure = minimal_set.request.measure
    rows = [
        [str(m.feature), ", ".join(m.tokens), percent(m.share_with), percent(m.share_without)]
        for m in minimal_set.members
    ]
    return [
        f"## The smallest set that carries {measure.toward} against {measure.against}",
        "",
        f"{set_title(minimal_set)}.",
        "",
        *grid(("feature", "tokens", "share with", "share without"), rows),
        "",
        *(f"- {note}" for note in set_notes(minimal_set)),
        *(f"- *{warning}*" for warning in minimal_set.warnings),
        "",
    ]


def grid(names: Sequence[str], rows: list[list[str]]) -> list[str]:
    """Return a markdown table; bars in cells are escaped, line breaks become spaces."""
    lines = [" | ".join(one_line(cell).replace("|", "\\|") for cell in row) for row in (names, *rows)]
    lines.insert(1, " | ".join("---" for _ in names))
    return [f"| {line} |" for line in lines]


def one_line(text: str) -> str:
    """Return the text on one line, with every run of white space as one space."""
    return " ".join(text.split())

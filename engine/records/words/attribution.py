"""Measures, effects and minimal sets in words."""

from __future__ import annotations

from statistics import median

from engine.records.attribution import (
    INFLUENCE_PERCENTILE,
    MIN_CONTROLS,
    Attribution,
    Evidence,
    Measure,
    MinimalSet,
    beaten,
    evidence,
    is_slope,
    listed,
    measured_probes,
    set_evidence,
    unit_of,
)
from engine.records.words.numbers import count, percent

SIGNS = "effect: how ablating the feature changes the measure; share: how much of the measure it takes away"

MEANING: dict[Evidence, str] = {
    "influences": "influences: on these probes, ablating it changes the measure more than ablating "
    f"{INFLUENCE_PERCENTILE:.0%} of the features drawn for comparison, which are about as active as those tested, does",
    "associated": "associated: an estimate, or an effect that features drawn for comparison reach too; no more",
}


def measure_in_words(measure: Measure, n_probes: int, slope: bool) -> str:
    """Return what is measured and over how many probes, in words."""
    probes = count(n_probes, "probe")
    answers = f"log-odds of {measure.toward!r} against {measure.against!r}"
    if slope:
        return f"{answers}: their slope on the covariate of {probes}"
    return f"{answers}: their mean over {probes}" if n_probes > 1 else f"{answers} on {probes}"


def measure_in_short(measure: Measure) -> str:
    """Return the measure in few words, such as "female against male · mean over 4 probes"."""
    probes = measured_probes(measure)
    how = "slope on the covariate" if is_slope(probes) else "mean"
    return f"{measure.toward} against {measure.against} · {how} over {count(len(probes), 'probe')}"


def attribution_notes(attribution: Attribution) -> list[str]:
    """Return what a reader of the rows has to know, a sentence each."""
    rows = listed(attribution)
    exact = sum(row.exact is not None and not row.control for row in rows)
    notes = [
        f"{attribution.n_active_features:,} features fire on these probes, {len(rows)} are listed, {exact} of them "
        f"ablated and rerun ({attribution.dtype}); the others are estimates by the gradient",
        SIGNS,
    ]
    sizes = [abs(row.exact) for row in attribution.features if row.control and row.exact is not None]
    if sizes:
        notes.append(
            f"{attribution.n_controls} other features, together as active, were ablated for comparison: their effects "
            f"are at most {max(sizes):.3g}, in the middle {median(sizes):.3g}"
        )
    if attribution.spearman is not None:
        by_activation = (
            "" if attribution.spearman_activation is None else f", activation by {attribution.spearman_activation:.2f}"
        )
        notes.append(f"estimates rank the exact effects by Spearman {attribution.spearman:.2f}{by_activation}")
    levels = {evidence(row, attribution.n_controls) for row in rows}
    return notes + [meaning for word, meaning in MEANING.items() if word in levels]


def set_title(minimal_set: MinimalSet) -> str:
    """Return the result of the search in one line."""
    number = len(minimal_set.members)
    share, target = percent(minimal_set.share), percent(minimal_set.request.share)
    if not number:
        return "no candidate was worth ablating: none takes enough of the measure away for what it costs"
    if not minimal_set.reached:
        full = " (as many as were allowed)" if number >= minimal_set.request.most else ""
        return f"{share} is all that {count(number, 'feature')}{full} take away, not the {target} asked for"
    if number == 1:
        return f"1 feature, ablated alone, takes {share} away ({target} asked for)"
    return f"{number} features, ablated together, take {share} away ({target} asked for)"


def set_notes(minimal_set: MinimalSet) -> list[str]:
    """Return what a reader of a minimal set has to know, a sentence each."""
    request = minimal_set.request
    notes = [
        f"measure {minimal_set.baseline:+.3g} → {minimal_set.ablated:+.3g} {unit_of(minimal_set.slope)} "
        f"({minimal_set.dtype}) · {minimal_set.n_tried:,} sets of {len(request.candidates)} candidates tried",
        "share with: taken away by the set up to this feature; without: by the whole set but for this feature",
    ]
    if request.penalty:
        notes.append(f"penalty {request.penalty:g}: lost facts and predictions counted against a feature in the search")
    if minimal_set.facts_kept is not None:
        questions = count(len(request.facts), "question")
        notes.append(f"{percent(minimal_set.facts_kept)} of the right answers' log-odds is left on {questions} of fact")
    if minimal_set.kl is not None:
        notes.append(f"mean KL {minimal_set.kl:.3g} nats a token on {request.neutral_tokens:,} tokens of neutral text")
    if minimal_set.control_shares:
        shares = minimal_set.control_shares
        notes.append(
            f"{len(shares)} random sets of the same size, about as active, take away {percent(min(shares))} to "
            f"{percent(max(shares))}, in the middle {percent(median(shares))}: this set does more than "
            f"{beaten(minimal_set)} of them"
        )
    word = set_evidence(minimal_set)
    notes.append(
        "influences: more than random sets of the same size do"
        if word == "influences"
        else f"associated: it takes more than {INFLUENCE_PERCENTILE:.0%} of at least {MIN_CONTROLS} random sets beaten "
        "to say that it influences the measure"
    )
    return [*notes, "chosen on these very probes: whether it holds on others is not shown"]

"""Measures, effects and sets in words."""

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
    listed,
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
    """What is measured, and over how many probes."""
    probes = count(n_probes, "probe")
    answers = f"log-odds of {measure.toward!r} against {measure.against!r}"
    if slope:
        return f"{answers}: their slope on the covariate of {probes}"
    return f"{answers}: their mean over {probes}" if n_probes > 1 else f"{answers} on {probes}"


def attribution_notes(found: Attribution) -> list[str]:
    """What a reader of the rows has to know, a sentence each."""
    rows = listed(found)
    exact = sum(row.exact is not None and not row.control for row in rows)
    notes = [
        f"{found.n_active_features:,} features fire on these probes, {len(rows)} are listed, {exact} of them ablated "
        f"and rerun ({found.dtype}); the others are estimates by the gradient",
        SIGNS,
    ]
    sizes = [abs(row.exact) for row in found.features if row.control and row.exact is not None]
    if sizes:
        notes.append(
            f"{found.n_controls} other features, together as active, were ablated for comparison: their effects are "
            f"at most {max(sizes):.3g}, in the middle {median(sizes):.3g}"
        )
    if found.spearman is not None:
        by_activation = "" if found.spearman_activation is None else f", activation by {found.spearman_activation:.2f}"
        notes.append(f"estimates rank the exact effects by Spearman {found.spearman:.2f}{by_activation}")
    said = {evidence(row, found.n_controls) for row in rows}
    return notes + [meaning for word, meaning in MEANING.items() if word in said]


def set_title(found: MinimalSet) -> str:
    """What was found, in a line."""
    number = len(found.members)
    share, asked = percent(found.share), percent(found.request.share)
    if not number:
        return "no candidate was worth ablating: none takes enough of the measure away for what it costs"
    if not found.reached:
        full = " (as many as were allowed)" if number >= found.request.most else ""
        return f"{share} is all that {count(number, 'feature')}{full} take away, not the {asked} asked for"
    if number == 1:
        return f"1 feature, ablated alone, takes {share} away ({asked} asked for)"
    return f"{number} features, ablated together, take {share} away ({asked} asked for)"


def set_notes(found: MinimalSet) -> list[str]:
    """What a reader of a set has to know, a sentence each."""
    request = found.request
    notes = [
        f"measure {found.baseline:+.3g} → {found.ablated:+.3g} {unit_of(found.slope)} ({found.dtype}) · "
        f"{found.n_tried:,} sets of {len(request.candidates)} candidates tried",
        "share with: taken away by the set up to this feature; without: by the whole set but for this feature",
    ]
    if request.penalty:
        notes.append(f"penalty {request.penalty:g}: lost facts and predictions counted against a feature in the search")
    if found.facts_kept is not None:
        asked = count(len(request.facts), "question")
        notes.append(f"{percent(found.facts_kept)} of the right answers' log-odds is left on {asked} of fact")
    if found.kl is not None:
        notes.append(f"mean KL {found.kl:.3g} nats a token on {request.neutral_tokens:,} tokens of neutral text")
    if found.control_shares:
        shares = found.control_shares
        notes.append(
            f"{len(shares)} random sets of the same size, about as active, take away {percent(min(shares))} to "
            f"{percent(max(shares))}, in the middle {percent(median(shares))}: this set does more than "
            f"{beaten(found)} of them"
        )
    word = set_evidence(found)
    notes.append(
        "influences: more than random sets of the same size do"
        if word == "influences"
        else f"associated: it takes more than {INFLUENCE_PERCENTILE:.0%} of at least {MIN_CONTROLS} random sets beaten "
        "to say that it influences the measure"
    )
    return [*notes, "chosen on these very probes: whether it holds on others is not shown"]

"""What results are called in words, the same on a terminal, in a report and on the screen. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from statistics import median

from engine.measures import INFLUENCE_PERCENTILE, MIN_CONTROLS, Evidence, evidence, unit
from engine.records import (
    AttributedFeature,
    Attribution,
    Edit,
    EditKind,
    EditsFrom,
    Generated,
    Measure,
    MinimalSet,
    OtherArm,
    Positions,
    Sampling,
)

EDITS_SPELLED_OUT = 8
WHERE: dict[Positions, str] = {
    "all": "",
    "prompt": " (prompt)",
    "generated": " (generated)",
    "last": " (last prompt token)",
    "first-step": " (first step)",
}
DONE: dict[EditKind, str] = {
    "scale": "scaled",
    "set": "set",
    "steer": "steered",
    "project": "projected",
    "reconstruct": "reconstructed",
}
LOSSY = "lossy: the SAE's reconstruction stands in for the model's own vectors, whatever it misses is dropped"
FIRST_STEP = (
    "first step: only the prompt's pass is edited, its BOS included; what that did stays in the prompt's keys and "
    "values, so every later token sees it"
)
SIGNS = "effect: how ablating the feature changes the measure; share: how much of the measure it takes away"
MEANING: dict[Evidence, str] = {
    "influences": "influences: on these probes, ablating it changes the measure more than ablating "
    f"{INFLUENCE_PERCENTILE:.0%} of the features drawn for comparison, which are about as active as those tested, does",
    "associated": "associated: an estimate, or an effect that features drawn for comparison reach too; no more",
}


def edit_in_words(edit: Edit) -> str:
    """Such as "4133 ablated", and where it acts unless that is everywhere: "574 x 0.125 (prompt)"."""
    return f"{_change_in_words(edit)}{WHERE[edit.at]}"


def _change_in_words(edit: Edit) -> str:
    match edit.kind:
        case "scale":
            return f"{edit.feature} x {edit.strength:g}" if edit.strength else f"{edit.feature} ablated"
        case "set":
            return f"{edit.feature} set to {edit.strength:g} x its maximum"
        case "steer":
            return f"{edit.feature} steered by {edit.strength:g}"
        case "project":
            return f"{edit.feature} projected {f'to x {edit.strength:g}' if edit.strength else 'out'}"
        case "reconstruct":
            return "reconstructed, the SAE's error dropped"


def edits_in_words(edits: Sequence[Edit]) -> str:
    """Such as "4133 ablated, 574 x 0.125"; many edits are counted, their list is in the record."""
    if len(edits) <= EDITS_SPELLED_OUT:
        return ", ".join(edit_in_words(edit) for edit in edits) or "none"
    counts = Counter("ablated" if _ablates(edit) else DONE[edit.kind] for edit in edits)
    reconstructed = counts.pop(DONE["reconstruct"], 0)
    found = [word for word in ("ablated", *DONE.values()) if counts[word]]
    parts = [f"{count(counts[word], 'feature') if word == found[0] else counts[word]} {word}" for word in found]
    parts += [DONE["reconstruct"]] if reconstructed else []
    places = {edit.at for edit in edits}
    return ", ".join(parts) + (WHERE[places.pop()] if len(places) == 1 else " (at different positions)")


def _ablates(edit: Edit) -> bool:
    return edit.kind == "scale" and edit.strength == 0


def edit_notes(edits: Sequence[Edit]) -> list[str]:
    """What a reader of a text has to know about the edits that were in force, a sentence each."""
    notes = []
    if any(edit.kind == "reconstruct" for edit in edits):
        notes.append(LOSSY)
    if any(edit.at == "first-step" for edit in edits):
        notes.append(FIRST_STEP)
    return notes


def changes_in_words(schedule: Sequence[EditsFrom]) -> list[str]:
    """Such as "from token 12: 4133 ablated", a line for each change of edits after the first token."""
    later = [(change.token_index + 1, change.edits) for change in schedule[1:]]
    return [f"from token {token}: {edits_in_words(edits) if edits else 'no edits'}" for token, edits in later]


def story(result: Generated) -> list[str]:
    """How a text came about, a sentence each: how its tokens were chosen, what changed on the way, how it ended."""
    lines = []
    if result.prompt.prefill:
        lines.append(f"put in the model's mouth: {result.prompt.prefill!r}")
    if result.sampling.temperature or result.sampling.stop:
        lines.append(sampling_in_words(result.sampling))
    lines += changes_in_words(result.schedule)
    if result.branched_at is not None:
        lines.append(f"branched off at token {result.branched_at + 1}: what is before it is another text's")
    return (
        lines + ["stopped before its end"] * result.stopped + [f"it ended early: {result.fault}"] * bool(result.fault)
    )


def arm_in_words(other: OtherArm) -> str:
    """Such as "variant 1" and "sample 2 edited", counted from 1."""
    sample = f"sample {other.sample + 1} " if other.sample else ""
    if other.variant is not None:
        return f"{sample}variant {other.variant + 1}"
    return f"{sample}{'edited' if other.edited else 'baseline'}"


def sampling_in_words(sampling: Sampling) -> str:
    """Such as "temperature 0.8, seed 3, top-p 0.9" or "greedy", and the stop strings."""
    words = ["greedy"]
    if sampling.temperature:
        words = [f"temperature {sampling.temperature:g}", f"seed {sampling.seed}"]
        words += [f"top-k {sampling.top_k}"] if sampling.top_k else []
        words += [f"top-p {sampling.top_p:g}"] if sampling.top_p < 1 else []
        words += [f"min-p {sampling.min_p:g}"] if sampling.min_p else []
    words += [f"ends at {' or '.join(map(repr, sampling.stop))}"] if sampling.stop else []
    return ", ".join(words)


def measure_in_words(measure: Measure, n_probes: int, slope: bool) -> str:
    """What is measured, and over how many probes."""
    probes = count(n_probes, "probe")
    answers = f"log-odds of {measure.toward!r} against {measure.against!r}"
    if slope:
        return f"{answers}: their slope on the covariate of {probes}"
    return f"{answers}: their mean over {probes}" if n_probes > 1 else f"{answers} on {probes}"


def count(number: int, what: str) -> str:
    """Such as "1 probe" and "2 probes"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(share: float | None) -> str:
    """A share, such as 12%; a dash for none."""
    return "–" if share is None else f"{share:.0%}".replace("-0%", "0%")


def listed(attribution: Attribution) -> tuple[AttributedFeature, ...]:
    """The rows without those that stand at the end for comparison only."""
    rows = list(attribution.features)
    while rows and rows[-1].control:
        rows.pop()
    return tuple(rows)


def ablated(attribution: Attribution, least: int = 20) -> tuple[AttributedFeature, ...]:
    """The rows that were ablated, or the first few where those are fewer: what is shown before somebody asks."""
    rows = listed(attribution)
    return rows[: max(least, sum(row.exact is not None and not row.control for row in rows))]


def beaten(found: MinimalSet) -> int:
    """How many of the random sets change the measure less than the set does, signs apart."""
    return sum(abs(share) < abs(found.share) for share in found.control_shares)


def set_evidence(found: MinimalSet) -> Evidence:
    """What a set lets one say: influence takes as many random sets as an effect takes features to compare with."""
    number = len(found.control_shares)
    enough = number >= MIN_CONTROLS and beaten(found) >= INFLUENCE_PERCENTILE * number
    return "influences" if enough else "associated"


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
        f"measure {found.baseline:+.3g} → {found.ablated:+.3g} {unit(found.slope)} ({found.dtype}) · "
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

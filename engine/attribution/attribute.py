"""The verb `attribute`: estimate every feature's effect on a measure, and ablate the best ones to get exact effects.

Shape suffixes: F features.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from engine.attribution.gradient import Gradient, ablated, gradient
from engine.attribution.measure import total
from engine.attribution.measured import Measured, measured
from engine.features.activations import names
from engine.models.pair import Events, Pair, Read
from engine.records import Attribute, AttributedFeature, Attribution, Measure, ProbeMeasured
from engine.records import attribution as measures
from engine.records.texts import check_causes

NEAR = 16
"""Number of nearest features, by activation and density, among which each control is drawn."""

# ---- attribution


def attribute(pair: Pair, request: Attribute) -> Events:
    """Find the features a measure depends on. Returns an Attribution. Raises UsageError, HookError, EditError."""
    check_causes(request)
    sae, upper = pair.site.sae, pair.upper
    sae.columns([*request.candidates, *request.also])  # raises for a feature the SAE does not have
    measurement = yield from measured(pair, request.measure)
    slopes = yield from gradient(sae, upper, measurement.items, (), "attributing")
    listed = best(slopes.estimate_F, request)
    tested = [f for f in listed if slopes.strength_F[f] > 0][: request.exact]
    control_features = controls(pair, slopes, tested, request.controls)
    to_ablate = [*tested, *control_features]
    scored = yield from ablated(
        sae, upper, measurement.items, measurement.values, [[f] for f in to_ablate], "ablating one by one"
    )
    exact = {
        f: total(measurement.items, values) - measurement.baseline for f, values in zip(to_ablate, scored, strict=True)
    }
    rows = listed + [f for f in dict.fromkeys(request.also) if f not in listed]
    tested_rows = [f for f in rows if f in tested]
    # features with an exact effect, largest first; then the others by estimate; controls last
    order = sorted(tested_rows, key=lambda f: -abs(exact[f])) + [f for f in rows if f not in tested]
    chosen = [*order, *(f for f in control_features if f not in order)]
    reads = [Read(item.fed, item.h[0][: len(item.fed.token_ids)]) for item in measurement.items]
    attributed = [
        _row(pair, slopes, feature, tokens, exact, control_features)
        for feature, tokens in zip(chosen, names(pair, chosen, reads), strict=True)
    ]
    sizes = [abs(exact[f]) for f in to_ablate]
    return Attribution(
        request=request,
        probes=tuple(
            ProbeMeasured(item.fed, value, mass, item.probe.covariate)
            for item, value, mass in zip(measurement.items, measurement.values, measurement.masses, strict=True)
        ),
        slope=measures.is_slope([item.probe for item in measurement.items]),
        baseline=measurement.baseline,
        features=tuple(attributed),
        n_active_features=int((slopes.strength_F > 0).sum()),
        n_controls=len(control_features),
        spearman=spearman([float(slopes.estimate_F[f]) for f in to_ablate], [exact[f] for f in to_ablate]),
        spearman_activation=spearman([float(slopes.strength_F[f]) for f in to_ablate], sizes),
        dtype=str(upper.dtype).removeprefix("torch."),
        warnings=(*warnings(pair, measurement, request.measure), *few_controls(len(control_features))),
    )


def best(estimate_F: torch.Tensor, request: Attribute) -> list[int]:
    """Return the `request.top` candidates with the largest absolute estimates, largest first; zeros are left out."""
    size_F = estimate_F.abs().cpu()
    if request.candidates:
        allowed = torch.zeros(len(size_F), dtype=torch.bool)
        allowed[list(request.candidates)] = True
        size_F = torch.where(allowed, size_F, torch.full_like(size_F, -1.0))
    top = size_F.topk(min(request.top, len(size_F)))
    return [f for f, size in zip(top.indices.tolist(), top.values.tolist(), strict=True) if size > 0]


def _row(
    pair: Pair,
    slopes: Gradient,
    feature: int,
    tokens: tuple[str, ...],
    exact: dict[int, float],
    control_features: Sequence[int],
) -> AttributedFeature:
    sizes = [abs(exact[f]) for f in control_features if f != feature]
    effect = exact.get(feature)
    compared = effect is not None and feature not in control_features and bool(sizes)
    return AttributedFeature(
        feature=feature,
        tokens=tokens,
        estimate=float(slopes.estimate_F[feature]),
        exact=effect,
        activation=float(slopes.strength_F[feature]),
        density=float(pair.site.reference.density_F()[feature]),
        percentile=sum(size < abs(effect or 0) for size in sizes) / len(sizes) if compared else None,
        control=feature in control_features,
    )


def controls(pair: Pair, slopes: Gradient, features: Sequence[int], number: int) -> list[int]:
    """Draw up to `number` other features, each about as active on the probes and as dense as one of `features`.

    The draw does not look at estimates: a control chosen by its effect would bias the comparison.
    """
    if not features:
        return []
    strength_F = slopes.strength_F.cpu()
    place_F2 = torch.stack([strength_F.clamp(min=1e-12).log(), pair.site.reference.density_F().log()], 1)
    free_F = strength_F > 0
    free_F[list(features)] = False
    rng, drawn = random.Random(0), []
    for n in range(min(number, int(free_F.sum()))):
        like = features[n % len(features)]
        distance_F = (place_F2 - place_F2[like]).square().sum(1).masked_fill(~free_F, torch.inf)
        near = distance_F.topk(min(NEAR, int(free_F.sum())), largest=False).indices.tolist()
        drawn.append(int(rng.choice(near)))
        free_F[drawn[-1]] = False
    return drawn


def warnings(pair: Pair, measurement: Measured, measure: Measure) -> list[str]:
    """Return sentences on what weakens the numbers: unlikely answers, unclean tokens, skipped probes, low precision."""
    sentences = []
    small = sum(mass < measures.LOW_MASS for mass in measurement.masses)
    if small:
        sentences.append(
            f"On {small} of {len(measurement.items)} probes both answers together have a probability below "
            f"{measures.LOW_MASS}: the model would say something else."
        )
    sentences += pair.beyond_context([len(item.fed.token_ids) for item in measurement.items], "probes")
    unclean = {string for item in measurement.items for string in item.unclean}
    if unclean:
        sentences.append(f"Tokens of {', '.join(map(repr, sorted(unclean)))} run into the end of the prompt.")
    facts = len(measures.facts(measure.probes))
    others = len(measure.probes) - len(measurement.items) - facts
    if others:
        sentences.append(f"{others} of the probes do not track both answers and are left out.")
    if pair.upper.whole:
        sentences.append(
            "This model's layers above the hook cannot be run by themselves: "
            "the whole model is run each time, which is slower."
        )
    if pair.upper.dtype not in (torch.float32, torch.float64):
        sentences.append(f"No memory for float32: exact effects are rounded as {pair.upper.dtype} is.")
    return sentences


def few_controls(number: int) -> list[str]:
    """Return a warning where there are too few controls to call any effect influence, else an empty list."""
    if number >= measures.MIN_CONTROLS:
        return []
    return [f"With {number} features to compare with, no effect can be called influence."]


# ---- rank correlation


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Return the rank correlation, ties sharing their mean rank; None for fewer than 3 values or all equal ones."""
    if len(one) < 3:
        return None
    a_N, b_N = ranks(one), ranks(other)
    a_N, b_N = a_N - a_N.mean(), b_N - b_N.mean()
    size = float(a_N.norm() * b_N.norm())
    return float(a_N @ b_N) / size if size > 0 else None


def ranks(values: Sequence[float]) -> torch.Tensor:
    """Return ranks_N, from 0, ties sharing their mean rank."""
    values_N = torch.tensor(values, dtype=torch.float64)
    smaller_N = (values_N[None, :] < values_N[:, None]).sum(1)
    equal_N = (values_N[None, :] == values_N[:, None]).sum(1)
    return (smaller_N + (equal_N - 1) / 2).double()

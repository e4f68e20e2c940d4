"""Choose the demo's feature list: ablated together, they lower the stereotype slope and spare factual gender.

    python -m engine.loading.demo.making.choose [--sae FOLDER] [--write] [--controls N]

The rule is: the k features with the largest attribution to the dev slope, less a penalty for attribution to factual
gender. k and penalty are chosen by cross-validation (attribute on one half of the dev occupations, ablate on the
other); test items only report. Controls are random sets of the same size, matched on activation over the dev items.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

import prompts
from engine.loading.demo import feature_lists
from engine.loading.demo.making import suite
from engine.loading.demo.model import finish
from engine.loading.open_pair import DEMO_SAE, open_pair
from engine.models.pair import Pair
from engine.models.reference import read_text
from engine.records import Load

LIST_FILE = feature_lists.LISTS["gender"]

PENALTIES = (0.2, 1.0)

SIZES = (16, 32, 48, 64, 96, 128)

# of the features that help, those above 4 % cost 0.001 to 0.014 nats per neutral token each, the rest at most 0.0007
MAX_DENSITY = 0.03

REPORT_TOKENS = 4000


@dataclass(frozen=True)
class Measured:
    """What ablating a set does. Slopes per unit of logit(share of women), factual in nats, KL in nats per token."""

    features: int
    dev_slope: float
    test_slope: float
    test_occupations_dev_templates: float
    dev_factual: float
    test_factual: float
    kl_mean: float
    kl_p99: float
    top1_agreement: float


class Bench:
    """The suite's items on one loaded pair."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.upper = pair, suite.UpperBlocks(pair)
        self._spec = suite.read_spec()
        dev, test = self._spec["dev"], self._spec["test"]
        self.dev = suite.slope_items(pair, dev["occupations"], dev["templates"])
        self.test = suite.slope_items(pair, test["occupations"], test["templates"])
        self.crossed = suite.slope_items(pair, test["occupations"], dev["templates"])
        self.texts = read_text(prompts.NEUTRAL_TEXT)

    @cached_property
    def dev_halves(self) -> list[list[suite.Items]]:
        """The dev items of every other occupation, and those of the other half."""
        dev = self._spec["dev"]
        names = list(dev["occupations"])
        halves = [{name: dev["occupations"][name] for name in names[k::2]} for k in (0, 1)]
        return [suite.slope_items(self.pair, half, dev["templates"]) for half in halves]

    @cached_property
    def dev_factual(self) -> list[suite.Items]:
        """The dev items about factual gender."""
        return suite.factual_items(self.pair, self._spec["dev"]["factual"])

    @cached_property
    def test_factual(self) -> list[suite.Items]:
        """The test items about factual gender."""
        return suite.factual_items(self.pair, self._spec["test"]["factual"])

    def measure(self, features: Sequence[int], tokens: int) -> Measured:
        """Measure everything that is reported about a set."""
        kl_mean, kl_p99, agreement = suite.neutral_effects(self.pair, self.upper, self.texts, tokens, features)
        return Measured(
            features=len(features),
            dev_slope=self.upper.ablated(self.dev, features),
            test_slope=self.upper.ablated(self.test, features),
            test_occupations_dev_templates=self.upper.ablated(self.crossed, features),
            dev_factual=self.upper.ablated(self.dev_factual, features),
            test_factual=self.upper.ablated(self.test_factual, features),
            kl_mean=kl_mean,
            kl_p99=kl_p99,
            top1_agreement=agreement,
        )

    def dev_activation(self) -> torch.Tensor:
        """Return each feature's sum of f * u over the dev items' editable positions, by which controls are matched."""
        h_ND = torch.cat([items.h_BTD[items.editable_BT] for items in self.dev])
        u_N1 = self.pair.site.sae.normalise(h_ND).u_T1
        total_F = torch.zeros(self.pair.site.sae.d_sae)
        for active in self.pair.site.sae.encode(h_ND):
            total_F.index_add_(0, active.feature_N, active.value_N * u_N1[active.token_N, 0])
        return total_F


@dataclass(frozen=True)
class Shares:
    """Each feature's attribution to slope and factual gender, as shares of their baselines; 0 for common features."""

    slope_F: torch.Tensor
    factual_F: torch.Tensor

    def best(self, penalty: float, size: int) -> list[int]:
        """Return the `size` features with the best balance, those that help at all."""
        best = (self.slope_F - penalty * self.factual_F.clamp(min=0)).topk(size)
        return [f for f, b in zip(best.indices.tolist(), best.values.tolist(), strict=True) if b > 0]


def shares(bench: Bench, batches: Sequence[suite.Items]) -> Shares:
    """Attribute the slope of some dev items, and dev factual gender."""
    upper, factual = bench.upper, bench.dev_factual
    rare_F = bench.pair.site.reference.density_F() <= MAX_DENSITY
    slope_F = upper.attribution(batches) / upper.ablated(batches, [])
    return Shares(slope_F * rare_F, upper.attribution(factual) / upper.ablated(factual, []))


def cross_validated(bench: Bench, halves: Sequence[Shares], penalty: float, size: int) -> tuple[float, float]:
    """Return (slope reduction on the half not attributed on, share of factual gender kept), means over both halves."""
    reductions, kept = [], []
    for own, held_out in zip(halves, reversed(bench.dev_halves), strict=True):
        features = own.best(penalty, size)
        reductions.append(1 - bench.upper.ablated(held_out, features) / bench.upper.ablated(held_out, []))
        kept.append(bench.upper.ablated(bench.dev_factual, features) / bench.upper.ablated(bench.dev_factual, []))
    return sum(reductions) / 2, sum(kept) / 2


def controls(bench: Bench, features: list[int], number: int, seed: int = 0) -> list[list[int]]:
    """Draw random sets of the same size; each feature is replaced by one about as active on the dev items."""
    order = bench.dev_activation().argsort(descending=True).tolist()
    place = {feature: at for at, feature in enumerate(order)}
    rng, taken, sets = random.Random(seed), set(features), []
    for _ in range(number):
        drawn: set[int] = set()
        for feature in features:
            near = order[max(0, place[feature] - 15) : place[feature] + 16]
            free = [f for f in near if f not in taken and f not in drawn]
            drawn.add(rng.choice(free or [f for f in order[:400] if f not in taken and f not in drawn]))
        sets.append(sorted(drawn))
    return sets


def line(name: str, m: Measured) -> str:
    """Return one row of the printed markdown table."""
    return (
        f"| {name} | {m.features} | {m.dev_slope:.3f} | {m.test_occupations_dev_templates:.3f} | {m.test_slope:.3f} "
        f"| {m.dev_factual:.2f} | {m.test_factual:.2f} | {m.kl_mean:.4f} | {m.kl_p99:.3f} | {m.top1_agreement:.3f} |"
    )


HEADER = (
    "| set | features | dev slope | test occupations, dev templates | test occupations and templates "
    "| factual dev | factual test | KL mean | KL p99 | top-1 |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sae", type=Path, default=DEMO_SAE)
    parser.add_argument("--controls", type=int, default=20)
    parser.add_argument("--write", action="store_true", help=f"write {LIST_FILE.name}")
    args = parser.parse_args()
    request = Load(sae=None if args.sae == DEMO_SAE else str(args.sae), dtype="float32")
    bench = Bench(finish(open_pair(request)))
    tried, halves = [], [shares(bench, half) for half in bench.dev_halves]
    for penalty in PENALTIES:
        for size in SIZES:
            reduction, kept = cross_validated(bench, halves, penalty, size)
            # the list is for the slope: factual gender counts half
            tried.append((reduction - 0.5 * max(0.0, 1 - kept), penalty, size))
            print(
                f"penalty {penalty}, {size} features: held-out reduction {reduction:.2f}, factual kept {kept:.2f}",
                flush=True,
            )
    _, penalty, size = max(tried)
    chosen = shares(bench, bench.dev).best(penalty, size)
    baseline, ablated = bench.measure([], REPORT_TOKENS), bench.measure(chosen, REPORT_TOKENS)
    print("\n" + HEADER + "\n" + line("none", baseline) + "\n" + line(f"chosen, penalty {penalty}", ablated))
    random_sets = controls(bench, chosen, args.controls)
    test_slopes = [round(bench.upper.ablated(bench.test, features), 4) for features in random_sets]
    crossed_slopes = [round(bench.upper.ablated(bench.crossed, features), 4) for features in random_sets]
    print(f"random sets, test slope {min(test_slopes)} to {max(test_slopes)}, ", end="")
    print(f"test occupations and dev templates {min(crossed_slopes)} to {max(crossed_slopes)}")
    if args.write:
        document = {
            "features": chosen,
            "what": "ablated together they lower the stereotype slope; chosen on dev items by choose.py",
            "penalty": penalty,
            "rules_tried": len(tried),
            "none": asdict(baseline),
            "ablated": asdict(ablated),
            "random_test_slopes": test_slopes,
            "random_crossed_slopes": crossed_slopes,
        }
        LIST_FILE.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

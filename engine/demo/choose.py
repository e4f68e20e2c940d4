"""Chooses the demo's feature list: ablated together, they lower the stereotype slope and spare factual gender.

    python -m engine.demo.choose [--sae FOLDER] [--write] [--controls N]

Everything is chosen on dev occupations, dev templates and dev factual items; test items only report. Attribution
proposes features, an exact measurement on dev items and a little neutral text keeps or rejects each. Controls are
random sets of the same size, matched on activation over the dev items.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

import prompts
from engine.demo import suite
from engine.demo.model import finish
from engine.explorer import Explorer
from engine.loading import DEMO_SAE, open_explorer
from engine.records import Load
from engine.reference import read_text

LIST_FILE = Path(__file__).with_name("features.json")
PENALTIES = (0.5, 1.0)
PROPOSED = 6
MAX_FEATURES = 32
MAX_DENSITY = 0.02
CHOICE_TOKENS, REPORT_TOKENS = 500, 4000
WANTED_REDUCTION = 0.65


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


@dataclass(frozen=True)
class DevFigures:
    """What a set is chosen by: dev items and a little neutral text."""

    slope: float
    factual: float
    kl_mean: float


class Bench:
    """The suite's items on one loaded explorer."""

    def __init__(self, explorer: Explorer) -> None:
        spec = suite.read_spec()
        self.explorer, self.upper = explorer, suite.UpperBlocks(explorer)
        dev, test = spec["dev"], spec["test"]
        self.dev = suite.slope_items(explorer, dev["occupations"], dev["templates"])
        self.test = suite.slope_items(explorer, test["occupations"], test["templates"])
        self.crossed = suite.slope_items(explorer, test["occupations"], dev["templates"])
        self.dev_factual = suite.factual_items(explorer, dev["factual"])
        self.test_factual = suite.factual_items(explorer, test["factual"])
        self.texts = read_text(prompts.NEUTRAL_TEXT)

    def measure(self, features: Sequence[int], tokens: int) -> Measured:
        """Everything there is to know about a set."""
        kl_mean, kl_p99, agreement = suite.neutral_effects(self.explorer, self.upper, self.texts, tokens, features)
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

    def dev_only(self, features: Sequence[int]) -> DevFigures:
        """What a set is chosen by."""
        kl_mean, _, _ = suite.neutral_effects(self.explorer, self.upper, self.texts, CHOICE_TOKENS, features)
        return DevFigures(
            slope=self.upper.ablated(self.dev, features),
            factual=self.upper.ablated(self.dev_factual, features),
            kl_mean=kl_mean,
        )

    def dev_activation(self) -> torch.Tensor:
        """Sum of f * u over the dev items' editable positions, per feature: what controls are matched on."""
        h_ND = torch.cat([items.h_BTD[items.editable_BT] for items in self.dev])
        u_N1 = self.explorer.sae.normalise(h_ND).u_T1
        total_F = torch.zeros(self.explorer.sae.d_sae)
        for tokens, block, acts_TF in self.explorer.sae.encode_blocks(h_ND):
            total_F[block] += (acts_TF * u_N1[tokens]).sum(0)
        return total_F


def forward_selection(bench: Bench, penalty: float, none: DevFigures) -> Iterator[tuple[list[int], DevFigures, float]]:
    """Grows a set on dev items: (features, figures, merit) each time a feature has proved its worth.

    Attribution with the set so far ablated proposes the features with the best balance of slope and factual gender;
    each is then tried exactly, and kept only if the set's merit grows. Features that fire everywhere are not proposed.
    """
    rejected = (bench.explorer.reference.density_F() > MAX_DENSITY).nonzero()[:, 0].tolist()
    chosen, best = list[int](), 0.0
    while len(chosen) < MAX_FEATURES:
        gain_F = bench.upper.attribution(bench.dev, chosen) / none.slope
        cost_F = bench.upper.attribution(bench.dev_factual, chosen) / none.factual
        balance_F = gain_F - penalty * cost_F.clamp(min=0)
        balance_F[chosen + rejected] = 0
        proposed = [f for f in balance_F.topk(PROPOSED).indices.tolist() if balance_F[f] > 0]
        before = len(chosen)
        for feature in proposed:
            found = bench.dev_only([*chosen, feature])
            reached = merit(found, none, len(chosen) + 1)
            if reached <= best:
                rejected.append(feature)
                continue
            chosen, best = [*chosen, feature], reached
            yield chosen, found, best
        if len(chosen) == before:
            return


def merit(found: DevFigures, none: DevFigures, features: int) -> float:
    """Less slope, up to what is wanted, with little else lost and few features."""
    reduction = min(WANTED_REDUCTION, 1 - found.slope / none.slope)
    lost = max(0.0, 1 - found.factual / none.factual)
    return reduction - lost - 4 * found.kl_mean - 0.001 * features


def controls(bench: Bench, features: list[int], number: int, seed: int = 0) -> list[list[int]]:
    """Random sets of the same size; each feature is replaced by one about as active on the dev items."""
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
    """One row of the printed markdown table."""
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
    bench = Bench(finish(open_explorer(request)))
    none, tried = bench.dev_only([]), []
    print(f"dev slope {none.slope:.3f}, factual {none.factual:.2f}", flush=True)
    for penalty in PENALTIES:
        for features, found, reached in forward_selection(bench, penalty, none):
            tried.append((reached, penalty, features))
            figures = f"dev slope {found.slope:.3f}, factual {found.factual:.2f}, KL {found.kl_mean:.4f}"
            print(f"penalty {penalty}, {len(features)} features: {figures}, merit {reached:.3f}", flush=True)
    _, penalty, chosen = max(tried)
    none_whole, whole = bench.measure([], REPORT_TOKENS), bench.measure(chosen, REPORT_TOKENS)
    print("\n" + HEADER + "\n" + line("none", none_whole) + "\n" + line(f"chosen, penalty {penalty}", whole))
    random_sets: list[Measured] = [bench.measure(s, CHOICE_TOKENS) for s in controls(bench, chosen, args.controls)]
    for number, control in enumerate(random_sets):
        print(line(f"random {number}", control), flush=True)
    if args.write:
        document = {
            "features": chosen,
            "what": "ablated together they lower the stereotype slope; chosen on dev items by engine/demo/choose.py",
            "penalty": penalty,
            "sets_tried": len(tried),
            "none": asdict(none_whole),
            "ablated": asdict(whole),
            "random_test_slopes": [round(m.test_slope, 4) for m in random_sets],
            "random_crossed_slopes": [round(m.test_occupations_dev_templates, 4) for m in random_sets],
        }
        LIST_FILE.write_text(json.dumps(document, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()

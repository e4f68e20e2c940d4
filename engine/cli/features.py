"""The verbs about features: rank, show, feature."""

from __future__ import annotations

import argparse

from engine.cli.command import Command, Verb
from engine.cli.options import add_measure_options, add_prompts_option, positive_int
from engine.cli.printing import card
from engine.cli.printing import features as printing
from engine.records import RANKED_BY, Describe, Described, Rank, Ranking, Show, Shown
from engine.records.measures import measure_toward


def add_rank_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `rank`."""
    add_prompts_option(target)
    target.add_argument("--top", type=positive_int, default=20, help="how many rows (20)")
    target.add_argument("--by", choices=RANKED_BY, default="score", help="column to sort by (score)")
    target.add_argument("--pool", choices=("max", "mean", "sum", "fraction"), default="max", help="over tokens (max)")
    target.add_argument("--include-masked", action="store_true", help="count special and sink tokens too")
    target.add_argument("--no-density-weight", action="store_true", help="score = t, rare features not preferred")


def rank(command: Command) -> None:
    """saescope rank"""
    args = command.args
    chosen = command.prompts()
    loaded = command.open()
    request = Rank(
        prompts=chosen,
        by=args.by,
        top=args.top,
        pool=args.pool,
        include_masked=args.include_masked,
        density_weight=not args.no_density_weight,
    )
    result = command.ask(request, Ranking)
    command.printer.result(printing.ranking, result)
    command.record(loaded, result, chosen)


def add_show_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `show`."""
    target.add_argument("feature", type=int, metavar="FEATURE")
    add_prompts_option(target)


def show(command: Command) -> None:
    """saescope show FEATURE"""
    chosen = command.prompts()
    command.open()
    result = command.ask(Show(command.args.feature, (*chosen.positive, *chosen.negative)), Shown)
    command.printer.result(printing.shown, result, len(chosen.positive))


def add_feature_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `feature`."""
    target.add_argument("feature", type=int, metavar="FEATURE")
    target.add_argument("--top", type=positive_int, default=10, help="how many of each (10)")
    add_prompts_option(target)
    add_measure_options(target)


def feature(command: Command) -> None:
    """saescope feature FEATURE"""
    args = command.args
    chosen = command.prompts()
    measure = None
    if args.toward or args.against:
        measure = measure_toward(args.toward, args.against, chosen.probes, command.printer.note)
    loaded = command.open()
    request = Describe(args.feature, (*chosen.positive, *chosen.negative), args.top, measure)
    command.printer.result(card.described, command.ask(request, Described), loaded.neuronpedia)


VERBS = (
    Verb(
        "rank",
        "rank features by how well they tell positive prompts from negative ones",
        rank,
        add_rank_options,
        saves=True,
    ),
    Verb("show", "one feature's activation on every token, as coloured text", show, add_show_options),
    Verb(
        "feature",
        "one feature: strongest tokens, logit lens, histogram, neighbours, what ablating it does",
        feature,
        add_feature_options,
    ),
)

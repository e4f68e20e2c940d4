"""The verbs about features: rank, show, feature."""

from __future__ import annotations

import argparse

from engine.cli.command import Command
from engine.cli.options import add_prompts_option, positive_int
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
    command.printer.ranking(result)
    command.record(loaded, result, chosen)


def show(command: Command) -> None:
    """saescope show FEATURE"""
    chosen = command.prompts()
    command.open()
    result = command.ask(Show(command.args.feature, (*chosen.positive, *chosen.negative)), Shown)
    command.printer.shown(result, len(chosen.positive))


def feature(command: Command) -> None:
    """saescope feature FEATURE"""
    args = command.args
    chosen = command.prompts()
    measure = None
    if args.toward or args.against:
        measure = measure_toward(args.toward, args.against, chosen.probes, command.printer.note)
    loaded = command.open()
    request = Describe(args.feature, (*chosen.positive, *chosen.negative), args.top, measure)
    command.printer.described(command.ask(request, Described), loaded.neuronpedia)

"""saescope attribute: which features a measure depends on, and with --share the smallest set that carries it."""

from __future__ import annotations

import argparse
from typing import Any

from msgspec.structs import fields

from engine.cli.command import Command
from engine.cli.options import add_measure_options, add_prompts_option, count, penalty, positive_int, share
from engine.records import Attribute, Attribution, FindMinimalSet, Loaded, MinimalSet, PromptSet, Rank, Ranking
from engine.records import attribution as measures
from engine.records.attribution import measure_toward
from engine.records.errors import SaescopeError, UsageError

CONTRASTED = 200
"""So many features of a ranking are attributed with --candidates contrast."""

OF_A_SET = ("most", "penalty", "neutral_tokens")
"""Options that say nothing without --share."""


def attribute(command: Command) -> None:
    """saescope attribute"""
    chosen = command.prompts()
    asked = measure_toward(command.args.toward, command.args.against, chosen.probes, command.printer.note)
    check(command, chosen)
    loaded = command.open()
    candidates = contrasted(command, chosen) if command.args.candidates == "contrast" else ()
    request = Attribute(asked, candidates=candidates, **given(command, "top", "exact", "controls"))
    result = command.ask(request, Attribution)
    if command.args.share is None:
        command.printer.attribution(result, command.args.top)
        command.record(loaded, result, chosen)
    else:
        with_set(command, loaded, chosen, result)


def check(command: Command, chosen: PromptSet) -> None:
    """Finds options that do not go together before anything is loaded. Raises UsageError."""
    args = command.args
    if args.candidates == "contrast" and not (chosen.positive and chosen.negative):
        raise UsageError(
            "--candidates contrast ranks features first, and the prompt set lacks positive or negative prompts.",
            "Leave --candidates out, or add prompts.",
        )
    for name in OF_A_SET:
        if args.share is None and getattr(args, name) is not None:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is of no use without --share.", f"Add --share 0.5, or leave {option} out.")


def given(command: Command, *names: str) -> dict[str, Any]:
    """These options as fields of a request, those apart that were not given."""
    return {name: value for name in names if (value := getattr(command.args, name)) is not None}


def contrasted(command: Command, chosen: PromptSet) -> tuple[int, ...]:
    """The features that tell positive from negative prompts best."""
    ranking = command.ask(Rank(chosen, top=CONTRASTED), Ranking)
    return tuple(row.feature for row in ranking.features)


def with_set(command: Command, loaded: Loaded, chosen: PromptSet, found: Attribution) -> None:
    """Searches the smallest set behind an attribution, which is printed and kept whatever becomes of the search."""
    smallest = None
    try:
        if not command.printer.json:
            command.printer.attribution(found, command.args.top)
        command.record(loaded, found, chosen)
        request = FindMinimalSet(
            found.request.measure,
            takers(found),
            facts=measures.facts(chosen.probes),
            **given(command, "share", "controls", *OF_A_SET),
        )
        smallest = command.ask(request, MinimalSet)
        if not command.printer.json:
            command.printer.minimal_set(smallest)
    finally:
        if command.printer.json:
            command.printer.attribution_with_set(found, smallest)
    command.record(loaded, smallest)


def takers(found: Attribution) -> tuple[int, ...]:
    """Features that take some of the measure away: by exact effect, then by estimate. Raises SaescopeError."""
    shares = [(row, measures.share_of_baseline(found, row) or 0.0) for row in found.features if not row.control]
    taking = [(row, share) for row, share in shares if share > 0]
    if not taking:
        raise SaescopeError(
            "No feature listed takes any of the measure away, so there is no set to look for.",
            "List more features with --top, or measure something else.",
        )
    taking.sort(key=lambda pair: (pair[0].exact is None, -pair[1]))
    return tuple(row.feature for row, _ in taking)


CANDIDATES = "contrast: only the 200 features that tell positive from negative prompts best (all)"

PENALTY = "how much lost facts and a KL of 0.1 count against a share taken away (0: they are only reported)"

ATTRIBUTE, MINIMAL = ({f.name: f.default for f in fields(kind)} for kind in (Attribute, FindMinimalSet))
"""Default values of the requests' fields."""


def add_attribute_options(target: argparse.ArgumentParser) -> None:
    """Options of `attribute`."""
    add_prompts_option(target)
    add_measure_options(target)
    target.add_argument("--candidates", choices=("all", "contrast"), default="all", help=CANDIDATES)
    target.add_argument(
        "--top", type=positive_int, metavar="N", help=f"rows ({ATTRIBUTE['top']}; those ablated are printed)"
    )
    target.add_argument(
        "--exact",
        type=count,
        metavar="N",
        help=f"ablate so many, those with the largest estimates ({ATTRIBUTE['exact']})",
    )
    target.add_argument(
        "--controls",
        type=count,
        metavar="N",
        help=f"ablate so many other features ({ATTRIBUTE['controls']}), or with --share random sets "
        f"({MINIMAL['controls']}), for comparison",
    )
    smallest = target.add_argument_group("the smallest set")
    smallest.add_argument("--share", type=share, metavar="S", help="search one that takes this share away, as 0.5")
    smallest.add_argument(
        "--most", type=positive_int, metavar="N", help=f"it has so many features at most ({MINIMAL['most']})"
    )
    smallest.add_argument("--penalty", type=penalty, metavar="P", help=PENALTY)
    smallest.add_argument("--neutral-tokens", type=count, metavar="N", help="neutral tokens to measure KL on (0)")

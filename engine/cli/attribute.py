"""saescope attribute: which features a measure depends on, and with --share the smallest set that carries it."""

from __future__ import annotations

import argparse
from typing import Any

from msgspec.structs import fields

from engine.cli.command import Command, Verb
from engine.cli.options import add_measure_options, add_prompts_option, count, penalty, positive_int, share
from engine.cli.printing import attribution as printing
from engine.records import Attribute, Attribution, FindMinimalSet, Loaded, MinimalSet, PromptSet, Rank, Ranking
from engine.records import attribution as measures
from engine.records.errors import SaescopeError, UsageError
from engine.records.measures import measure_toward

CONTRASTED = 200
"""How many features of a ranking to attribute with --candidates contrast."""

OF_A_SET = ("most", "penalty", "neutral_tokens")
"""Options that make no sense without --share."""


def attribute(command: Command) -> None:
    """saescope attribute"""
    chosen = command.prompts()
    measure = measure_toward(command.args.toward, command.args.against, chosen.probes, command.printer.note)
    check(command, chosen)
    loaded = command.open()
    candidates = contrasted(command, chosen) if command.args.candidates == "contrast" else ()
    request = Attribute(measure, candidates=candidates, **given(command, "top", "exact", "controls"))
    result = command.ask(request, Attribution)
    if command.args.share is None:
        command.printer.result(printing.attribution, result, command.args.top)
        command.record(loaded, result, chosen)
    else:
        with_set(command, loaded, chosen, result)


def check(command: Command, chosen: PromptSet) -> None:
    """Raise UsageError for options that do not go together, before anything is loaded."""
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
    """Return these options as fields of a request, without those that the user left out."""
    return {name: value for name in names if (value := getattr(command.args, name)) is not None}


def contrasted(command: Command, chosen: PromptSet) -> tuple[int, ...]:
    """Return the features that tell positive from negative prompts best."""
    ranking = command.ask(Rank(chosen, top=CONTRASTED), Ranking)
    return tuple(row.feature for row in ranking.features)


def with_set(command: Command, loaded: Loaded, chosen: PromptSet, attribution: Attribution) -> None:
    """Search the smallest set behind an attribution; the attribution is printed and saved even if the search fails."""
    smallest = None
    try:
        if not command.printer.json:
            command.printer.result(printing.attribution, attribution, command.args.top)
        command.record(loaded, attribution, chosen)
        request = FindMinimalSet(
            attribution.request.measure,
            takers(attribution),
            facts=measures.facts(chosen.probes),
            **given(command, "share", "controls", *OF_A_SET),
        )
        smallest = command.ask(request, MinimalSet)
        if not command.printer.json:
            command.printer.result(printing.minimal_set, smallest)
    finally:
        if command.printer.json:
            command.printer.attribution_with_set(attribution, smallest)
    command.record(loaded, smallest)


def takers(attribution: Attribution) -> tuple[int, ...]:
    """Return the features that take some of the measure away. Raises SaescopeError if there are none."""
    taking = measures.candidates(attribution)
    if not taking:
        raise SaescopeError(
            "No feature listed takes any of the measure away, so there is no set to look for.",
            "List more features with --top, or measure something else.",
        )
    return taking


CANDIDATES = "contrast: only the 200 features that tell positive from negative prompts best (all)"

PENALTY = "how much lost facts and a KL of 0.1 count against a share taken away (0: they are only reported)"

ATTRIBUTE, MINIMAL = ({f.name: f.default for f in fields(kind)} for kind in (Attribute, FindMinimalSet))
"""Default values of the requests' fields."""


def add_attribute_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `attribute`."""
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
        help=f"ablate the N with the largest estimates ({ATTRIBUTE['exact']})",
    )
    target.add_argument(
        "--controls",
        type=count,
        metavar="N",
        help=f"ablate N other features ({ATTRIBUTE['controls']}), or with --share N random sets "
        f"({MINIMAL['controls']}), for comparison",
    )
    smallest = target.add_argument_group("the smallest set")
    smallest.add_argument("--share", type=share, metavar="S", help="search a set that takes this share away, as 0.5")
    smallest.add_argument(
        "--most", type=positive_int, metavar="N", help=f"the set has at most N features ({MINIMAL['most']})"
    )
    smallest.add_argument("--penalty", type=penalty, metavar="P", help=PENALTY)
    smallest.add_argument("--neutral-tokens", type=count, metavar="N", help="neutral tokens to measure KL on (0)")


VERBS = (
    Verb(
        "attribute",
        "which features an answer depends on, tested by ablation",
        attribute,
        add_attribute_options,
        saves=True,
    ),
)

"""The verbs that generate text: generate, probes."""

from __future__ import annotations

import argparse

from engine.cli.command import Command, Verb, edits, sampling, variants
from engine.cli.options import VARIANT, add_edit_options, add_prompts_option, positive_int
from engine.cli.printing import texts as printing
from engine.records import Generate, Generated, ProbeTable, Prompt, RunProbes
from engine.records.errors import UsageError
from engine.records.texts import check_sampling


def add_generate_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `generate`."""
    target.add_argument("prompt", metavar="PROMPT")
    target.add_argument("--raw", action="store_true", help="without the model's chat template")
    target.add_argument("--prefill", default="", metavar="TEXT", help="put into the model's mouth before it goes on")
    target.add_argument("--compare", action="store_true", help="print both arms, not the edited one alone")
    target.add_argument("--samples", type=positive_int, default=1, metavar="N", help="sample each arm N times (1)")
    target.add_argument("--variant", action="append", default=[], metavar="EDITS", help=VARIANT)
    target.add_argument("--prompts", metavar="SET", help="whose [settings] --published takes (the preset's)")
    add_edit_options(target, max_tokens=64)


def generate(command: Command) -> None:
    """saescope generate PROMPT"""
    args = command.args
    if args.prompts and args.published is None:
        raise UsageError("generate reads --prompts for --published alone.", "Add --published FEATURE, or leave it out.")
    request = Generate(
        Prompt(args.prompt, "raw" if args.raw else "chat"),
        edits(args, command.prompts().settings if args.published is not None else None),
        sampling(args),
        prefill=args.prefill,
        samples=args.samples,
        variants=variants(args),
    )
    check_sampling(request.sampling, request.samples)
    loaded = command.open()
    result = command.ask(request, Generated)
    command.printer.generated(result, compare=args.compare)
    command.record(loaded, result)


def add_probes_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `probes`."""
    add_prompts_option(target)
    add_edit_options(target, max_tokens=24)


def probes(command: Command) -> None:
    """saescope probes"""
    chosen = command.prompts()
    request = RunProbes(chosen.probes, edits(command.args, chosen.settings), sampling(command.args))
    check_sampling(request.sampling)
    loaded = command.open()
    result = command.ask(request, ProbeTable)
    command.printer.result(printing.probe_table, result)
    command.record(loaded, result, chosen)


VERBS = (
    Verb("generate", "continue a prompt, baseline and edited side by side", generate, add_generate_options, saves=True),
    Verb(
        "probes",
        "every probe of a prompt set, baseline and edited, as one table",
        probes,
        add_probes_options,
        saves=True,
    ),
)

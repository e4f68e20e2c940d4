"""The verbs that load a pair and show something; sessions are saved.py's, causes causal.py's."""

from __future__ import annotations

import sys

from engine.arguments import DEFAULT_SET
from engine.cli import given
from engine.cli.command import Command
from engine.cli.toward import measure
from engine.errors import SaescopeError, UsageError
from engine.records import (
    Describe,
    Described,
    Diagnosis,
    Doctor,
    Edit,
    Generate,
    Generated,
    ProbeTable,
    Prompt,
    Rank,
    Ranking,
    RunProbes,
    Sampling,
    Show,
    Shown,
)
from engine.requests import check_sampling
from engine.sources import presets


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
    asked = None
    if args.toward or args.against:
        asked = measure(args.toward, args.against, chosen.probes, command.printer.note)
    loaded = command.open()
    request = Describe(args.feature, (*chosen.positive, *chosen.negative), args.top, asked)
    command.printer.described(command.ask(request, Described), loaded.neuronpedia)


def generate(command: Command) -> None:
    """saescope generate PROMPT"""
    args = command.args
    if args.prompts and args.published is None:
        raise UsageError("generate reads --prompts for --published alone.", "Add --published FEATURE, or leave it out.")
    request = Generate(
        Prompt(args.prompt, "raw" if args.raw else "chat"),
        given.edits(args, command.prompts().settings if args.published is not None else None),
        given.sampling(args),
        prefill=args.prefill,
        samples=args.samples,
        variants=given.variants(args),
    )
    check_sampling(request.sampling, request.samples)
    loaded = command.open()
    result = command.ask(request, Generated)
    command.printer.generated(result, compare=args.compare)
    command.record(loaded, result)


def probes(command: Command) -> None:
    """saescope probes"""
    chosen = command.prompts()
    request = RunProbes(chosen.probes, given.edits(command.args, chosen.settings), given.sampling(command.args))
    check_sampling(request.sampling)
    loaded = command.open()
    result = command.ask(request, ProbeTable)
    command.printer.probe_table(result)
    command.record(loaded, result, chosen)


def doctor(command: Command) -> None:
    """saescope doctor"""
    command.open()
    diagnosis = command.ask(Doctor(), Diagnosis)
    command.printer.diagnosis(diagnosis)
    if any(check.ok is False for check in diagnosis.checks):
        raise SaescopeError("The doctor found something wrong; see the checks above.")


def tour(command: Command) -> None:
    """saescope tour"""
    the_edits = tuple(Edit(feature) for feature in given.list_of_demo(command.args, "gender"))
    command.printer.heading("1  Which features tell prompts about gender bias from others?")
    chosen = given.prompt_set(DEFAULT_SET)
    loaded = command.open()
    ranking = command.ask(Rank(chosen, top=10), Ranking)
    command.printer.ranking(ranking)
    best = ranking.features[0].feature
    command.printer.heading(f"2  Where does feature {best} fire?")
    command.printer.shown(command.ask(Show(best, (*chosen.positive[:4], *chosen.negative[:4])), Shown), 4)
    command.printer.heading(f"3  What does the model say without the {len(the_edits)} features of the list @gender?")
    question = Prompt(chosen.probes[0].text, "chat")
    result = command.ask(Generate(question, the_edits, Sampling(max_tokens=32)), Generated)
    command.printer.generated(result, compare=True)
    command.printer.heading("4  Every probe, baseline and edited")
    table = command.ask(RunProbes(chosen.probes, the_edits, Sampling(max_tokens=20)), ProbeTable)
    command.printer.probe_table(table)
    command.record(loaded, ranking, chosen)
    command.record(loaded, table, chosen)
    command.printer.tour_end()


def list_presets(command: Command) -> None:
    """saescope presets"""
    command.printer.presets(presets.everyone())


def run_bench(command: Command) -> None:
    """saescope bench"""
    from engine.bench import run, table  # late, for torch

    args = command.args
    report = run.run(run.chosen_rows(args.rows), args.device, args.quick, args.model, command.printer.note)
    if args.json:
        sys.stdout.write(table.to_json(report) + "\n")
    else:
        table.show(report, command.printer.out)

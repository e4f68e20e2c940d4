"""The verbs about the pair and the machine: doctor, tour, presets, bench."""

from __future__ import annotations

import argparse

from engine.cli.command import Command, Verb, list_of_demo, prompt_set
from engine.cli.options import DEFAULT_SET
from engine.cli.printing import features, texts
from engine.cli.printing import pair as printing
from engine.cli.printing.printer import write_json
from engine.loading import presets
from engine.records import (
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
from engine.records.errors import SaescopeError


def doctor(command: Command) -> None:
    """saescope doctor"""
    command.open()
    diagnosis = command.ask(Doctor(), Diagnosis)
    command.printer.result(printing.diagnosis, diagnosis)
    if any(check.ok is False for check in diagnosis.checks):
        raise SaescopeError("The doctor found something wrong; see the checks above.")


def tour(command: Command) -> None:
    """saescope tour"""
    the_edits = tuple(Edit(feature) for feature in list_of_demo(command.args, "gender"))
    command.printer.heading("1  Which features tell prompts about gender bias from others?")
    chosen = prompt_set(DEFAULT_SET)
    loaded = command.open()
    ranking = command.ask(Rank(chosen, top=10), Ranking)
    command.printer.result(features.ranking, ranking)
    best = ranking.features[0].feature
    command.printer.heading(f"2  Where does feature {best} fire?")
    shown = command.ask(Show(best, (*chosen.positive[:4], *chosen.negative[:4])), Shown)
    command.printer.result(features.shown, shown, 4)
    command.printer.heading(f"3  What does the model say without the {len(the_edits)} features of the list @gender?")
    question = Prompt(chosen.probes[0].text, "chat")
    result = command.ask(Generate(question, the_edits, Sampling(max_tokens=32)), Generated)
    command.printer.generated(result, compare=True)
    command.printer.heading("4  Every probe, baseline and edited")
    table = command.ask(RunProbes(chosen.probes, the_edits, Sampling(max_tokens=20)), ProbeTable)
    command.printer.result(texts.probe_table, table)
    command.record(loaded, ranking, chosen)
    command.record(loaded, table, chosen)
    command.printer.tour_end()


def list_presets(command: Command) -> None:
    """saescope presets"""
    command.printer.presets(presets.everyone())


def run_bench(command: Command) -> None:
    """saescope bench"""
    from engine.bench import run, table  # late, because it imports torch

    args = command.args
    report = run.run(run.chosen_rows(args.rows), args.device, args.quick, args.model, command.printer.note)
    if args.json:
        write_json(table.to_json(report))
    else:
        table.show(report, command.printer.out)


def add_bench_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `bench`."""
    target.add_argument("--rows", metavar="N,N", help="only these rows (all)")
    target.add_argument("--quick", action="store_true", help="smaller shapes, not comparable with the goals")
    target.add_argument("--device", help="cpu, cuda or cuda:N (cpu)")
    target.add_argument("--model", help="for row 9: model folder or hub name (the packaged demo)")


DOCTOR = Verb("doctor", "check that the SAE is wired right to the model", doctor)

VERBS = (
    Verb(
        "bench",
        "measure how fast this is here: rows of the scoreboard",
        run_bench,
        add_bench_options,
        loads=False,
    ),
    Verb("tour", "the whole job on the packaged demo, step by step", tour, saves=True, json=False),
    Verb(
        "presets",
        "pairs of model and SAE that belong together: --preset NAME takes one",
        list_presets,
        loads=False,
    ),
)

"""The command line: parsing, running one verb, exit codes. What is printed looks like is printing.py's.

Exit codes: 0 done, 1 the work failed, 2 bad usage, 130 stopped with Ctrl+C.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

import prompts
from engine import export, feature_lists, prompt_sets, session
from engine.arguments import DEFAULT_SET, parser
from engine.client import EngineClient, RequestCancelled, ask
from engine.errors import EditError, SaescopeError, SessionError, UsageError
from engine.printing import Printer
from engine.records import (
    Describe,
    Described,
    Diagnosis,
    Doctor,
    Edit,
    Generate,
    Generated,
    Load,
    Loaded,
    ProbeTable,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RankReplayed,
    Replay,
    Replayed,
    ReplayRank,
    Request,
    RunProbes,
    Sampling,
    Show,
    Shown,
)
from engine.sources import presets

T = TypeVar("T")


class Command:
    """One run of the command line: parsed arguments, the engine, the printer, the session being added to."""

    def __init__(self, args: argparse.Namespace, printer: Printer, connect: Callable[[], EngineClient]) -> None:
        self.args, self.printer, self._connect = args, printer, connect
        self.client: EngineClient | None = None
        load = Load(**{name: getattr(args, name, None) for name in Load.__struct_fields__})
        self.preset = presets.find(args.preset) if getattr(args, "preset", None) else None
        self.load = presets.applied(self.preset, load) if self.preset else load

    def open(self) -> Loaded:
        """Loads model and SAE."""
        if getattr(self.args, "session", None) and Path(self.args.session).exists():
            session.read(Path(self.args.session))  # a broken file is better found before the work than after
        self.client = self._connect()
        loaded = self.ask(self.load, Loaded)
        self.printer.loaded(loaded)
        return loaded

    def prompts(self) -> PromptSet:
        """The prompt set asked for, else the preset's, else the one that comes with saescope."""
        return prompt_set(self.args.prompts or (self.preset.prompts if self.preset else DEFAULT_SET))

    def ask(self, request: Request, kind: type[T]) -> T:
        """Runs one request, its progress shown."""
        assert self.client is not None
        with self.printer.watching() as on_event:
            return ask(self.client, request, kind, on_event)

    def record(self, loaded: Loaded, result: session.Result, prompt_set: PromptSet | None = None) -> None:
        """Adds a result to the session file, if one was asked for."""
        if self.args.session is None:
            return
        path = Path(self.args.session)
        current = session.read(path) if path.exists() else session.new(self.load, loaded)
        if current.loaded is None:  # the app's, saved before anything was loaded
            current = msgspec.structs.replace(current, load=self.load, loaded=loaded)
        other = session.differences(current.loaded or loaded, loaded)
        if other:
            raise SessionError(f"{path} was recorded with another {', '.join(other)}.", "Give --session a new file.")
        session.write(session.add(current, result, prompt_set), path)
        self.printer.note(f"saved to {path}")


# ---- verbs


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
    chosen = command.prompts()
    command.open()
    request = Describe(command.args.feature, (*chosen.positive, *chosen.negative), command.args.top)
    command.printer.described(command.ask(request, Described))


def generate(command: Command) -> None:
    """saescope generate PROMPT"""
    args = command.args
    request = Generate(Prompt(args.prompt, "raw" if args.raw else "chat"), edits(args), sampling(args))
    loaded = command.open()
    result = command.ask(request, Generated)
    command.printer.generated(result, compare=args.compare)
    command.record(loaded, result)


def probes(command: Command) -> None:
    """saescope probes"""
    chosen = command.prompts()
    request = RunProbes(chosen.probes, edits(command.args), sampling(command.args))
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


def replay(command: Command) -> None:
    """saescope replay SESSION"""
    args = command.args
    recorded = session.read(Path(args.file))
    generations = [*recorded.generations, *(r.generated for t in recorded.probe_tables for r in t.rows)]
    if recorded.loaded is None or not (generations or recorded.rankings):
        raise SessionError(f"{args.file} holds no results to replay.", "Rank or generate with --session FILE first.")
    overrides = {name: getattr(command.load, name) for name in ("model", "sae", "hook", "device", "dtype", "threads")}
    kept = {"dtype": recorded.loaded.dtype, "threads": recorded.loaded.threads}
    if recorded.loaded.device == "cpu":  # a GPU may have another number here, or be missing: then the default
        kept["device"] = "cpu"
    changes = {**kept, **{name: value for name, value in overrides.items() if value is not None}}
    command.load = msgspec.structs.replace(recorded.load, **changes)
    loaded = command.open()
    command.printer.differences(recorded.loaded, loaded)
    rankings = [(r, command.ask(ReplayRank(r), RankReplayed)) for r in recorded.rankings]
    again = [(g, command.ask(Replay(g), Replayed)) for g in generations]
    command.printer.replayed(rankings, again)


def export_session(command: Command) -> None:
    """saescope export SESSION"""
    args = command.args
    recorded = session.read(Path(args.file))
    if args.format == "csv":
        text = export.to_csv(recorded, args.table)
    else:
        text = export.to_jsonl(recorded) if args.format == "jsonl" else export.to_markdown(recorded)
    if args.output is None:
        sys.stdout.write(text)
        return
    try:
        Path(args.output).write_text(text, "utf-8")
    except OSError as error:
        raise SaescopeError(f"Cannot write {args.output}: {error.strerror}.", "Choose another place.") from error


def tour(command: Command) -> None:
    """saescope tour"""
    the_edits = tuple(packaged_list(command.args, "gender"))
    command.printer.heading("1  Which features tell prompts about gender bias from others?")
    chosen = prompt_set(DEFAULT_SET)
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


VERBS: dict[str, Callable[[Command], None]] = {
    "rank": rank,
    "show": show,
    "feature": feature,
    "generate": generate,
    "probes": probes,
    "doctor": doctor,
    "replay": replay,
    "export": export_session,
    "tour": tour,
    "bench": run_bench,
    "presets": list_presets,
}


# ---- arguments to records


def prompt_set(name_or_path: str) -> PromptSet:
    """A prompt set file as the engine's record."""
    return prompt_sets.from_file(prompts.load(name_or_path))


def edits(args: argparse.Namespace) -> tuple[Edit, ...]:
    """The edits of --ablate and --scale. Raises EditError."""
    found = []
    for value in args.ablate:
        if value.startswith("@"):
            found += packaged_list(args, value[1:])
        else:
            found.append(Edit(feature_number(value, "--ablate")))
    for value in args.scale:
        number, _, scale = value.partition("=")
        try:
            found.append(Edit(feature_number(number, "--scale"), float(scale)))
        except ValueError:
            raise EditError(f"--scale {value}: expected FEATURE=FACTOR.", "For example --scale 4133=0.125.") from None
    return tuple(found)


def packaged_list(args: argparse.Namespace, name: str) -> list[Edit]:
    """Ablations of a packaged feature list. Raises EditError where another SAE is loaded."""
    for option, other in (("--sae", args.sae is not None), ("--preset", args.preset not in (None, "demo"))):
        if other:
            raise EditError(f"The list @{name} belongs to the demo SAE.", f"Leave {option} out, or name features.")
    return [Edit(number) for number in feature_lists.read(name)]


def feature_number(text: str, option: str) -> int:
    """A feature's number. Raises EditError."""
    if not text.isdecimal():
        raise EditError(f"{option} {text}: a feature is a number.", f"For example {option} 4133.")
    return int(text)


def sampling(args: argparse.Namespace) -> Sampling:
    """How tokens are chosen."""
    return Sampling(args.max_tokens, args.temperature, args.seed)


# ---- running


def local_client() -> EngineClient:
    """The in-process engine, imported late: parsing and errors of usage should not wait for torch."""
    from engine.local import LocalClient

    return LocalClient()


def main(argv: Sequence[str], connect: Callable[[], EngineClient] = local_client) -> int:
    """Runs one command; returns its exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="%(name)s: %(message)s")
    args = parser().parse_args(list(argv))
    printer = Printer(json=getattr(args, "json", False))
    try:
        VERBS[args.verb](Command(args, printer, connect))
    except (SaescopeError, prompts.PromptSetError) as error:
        printer.error(error.message, error.remedy)
        return error.exit_code if isinstance(error, UsageError) else 1
    except (KeyboardInterrupt, RequestCancelled):
        printer.error("Stopped.", "")
        return 130
    except BrokenPipeError:
        return 0
    return 0

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
from engine import export, feature_lists, session
from engine.client import EngineClient, RequestCancelled, ask
from engine.errors import EditError, SaescopeError, SessionError, UsageError
from engine.printing import Printer
from engine.records import (
    RANK_COLUMNS,
    Answer,
    Describe,
    Described,
    Diagnosis,
    Doctor,
    Edit,
    Generate,
    Generated,
    Load,
    Loaded,
    Probe,
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

DEFAULT_SET = "gender_bias"
T = TypeVar("T")


class Command:
    """One run of the command line: parsed arguments, the engine, the printer, the session being added to."""

    def __init__(self, args: argparse.Namespace, printer: Printer, connect: Callable[[], EngineClient]) -> None:
        self.args, self.printer, self._connect = args, printer, connect
        self.client: EngineClient | None = None
        self.load = Load(**{name: getattr(args, name, None) for name in Load.__struct_fields__})

    def open(self) -> Loaded:
        """Loads model and SAE."""
        self.client = self._connect()
        loaded = self.ask(self.load, Loaded)
        self.printer.loaded(loaded)
        return loaded

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
        if current.loaded.sae_fingerprint != loaded.sae_fingerprint:
            raise SessionError(f"{path} belongs to another SAE.", "Give --session a new file.")
        session.write(session.add(current, result, prompt_set), path)
        self.printer.note(f"saved to {path}")


# ---- verbs


def rank(command: Command) -> None:
    """saescope rank"""
    args = command.args
    chosen = prompt_set(args.prompts)
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
    command.record(loaded, result, chosen)
    command.printer.ranking(result)


def show(command: Command) -> None:
    """saescope show FEATURE"""
    chosen = prompt_set(command.args.prompts)
    command.open()
    result = command.ask(Show(command.args.feature, (*chosen.positive, *chosen.negative)), Shown)
    command.printer.shown(result, len(chosen.positive))


def feature(command: Command) -> None:
    """saescope feature FEATURE"""
    chosen = prompt_set(command.args.prompts)
    command.open()
    request = Describe(command.args.feature, (*chosen.positive, *chosen.negative), command.args.top)
    command.printer.described(command.ask(request, Described))


def generate(command: Command) -> None:
    """saescope generate PROMPT"""
    args = command.args
    request = Generate(Prompt(args.prompt, "raw" if args.raw else "chat"), edits(args), sampling(args))
    loaded = command.open()
    result = command.ask(request, Generated)
    command.record(loaded, result)
    command.printer.generated(result, compare=args.compare)


def probes(command: Command) -> None:
    """saescope probes"""
    chosen = prompt_set(command.args.prompts)
    request = RunProbes(chosen.probes, edits(command.args), sampling(command.args))
    loaded = command.open()
    result = command.ask(request, ProbeTable)
    command.record(loaded, result, chosen)
    command.printer.probe_table(result)


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
    overrides = {name: getattr(args, name) for name in ("model", "sae", "hook", "device", "dtype", "threads")}
    kept = {"dtype": recorded.loaded.dtype, "threads": recorded.loaded.threads}
    if recorded.loaded.device == "cpu":  # a GPU may have another number here, or be missing: then the default
        kept["device"] = "cpu"
    changes = {**kept, **{name: value for name, value in overrides.items() if value is not None}}
    command.load = msgspec.structs.replace(recorded.load, **changes)
    loaded = command.open()
    command.printer.differences(recorded.loaded, loaded)
    generations = [*recorded.generations, *(r.generated for t in recorded.probe_tables for r in t.rows)]
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
}


# ---- arguments to records


def prompt_set(name_or_path: str) -> PromptSet:
    """A prompt set file as the engine's record."""
    found = prompts.load(name_or_path)
    return PromptSet(
        name=found.name,
        positive=tuple(Prompt(e.text, found.format) for e in found.positive),
        negative=tuple(Prompt(e.text, found.format) for e in found.negative),
        probes=tuple(
            Probe(p.text, p.format, p.prefill, tuple(Answer(name, strings) for name, strings in p.answers.items()))
            for p in found.probe
        ),
    )


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
    if args.sae is not None:
        raise EditError(f"The list @{name} belongs to the demo SAE.", "Leave --sae out, or name features.")
    return [Edit(number) for number in feature_lists.read(name)]


def feature_number(text: str, option: str) -> int:
    """A feature's number. Raises EditError."""
    if not text.isdecimal():
        raise EditError(f"{option} {text}: a feature is a number.", f"For example {option} 4133.")
    return int(text)


def sampling(args: argparse.Namespace) -> Sampling:
    """How tokens are chosen."""
    return Sampling(args.max_tokens, args.temperature, args.seed)


# ---- parsing


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    loads, saves, machine = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    add_load_options(loads)
    saves.add_argument("--session", metavar="FILE", help="add the result to this session file")
    machine.add_argument("--json", action="store_true", help="one JSON object on standard output")
    main_parser = argparse.ArgumentParser(
        prog="saescope", description="Explore sparse-autoencoder features of language models in the terminal."
    )
    verbs = main_parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, help: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help, description=help, parents=parents or [loads, machine])

    saved = (loads, saves, machine)
    add_rank_options(verb("rank", "rank features by how well they tell positive prompts from negative ones", *saved))
    one = verb("show", "one feature's activation on every token, as coloured text")
    one.add_argument("feature", type=int, metavar="FEATURE")
    add_prompts_option(one)
    one = verb("feature", "one feature: strongest tokens, promoted and suppressed tokens")
    one.add_argument("feature", type=int, metavar="FEATURE")
    one.add_argument("--top", type=positive_int, default=10, help="how many of each (10)")
    add_prompts_option(one)
    one = verb("generate", "continue a prompt, baseline and edited side by side", *saved)
    one.add_argument("prompt", metavar="PROMPT")
    one.add_argument("--raw", action="store_true", help="without the model's chat template")
    one.add_argument("--compare", action="store_true", help="print both arms, not the edited one alone")
    add_edit_options(one, max_tokens=64)
    one = verb("probes", "every probe of a prompt set, baseline and edited, as one table", *saved)
    add_prompts_option(one)
    add_edit_options(one, max_tokens=24)
    verb("doctor", "check that the SAE is wired right to the model")
    one = verb("replay", "run a saved session again and compare")
    one.add_argument("file", metavar="SESSION")
    no_options = argparse.ArgumentParser(add_help=False)
    add_export_options(verb("export", "a saved session as csv, jsonl or markdown", no_options))
    verb("tour", "the whole job on the packaged demo, step by step", loads, saves)
    return main_parser


def add_load_options(target: argparse.ArgumentParser) -> None:
    """What to load, of every verb that loads."""
    target.add_argument("--model", help="model folder or hub name (the packaged demo)")
    target.add_argument("--sae", help="SAE folder (the packaged demo's)")
    target.add_argument("--hook", help="hook point (the one the SAE names)")
    target.add_argument("--device", help="cpu, cuda or cuda:N (the first GPU, else the CPU)")
    target.add_argument("--dtype", help="float32, bfloat16 or float16 (the file's; on a CPU bfloat16 where native)")
    target.add_argument("--threads", type=positive_int, help="CPU threads")
    target.add_argument("--reference", help="text file that replaces the packaged neutral text")


def add_prompts_option(target: argparse.ArgumentParser) -> None:
    """--prompts."""
    target.add_argument("--prompts", default=DEFAULT_SET, help=f"prompt set: a file or a name ({DEFAULT_SET})")


def add_rank_options(target: argparse.ArgumentParser) -> None:
    """Options of `rank`."""
    add_prompts_option(target)
    target.add_argument("--top", type=positive_int, default=20, help="how many rows (20)")
    target.add_argument("--by", choices=RANK_COLUMNS, default="score", help="column to sort by (score)")
    target.add_argument("--pool", choices=("max", "mean", "sum", "fraction"), default="max", help="over tokens (max)")
    target.add_argument("--include-masked", action="store_true", help="count special and sink tokens too")
    target.add_argument("--no-density-weight", action="store_true", help="score = t, rare features not preferred")


def add_edit_options(target: argparse.ArgumentParser, max_tokens: int) -> None:
    """Edits and sampling, for verbs that generate."""
    target.add_argument(
        "--ablate", action="append", default=[], metavar="FEATURE|@LIST", help="set to zero; repeatable"
    )
    target.add_argument("--scale", action="append", default=[], metavar="FEATURE=FACTOR", help="multiply; repeatable")
    target.add_argument("--max-tokens", type=positive_int, default=max_tokens, help=f"({max_tokens})")
    target.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (0)")
    target.add_argument("--seed", type=int, default=0, help="for a temperature above 0 (0)")


def add_export_options(target: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    target.add_argument("file", metavar="SESSION")
    target.add_argument("--format", choices=("csv", "jsonl", "md"), default="md", help="(md)")
    target.add_argument("--table", choices=("features", "generations", "probes"), default="features", help="for csv")
    target.add_argument("--output", metavar="FILE", help="instead of standard output")


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def local_client() -> EngineClient:
    """The in-process engine, imported late: parsing and errors of usage should not wait for torch."""
    from engine.local import LocalClient

    return LocalClient()


def main(argv: Sequence[str], connect: Callable[[], EngineClient] = local_client) -> int:
    """Runs one command; returns its exit code."""
    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="%(name)s: %(message)s")
    args = parser().parse_args(list(argv) or ["tour"])
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

"""The verbs on a saved session: replay and export."""

from __future__ import annotations

import argparse
import sys

import msgspec

from engine.cli.command import Command, Verb
from engine.files import session
from engine.files.export import formats
from engine.files.paths import typed
from engine.files.recorded import replayable
from engine.records import Replay, Replayed
from engine.records.errors import SaescopeError, SessionError, UsageError


def replay(command: Command) -> None:
    """saescope replay SESSION"""
    args = command.args
    recorded = session.read(typed(args.file))
    results = replayable(recorded)
    if recorded.loaded is None or not results:
        remedy = "Rank, attribute or generate with --session FILE first."
        raise SessionError(f"{args.file} holds no results to replay.", remedy)
    overrides = {name: getattr(command.load, name) for name in ("model", "sae", "hook", "device", "dtype", "threads")}
    kept = {"dtype": recorded.loaded.dtype, "threads": recorded.loaded.threads}
    if recorded.loaded.device == "cpu":  # else the default: a GPU may have another number here, or be missing
        kept["device"] = "cpu"
    changes = {**kept, **{name: value for name, value in overrides.items() if value is not None}}
    if command.load.bos != "auto":
        changes["bos"] = command.load.bos
    command.load = msgspec.structs.replace(recorded.load, **changes)
    loaded = command.open()
    command.printer.differences(recorded.loaded, loaded)
    command.printer.replayed([(result, command.ask(Replay(result), Replayed)) for result in results])


def add_replay_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `replay`."""
    target.add_argument("file", metavar="SESSION")


def export(command: Command) -> None:
    """saescope export SESSION"""
    args = command.args
    recorded = session.read(typed(args.file))
    if args.format == "csv":
        text = formats.to_csv(recorded, args.table)
    else:
        text = formats.to_jsonl(recorded) if args.format == "jsonl" else formats.to_markdown(recorded)
    if args.output is None:
        sys.stdout.write(text)
        return
    output = typed(args.output)
    if output.exists() and output.samefile(typed(args.file)):
        raise UsageError(f"--output {args.output} is the session itself.", "Choose another place.")
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise SaescopeError(f"Cannot write {args.output}: {error.strerror}.", "Choose another place.") from error


def add_export_options(target: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    target.add_argument("file", metavar="SESSION")
    target.add_argument("--format", choices=("csv", "jsonl", "md"), default="md", help="(md)")
    target.add_argument("--table", choices=formats.TABLES, default="features", help="for csv (features)")
    target.add_argument("--output", metavar="FILE", help="instead of standard output")


VERBS = (
    Verb("replay", "run a saved session again and compare", replay, add_replay_options),
    Verb(
        "export",
        "a saved session as csv, jsonl or markdown",
        export,
        add_export_options,
        loads=False,
        json=False,
    ),
)

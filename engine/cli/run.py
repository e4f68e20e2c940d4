"""Running one verb: the table of verbs, errors, exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable, Sequence

import prompts
from engine.cli import attribute, features, pair, sessions, texts
from engine.cli.command import Command
from engine.cli.options import Parser, add_load_options
from engine.cli.printing import Printer
from engine.records.errors import SaescopeError, UsageError
from engine.records.words.safe_text import safe
from engine.serving.client import EngineClient, RequestCancelled

VERBS = {
    verb.name: verb
    for verb in (*features.VERBS, *attribute.VERBS, *texts.VERBS, pair.DOCTOR, *sessions.VERBS, *pair.VERBS)
}
"""Every verb, in the order of the help."""


def local_client() -> EngineClient:
    """Return the in-process engine. Imported late: parsing and usage errors should not wait for torch."""
    from engine.serving.local import LocalClient

    return LocalClient()


class SafeFormatter(logging.Formatter):
    """Makes log messages safe to show, since they quote names and values from files."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the message, traceback included."""
        return safe(super().format(record))


def hear_libraries() -> None:
    """Send the errors that libraries log, and their warnings, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)


def main(argv: Sequence[str], connect: Callable[[], EngineClient] = local_client) -> int:
    """Run one command; return its exit code."""
    hear_libraries()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # what its encoding lacks is no reason to stop
    args = parser().parse_args(list(argv))
    printer = Printer(json=getattr(args, "json", False))
    try:
        VERBS[args.verb].run(Command(args, printer, connect))
    except (SaescopeError, prompts.PromptSetError) as error:
        printer.error(error.message, error.remedy)
        return error.exit_code if isinstance(error, UsageError) else 1
    except (KeyboardInterrupt, RequestCancelled):
        printer.error("Stopped.", "")
        return 130
    except BrokenPipeError:
        return 0
    return 0


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    loads, saves, machine = (Parser(add_help=False) for _ in range(3))
    add_load_options(loads)
    saves.add_argument("--session", metavar="FILE", help="add the result to this session file")
    machine.add_argument("--json", action="store_true", help="one JSON object on standard output")
    main_parser = Parser(
        prog="saescope",
        description="Explore sparse-autoencoder features of language models in the terminal. Without a verb: the app "
        "(options: --preset --model --sae --hook --device --dtype --threads --reference --prompts FILE "
        "--session FILE).",
    )
    verbs = main_parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for verb in VERBS.values():
        parents = [loads] * verb.loads + [saves] * verb.saves + [machine] * verb.json
        verb.add_options(verbs.add_parser(verb.name, help=verb.help, description=verb.help, parents=parents))
    return main_parser

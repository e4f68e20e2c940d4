"""Running one verb: its table, errors, exit codes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence

import prompts
from engine.arguments import parser
from engine.cli import saved, verbs
from engine.cli.causal import attribute
from engine.cli.command import Command
from engine.client import EngineClient, RequestCancelled
from engine.errors import SaescopeError, UsageError
from engine.printing import Printer

VERBS: dict[str, Callable[[Command], None]] = {
    "rank": verbs.rank,
    "show": verbs.show,
    "feature": verbs.feature,
    "attribute": attribute,
    "generate": verbs.generate,
    "probes": verbs.probes,
    "doctor": verbs.doctor,
    "replay": saved.replay,
    "export": saved.export_session,
    "tour": verbs.tour,
    "bench": verbs.run_bench,
    "presets": verbs.list_presets,
}


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

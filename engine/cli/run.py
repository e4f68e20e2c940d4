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
from engine.safe_text import safe

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


class SafeFormatter(logging.Formatter):
    """Messages that are safe to show: they quote names and values out of files."""

    def format(self, record: logging.LogRecord) -> str:
        """The message, traceback included."""
        return safe(super().format(record))


def hear_libraries() -> None:
    """What libraries report as an error, and what they warn of, goes to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeFormatter("%(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.ERROR)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").setLevel(logging.WARNING)


def main(argv: Sequence[str], connect: Callable[[], EngineClient] = local_client) -> int:
    """Runs one command; returns its exit code."""
    hear_libraries()
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

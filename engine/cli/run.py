"""Running one verb: the table of verbs, errors, exit codes."""

from __future__ import annotations

import argparse
import io
import logging
import sys
from collections.abc import Callable, Sequence

import prompts
from engine.cli import pair as verbs
from engine.cli import sessions as saved
from engine.cli.attribute import add_attribute_options, attribute
from engine.cli.command import Command
from engine.cli.features import add_rank_options, feature, rank, show
from engine.cli.options import (
    Parser,
    add_edit_options,
    add_load_options,
    add_measure_options,
    add_prompts_option,
    positive_int,
)
from engine.cli.pair import add_bench_options
from engine.cli.printing import Printer
from engine.cli.sessions import add_export_options
from engine.cli.texts import add_generate_options, generate, probes
from engine.records.errors import SaescopeError, UsageError
from engine.records.words.tokens import safe
from engine.serving.client import EngineClient, RequestCancelled

VERBS: dict[str, Callable[[Command], None]] = {
    "rank": rank,
    "show": show,
    "feature": feature,
    "attribute": attribute,
    "generate": generate,
    "probes": probes,
    "doctor": verbs.doctor,
    "replay": saved.replay,
    "export": saved.export_session,
    "tour": verbs.tour,
    "bench": verbs.run_bench,
    "presets": verbs.list_presets,
}


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

    def verb(name: str, help: str, *parents: Parser) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help, description=help, parents=parents or (loads, machine))

    saved = (loads, saves, machine)
    add_rank_options(verb("rank", "rank features by how well they tell positive prompts from negative ones", *saved))
    one = verb("show", "one feature's activation on every token, as coloured text")
    one.add_argument("feature", type=int, metavar="FEATURE")
    add_prompts_option(one)
    one = verb("feature", "one feature: strongest tokens, logit lens, histogram, neighbours, what ablating it does")
    one.add_argument("feature", type=int, metavar="FEATURE")
    one.add_argument("--top", type=positive_int, default=10, help="how many of each (10)")
    add_prompts_option(one)
    add_measure_options(one)
    add_attribute_options(verb("attribute", "which features an answer depends on, tested by ablation", *saved))
    add_generate_options(verb("generate", "continue a prompt, baseline and edited side by side", *saved))
    one = verb("probes", "every probe of a prompt set, baseline and edited, as one table", *saved)
    add_prompts_option(one)
    add_edit_options(one, max_tokens=24)
    verb("doctor", "check that the SAE is wired right to the model")
    one = verb("replay", "run a saved session again and compare")
    one.add_argument("file", metavar="SESSION")
    no_options = Parser(add_help=False)
    add_export_options(verb("export", "a saved session as csv, jsonl or markdown", no_options))
    add_bench_options(verb("bench", "measure how fast this is here: rows of the scoreboard", machine))
    verb("tour", "the whole job on the packaged demo, step by step", loads, saves)
    verb("presets", "pairs of model and SAE that belong together: --preset NAME takes one", machine)
    return main_parser

"""The command line's arguments: verbs and their options, nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import NoReturn, get_args

from engine.records import Load, Positions
from engine.records.words.tokens import safe

DEFAULT_SET = "gender_bias"


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments, which it repeats, safe to show."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        super().error(safe(message))


def app_arguments(argv: Sequence[str]) -> tuple[Load, str | None, str | None, str | None] | None:
    """What the app is to open: what to load, a prompt set, a session file, a preset's name.

    None where a verb was given, or --help.
    """
    if argv and (not argv[0].startswith("-") or argv[0] in ("-h", "--help")):
        return None
    options = Parser(prog="saescope", usage="saescope [VERB] [options]", add_help=False)
    add_load_options(options)
    options.add_argument("--prompts")
    options.add_argument("--session")
    found = options.parse_args(argv)
    load = Load(**{name: getattr(found, name) for name in Load.__struct_fields__})
    return load, found.prompts, found.session, found.preset


def add_load_options(target: argparse.ArgumentParser) -> None:
    """What to load, of every verb that loads."""
    target.add_argument(
        "--preset", metavar="NAME", help="model, SAE and prompts that belong together; see `saescope presets`"
    )
    target.add_argument("--model", help="model folder or hub name (the packaged demo)")
    target.add_argument(
        "--sae", help="SAE folder, OWNER/REPOSITORY/PATH on the hub, or RELEASE/ID of SAELens (the packaged demo's)"
    )
    target.add_argument("--hook", help="hook point (the one the SAE names)")
    target.add_argument("--device", help="cpu, cuda or cuda:N (the first GPU, else the CPU)")
    target.add_argument("--dtype", help="float32, bfloat16 or float16 (the file's; on a CPU bfloat16 where native)")
    target.add_argument("--threads", type=positive_int, help="CPU threads")
    target.add_argument("--reference", help="text file that replaces the packaged neutral text")


def add_prompts_option(target: argparse.ArgumentParser) -> None:
    """--prompts."""
    target.add_argument("--prompts", help=f"prompt set: a file or a name (the preset's, else {DEFAULT_SET})")


def add_measure_options(target: argparse.ArgumentParser) -> None:
    """--toward and --against."""
    for option, default in (("--toward", "the first tracked answer"), ("--against", "the second")):
        target.add_argument(
            option,
            action="append",
            default=[],
            metavar="ANSWER",
            help=f"name of an answer that the probes track, or a string of your own; repeatable ({default}). A space "
            'in front matters: " she" is a word, "she" goes on with the word before it',
        )


EDITS = {
    "ablate": ("FEATURE|@LIST", "set to zero; repeatable, as the next four are"),
    "scale": ("FEATURE=FACTOR", "multiply the activation"),
    "set": ("FEATURE=MAXIMA", "set the activation, in units of the feature's maximum on the reference text"),
    "steer": ("FEATURE=MAXIMA", "push along the feature's direction wherever it fires or not, in the same units"),
    "project": ("FEATURE[=FACTOR]", "take out what lies along the feature's direction, or leave FACTOR times it"),
}
"""The options that are an edit each."""

RECONSTRUCT = "put the SAE's reconstruction in place of the vectors: lossy, what it misses (its error) is dropped"

AT = (
    "where the edits act: last is the prompt's last token; first-step the pass over the prompt, BOS included, whose "
    "effect stays in the prompt's keys and values, so later tokens see it (all). One edit's own: 4133=2@prompt"
)

PUBLISHED = "edit it as the prompt set's [settings] say that a study did: factor, reconstruction, positions"

VARIANT = (
    'one more arm with other edits, such as "scale 4133=0.5, ablate 12, reconstruct, at prompt"; beside the others in '
    "one batch; repeatable"
)


def add_edit_options(target: argparse.ArgumentParser, max_tokens: int) -> None:
    """Edits and sampling, for verbs that generate."""
    group = target.add_argument_group("edits")
    for word, (metavar, help) in EDITS.items():
        # one list for all of them: the order they are given in is the order of the edits
        group.add_argument(
            f"--{word}", action="append", dest="edits", default=[], metavar=metavar, type=partial(pair, word), help=help
        )
    group.add_argument(
        "--reconstruct", action="append_const", dest="edits", const=("reconstruct", ""), help=RECONSTRUCT
    )
    group.add_argument("--published", metavar="FEATURE", help=PUBLISHED)
    group.add_argument("--at", choices=get_args(Positions), default="all", help=AT)
    group = target.add_argument_group("sampling")
    group.add_argument("--max-tokens", type=positive_int, default=max_tokens, help=f"({max_tokens})")
    group.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (0)")
    group.add_argument("--seed", type=int, default=0, help="this and the next three for a temperature above 0 (0)")
    group.add_argument("--top-k", type=count, default=0, metavar="N", help="only the N likeliest tokens (0: all)")
    group.add_argument("--top-p", type=share, default=1.0, metavar="P", help="the likeliest that together have P (1)")
    group.add_argument(
        "--min-p", type=part, default=0.0, metavar="P", help="those at least P times as probable as the likeliest (0)"
    )
    group.add_argument(
        "--stop", type=some_text, action="append", default=[], metavar="STRING", help="end once it is there; repeatable"
    )


def positive_int(text: str) -> int:
    """An argparse type."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def count(text: str) -> int:
    """An argparse type: 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def share(text: str) -> float:
    """An argparse type: above 0, up to 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def part(text: str) -> float:
    """An argparse type: from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError("must be between 0 and 1")
    return value


def some_text(text: str) -> str:
    """An argparse type: not empty."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def pair(word: str, text: str) -> tuple[str, str]:
    """An argparse type: an option's name kept with its value."""
    return word, text


def penalty(text: str) -> float:
    """An argparse type: 0 or more, and finite."""
    value = float(text)
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value

"""The command line's arguments: verbs and their options, nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import NoReturn, get_args

from engine.records import Load, Positions, Sampling
from engine.records.edits import edit_forms
from engine.records.texts import SAMPLING, Setting
from engine.records.words.safe_text import safe

DEFAULT_SET = "gender_bias"


class Parser(argparse.ArgumentParser):
    """An argument parser whose error messages, which quote the arguments, are safe to show."""

    def error(self, message: str) -> NoReturn:
        """Print the error and end the program."""
        super().error(safe(message))


def app_arguments(argv: Sequence[str]) -> tuple[Load, str | None, str | None, str | None] | None:
    """Return what the app should open: what to load, a prompt set, a session file, a preset's name.

    None if the arguments are a verb's or ask for help.
    """
    if argv and (not argv[0].startswith("-") or argv[0] in ("-h", "--help")):
        return None
    options = Parser(prog="saescope", usage="saescope [VERB] [options]", add_help=False)
    add_load_options(options)
    options.add_argument("--prompts")
    options.add_argument("--session")
    args = options.parse_args(argv)
    load = Load(**{name: getattr(args, name) for name in Load.__struct_fields__})
    return load, args.prompts, args.session, args.preset


def add_load_options(target: argparse.ArgumentParser) -> None:
    """Add the options of every verb that loads a model and SAE."""
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
    target.add_argument(
        "--bos",
        choices=("auto", "always", "never"),
        default="auto",
        help="BOS before prompts: as SAE, tokenizer and chat template want it (auto), always one, or never one added",
    )


def add_prompts_option(target: argparse.ArgumentParser) -> None:
    """Add --prompts."""
    target.add_argument("--prompts", help=f"prompt set: a file or a name (the preset's, else {DEFAULT_SET})")


def add_measure_options(target: argparse.ArgumentParser) -> None:
    """Add --toward and --against."""
    for option, default in (("--toward", "the first tracked answer"), ("--against", "the second")):
        target.add_argument(
            option,
            action="append",
            default=[],
            metavar="ANSWER",
            help=f"name of an answer that the probes track, or a string of your own; repeatable ({default}). A space "
            'in front matters: " she" is a word, "she" goes on with the word before it',
        )


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
    """Add the options for edits and sampling, for verbs that generate."""
    group = target.add_argument_group("edits")
    for word, (_, form) in edit_forms().items():
        # all options share one list: their order on the command line is the order of the edits
        option, dest = f"--{word}", "edits"
        if form.takes:
            read = partial(pair, word)
            group.add_argument(
                option, action="append", dest=dest, default=[], metavar=form.takes, type=read, help=form.help
            )
        else:
            group.add_argument(option, action="append_const", dest=dest, const=(word, ""), help=form.help)
    group.add_argument("--published", metavar="FEATURE", help=PUBLISHED)
    group.add_argument("--at", choices=get_args(Positions), default="all", help=AT)
    group = target.add_argument_group("sampling")
    for setting in SAMPLING:
        add_setting(group, setting)
    group.set_defaults(max_tokens=max_tokens)


def add_setting(group: argparse._ArgumentGroup, setting: Setting) -> None:
    """Add the option of one sampling setting; `check_sampling` checks its limits."""
    group.add_argument(
        setting.option,
        type=setting.read_as,
        action="append" if setting.repeats else "store",
        default=[] if setting.repeats else getattr(Sampling(), setting.field),
        metavar=setting.metavar,
        help=setting.help,
    )


def positive_int(text: str) -> int:
    """Argparse type: a whole number, at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def count(text: str) -> int:
    """Argparse type: a whole number, at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value


def share(text: str) -> float:
    """Argparse type: a number above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError("must be above 0 and at most 1")
    return value


def pair(word: str, text: str) -> tuple[str, str]:
    """Argparse type, once `word` is bound: the option's name together with its value."""
    return word, text


def penalty(text: str) -> float:
    """Argparse type: a finite number, at least 0."""
    value = float(text)
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value

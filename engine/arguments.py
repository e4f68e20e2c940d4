"""The command line's arguments: verbs and their options, nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from math import inf
from typing import NoReturn, get_args

from msgspec.structs import fields

from engine.records import RANK_COLUMNS, Attribute, FindMinimalSet, Load, Positions
from engine.safe_text import safe

DEFAULT_SET = "gender_bias"
TABLES = ("features", "generations", "probes", "attributions", "sets")
CANDIDATES = "contrast: only the 200 features that tell positive from negative prompts best (all)"
PENALTY = "how much lost facts and a KL of 0.1 count against a share taken away (0: they are only reported)"
ATTRIBUTE, MINIMAL = ({f.name: f.default for f in fields(kind)} for kind in (Attribute, FindMinimalSet))
"""Default values of the requests' fields."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments, which it repeats, safe to show."""

    def error(self, message: str) -> NoReturn:
        """Ends the program."""
        super().error(safe(message))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
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


def add_rank_options(target: argparse.ArgumentParser) -> None:
    """Options of `rank`."""
    add_prompts_option(target)
    target.add_argument("--top", type=positive_int, default=20, help="how many rows (20)")
    target.add_argument("--by", choices=RANK_COLUMNS, default="score", help="column to sort by (score)")
    target.add_argument("--pool", choices=("max", "mean", "sum", "fraction"), default="max", help="over tokens (max)")
    target.add_argument("--include-masked", action="store_true", help="count special and sink tokens too")
    target.add_argument("--no-density-weight", action="store_true", help="score = t, rare features not preferred")


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


def add_attribute_options(target: argparse.ArgumentParser) -> None:
    """Options of `attribute`."""
    add_prompts_option(target)
    add_measure_options(target)
    target.add_argument("--candidates", choices=("all", "contrast"), default="all", help=CANDIDATES)
    target.add_argument(
        "--top", type=positive_int, metavar="N", help=f"rows ({ATTRIBUTE['top']}; those ablated are printed)"
    )
    target.add_argument(
        "--exact",
        type=count,
        metavar="N",
        help=f"ablate so many, those with the largest estimates ({ATTRIBUTE['exact']})",
    )
    target.add_argument(
        "--controls",
        type=count,
        metavar="N",
        help=f"ablate so many other features ({ATTRIBUTE['controls']}), or with --share random sets "
        f"({MINIMAL['controls']}), for comparison",
    )
    smallest = target.add_argument_group("the smallest set")
    smallest.add_argument("--share", type=share, metavar="S", help="search one that takes this share away, as 0.5")
    smallest.add_argument(
        "--most", type=positive_int, metavar="N", help=f"it has so many features at most ({MINIMAL['most']})"
    )
    smallest.add_argument("--penalty", type=penalty, metavar="P", help=PENALTY)
    smallest.add_argument("--neutral-tokens", type=count, metavar="N", help="neutral tokens to measure KL on (0)")


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


def add_generate_options(target: argparse.ArgumentParser) -> None:
    """Options of `generate`."""
    target.add_argument("prompt", metavar="PROMPT")
    target.add_argument("--raw", action="store_true", help="without the model's chat template")
    target.add_argument("--prefill", default="", metavar="TEXT", help="put into the model's mouth before it goes on")
    target.add_argument("--compare", action="store_true", help="print both arms, not the edited one alone")
    target.add_argument("--samples", type=positive_int, default=1, metavar="N", help="sample each arm N times (1)")
    target.add_argument("--variant", action="append", default=[], metavar="EDITS", help=VARIANT)
    target.add_argument("--prompts", metavar="SET", help="whose [settings] --published takes (the preset's)")
    add_edit_options(target, max_tokens=64)


def add_export_options(target: argparse.ArgumentParser) -> None:
    """Options of `export`."""
    target.add_argument("file", metavar="SESSION")
    target.add_argument("--format", choices=("csv", "jsonl", "md"), default="md", help="(md)")
    target.add_argument("--table", choices=TABLES, default="features", help="for csv (features)")
    target.add_argument("--output", metavar="FILE", help="instead of standard output")


def add_bench_options(target: argparse.ArgumentParser) -> None:
    """Options of `bench`."""
    target.add_argument("--rows", metavar="N,N", help="only these rows (all)")
    target.add_argument("--quick", action="store_true", help="smaller shapes, not comparable with the goals")
    target.add_argument("--device", help="cpu, cuda or cuda:N (cpu)")
    target.add_argument("--model", help="for row 9: model folder or hub name (the packaged demo)")


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

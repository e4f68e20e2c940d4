"""The command line's arguments: verbs and their options, nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import inf

from msgspec.structs import fields

from engine.records import RANK_COLUMNS, Attribute, FindMinimalSet, Load

DEFAULT_SET = "gender_bias"
TABLES = ("features", "generations", "probes", "attributions", "sets")
CANDIDATES = "contrast: only the 200 features that tell positive from negative prompts best (all)"
PENALTY = "how much lost facts and a KL of 0.1 count against a share taken away (0: they are only reported)"
ATTRIBUTE, MINIMAL = ({f.name: f.default for f in fields(kind)} for kind in (Attribute, FindMinimalSet))
"""Default values of the requests' fields."""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    loads, saves, machine = (argparse.ArgumentParser(add_help=False) for _ in range(3))
    add_load_options(loads)
    saves.add_argument("--session", metavar="FILE", help="add the result to this session file")
    machine.add_argument("--json", action="store_true", help="one JSON object on standard output")
    main_parser = argparse.ArgumentParser(
        prog="saescope",
        description="Explore sparse-autoencoder features of language models in the terminal. Without a verb: the app "
        "(options: --preset --model --sae --hook --device --dtype --threads --reference --prompts FILE "
        "--session FILE).",
    )
    verbs = main_parser.add_subparsers(dest="verb", metavar="VERB", required=True)

    def verb(name: str, help: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=help, description=help, parents=parents or [loads, machine])

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
    options = argparse.ArgumentParser(prog="saescope", usage="saescope [VERB] [options]", add_help=False)
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


def penalty(text: str) -> float:
    """An argparse type: 0 or more, and finite."""
    value = float(text)
    if not 0 <= value < inf:
        raise argparse.ArgumentTypeError("must be at least 0")
    return value

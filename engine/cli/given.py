"""Arguments as the engine's records."""

from __future__ import annotations

import argparse

import prompts
from engine import feature_lists, prompt_sets
from engine.errors import EditError
from engine.records import Edit, PromptSet, Sampling


def prompt_set(name_or_path: str) -> PromptSet:
    """A prompt set file as the engine's record."""
    return prompt_sets.from_file(prompts.load(name_or_path))


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
    for option, other in (("--sae", args.sae is not None), ("--preset", args.preset not in (None, "demo"))):
        if other:
            raise EditError(f"The list @{name} belongs to the demo SAE.", f"Leave {option} out, or name features.")
    return [Edit(number) for number in feature_lists.read(name)]


def feature_number(text: str, option: str) -> int:
    """A feature's number. Raises EditError."""
    if not text.isdecimal():
        raise EditError(f"{option} {text}: a feature is a number.", f"For example {option} 4133.")
    return int(text)


def sampling(args: argparse.Namespace) -> Sampling:
    """How tokens are chosen."""
    return Sampling(args.max_tokens, args.temperature, args.seed)

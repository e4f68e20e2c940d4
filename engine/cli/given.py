"""Arguments as the engine's records."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from functools import partial

import prompts
from engine import edit_specs, feature_lists, prompt_sets
from engine.errors import EditError
from engine.prompt_sets import as_published
from engine.records import Edit, PromptSet, Sampling


def prompt_set(name_or_path: str) -> PromptSet:
    """A prompt set file as the engine's record."""
    return prompt_sets.from_file(prompts.load(name_or_path))


def edits(args: argparse.Namespace, settings: Mapping[str, bool | float | str] | None = None) -> tuple[Edit, ...]:
    """The edits given, those of --published first: as these settings of a prompt set say. Raises UsageError."""
    found: list[Edit] = []
    if args.published is not None:
        found += as_published(settings or {}, edit_specs.feature_number(args.published, "--published"))
    for word, value in args.edits:
        found += edit_specs.parse(word, value, args.at, partial(list_of_demo, args))
    return tuple(found)


def variants(args: argparse.Namespace) -> tuple[tuple[Edit, ...], ...]:
    """The edits of every --variant. Raises EditError."""
    return tuple(edit_specs.parse_list(spec, args.at, partial(list_of_demo, args)) for spec in args.variant)


def list_of_demo(args: argparse.Namespace, name: str) -> list[int]:
    """A packaged feature list. Raises EditError where another SAE is loaded."""
    for option, other in (("--sae", args.sae is not None), ("--preset", args.preset not in (None, "demo"))):
        if other:
            raise EditError(f"The list @{name} belongs to the demo SAE.", f"Leave {option} out, or name features.")
    return feature_lists.read(name)


def sampling(args: argparse.Namespace) -> Sampling:
    """How tokens are chosen."""
    values = {name: getattr(args, name) for name in Sampling.__struct_fields__}
    return Sampling(**values | {"stop": tuple(args.stop)})

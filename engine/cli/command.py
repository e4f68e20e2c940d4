"""One run of the command line, with what every verb needs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import msgspec

import prompts
from engine.cli.options import DEFAULT_SET
from engine.cli.printing import Printer
from engine.files import prompt_sets, session
from engine.files.paths import typed
from engine.files.prompt_sets import as_published
from engine.loading import presets
from engine.loading.demo import feature_lists
from engine.records import Edit, Load, Loaded, PromptSet, Recorded, Request, Sampling
from engine.records.errors import EditError, SessionError
from engine.records.words import edits as edit_specs
from engine.serving.client import EngineClient, ask

T = TypeVar("T")


class Command:
    """One run of the command line: parsed arguments, the engine, the printer, the session being added to."""

    def __init__(self, args: argparse.Namespace, printer: Printer, connect: Callable[[], EngineClient]) -> None:
        self.args, self.printer, self._connect = args, printer, connect
        self.client: EngineClient | None = None
        load = Load(**{name: value for name, value in vars(args).items() if name in Load.__struct_fields__})
        self.preset = presets.find(args.preset) if getattr(args, "preset", None) else None
        self.load = presets.applied(self.preset, load) if self.preset else load

    def open(self) -> Loaded:
        """Load model and SAE."""
        if getattr(self.args, "session", None):
            session.read_if_there(typed(self.args.session))  # find a broken file before the work, not after
        self.client = self._connect()
        loaded = self.ask(self.load, Loaded)
        self.printer.loaded(loaded)
        return loaded

    def prompts(self) -> PromptSet:
        """Return the prompt set that --prompts names, else the preset's, else saescope's default."""
        return prompt_set(self.args.prompts or (self.preset.prompts if self.preset else DEFAULT_SET))

    def ask(self, request: Request, kind: type[T]) -> T:
        """Run one request and show its progress."""
        assert self.client is not None
        with self.printer.watching() as on_event:
            return ask(self.client, request, kind, on_event)

    def record(self, loaded: Loaded, result: Recorded, prompt_set: PromptSet | None = None) -> None:
        """Add a result to the session file, if --session names one."""
        if self.args.session is None:
            return
        path = typed(self.args.session)
        current = session.read_if_there(path) or session.new(self.load, loaded)
        if current.loaded is None:  # a session that the app saved before it loaded anything
            current = msgspec.structs.replace(current, load=self.load, loaded=loaded)
        other = session.differences(current.loaded or loaded, loaded)
        if other:
            raise SessionError(f"{path} was recorded with another {', '.join(other)}.", "Give --session a new file.")
        session.write(session.add(current, result, prompt_set), path)
        self.printer.note(f"saved to {path}")


def no_options(target: argparse.ArgumentParser) -> None:
    """Add no options."""


@dataclass(frozen=True)
class Verb:
    """A verb of the command line: its function, its own options, and which of the common ones it takes."""

    name: str
    help: str
    run: Callable[[Command], None]
    add_options: Callable[[argparse.ArgumentParser], None] = no_options
    loads: bool = True
    """Whether it takes the options that say what to load."""
    saves: bool = False
    """Whether it takes --session."""
    json: bool = True
    """Whether it takes --json."""


def prompt_set(name_or_path: str) -> PromptSet:
    """Return a prompt set file as the engine's record."""
    return prompt_sets.from_file(prompts.load(name_or_path))


def edits(args: argparse.Namespace, settings: Mapping[str, bool | float | str] | None = None) -> tuple[Edit, ...]:
    """Return the edits on the command line, those of --published first.

    `settings` are the prompt set's, which say how --published edits the feature. Raises UsageError.
    """
    parsed: list[Edit] = []
    if args.published is not None:
        parsed += as_published(settings or {}, edit_specs.feature_number(args.published, "--published"))
    for word, value in args.edits:
        parsed += edit_specs.parse(word, value, args.at, partial(list_of_demo, args))
    return tuple(parsed)


def variants(args: argparse.Namespace) -> tuple[tuple[Edit, ...], ...]:
    """Return the edits of every --variant. Raises EditError."""
    return tuple(edit_specs.parse_list(spec, args.at, partial(list_of_demo, args)) for spec in args.variant)


def list_of_demo(args: argparse.Namespace, name: str) -> list[int]:
    """Return a packaged feature list. Raises EditError if another SAE is loaded."""
    for option, other in (("--sae", args.sae is not None), ("--preset", args.preset not in (None, "demo"))):
        if other:
            raise EditError(f"The list @{name} belongs to the demo SAE.", f"Leave {option} out, or name features.")
    return feature_lists.read(name)


def sampling(args: argparse.Namespace) -> Sampling:
    """Return the sampling settings on the command line."""
    values = {name: getattr(args, name) for name in Sampling.__struct_fields__}
    return Sampling(**values | {"stop": tuple(args.stop)})

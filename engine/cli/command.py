"""One run of the command line: what every verb needs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from engine import session
from engine.arguments import DEFAULT_SET
from engine.cli.given import prompt_set
from engine.client import EngineClient, ask
from engine.errors import SessionError
from engine.printing import Printer
from engine.records import Load, Loaded, PromptSet, Request
from engine.sources import presets

T = TypeVar("T")


class Command:
    """One run of the command line: parsed arguments, the engine, the printer, the session being added to."""

    def __init__(self, args: argparse.Namespace, printer: Printer, connect: Callable[[], EngineClient]) -> None:
        self.args, self.printer, self._connect = args, printer, connect
        self.client: EngineClient | None = None
        load = Load(**{name: getattr(args, name, None) for name in Load.__struct_fields__})
        self.preset = presets.find(args.preset) if getattr(args, "preset", None) else None
        self.load = presets.applied(self.preset, load) if self.preset else load

    def open(self) -> Loaded:
        """Loads model and SAE."""
        if getattr(self.args, "session", None):
            session.read_if_there(Path(self.args.session))  # a broken file is better found before the work than after
        self.client = self._connect()
        loaded = self.ask(self.load, Loaded)
        self.printer.loaded(loaded)
        return loaded

    def prompts(self) -> PromptSet:
        """The prompt set asked for, else the preset's, else the one that comes with saescope."""
        return prompt_set(self.args.prompts or (self.preset.prompts if self.preset else DEFAULT_SET))

    def ask(self, request: Request, kind: type[T]) -> T:
        """Runs one request, its progress shown."""
        assert self.client is not None
        with self.printer.watching() as on_event:
            return ask(self.client, request, kind, on_event)

    def record(self, loaded: Loaded, result: session.Result, prompt_set: PromptSet | None = None) -> None:
        """Adds a result to the session file, if one was asked for."""
        if self.args.session is None:
            return
        path = Path(self.args.session)
        current = session.read_if_there(path) or session.new(self.load, loaded)
        if current.loaded is None:  # the app's, saved before anything was loaded
            current = msgspec.structs.replace(current, load=self.load, loaded=loaded)
        other = session.differences(current.loaded or loaded, loaded)
        if other:
            raise SessionError(f"{path} was recorded with another {', '.join(other)}.", "Give --session a new file.")
        session.write(session.add(current, result, prompt_set), path)
        self.printer.note(f"saved to {path}")

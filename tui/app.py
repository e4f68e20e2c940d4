"""The app: themes, keymap, command palette, signals. The main screen shows the work itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import tomllib
from collections.abc import Iterable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import platformdirs
from textual import events
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.screen import Screen

from engine.files.paths import contents, shortened
from engine.records.words.rich_text import Text
from engine.records.words.safe_text import safe
from tui.main import MainScreen
from tui.panes.layout import PANE_TYPES
from tui.services import state_folder
from tui.services.context import Opening
from tui.services.safe_lines import SafeLines
from tui.services.state_folder import keep_details
from tui.widgets.colours import DARK, LIGHT

GONE_SECONDS = 5.0
"""Time from a signal until the process exits, whether or not it has quit by itself."""

KEYMAP_FILE = "keys.toml"

MOST_NAMED = 5
"""How many invalid lines of the keymap file an error message names."""

SAFE_LINES = SafeLines()


class SaescopeApp(App[None]):
    """The explorer: one study at a time, and one engine."""

    TITLE = "saescope"
    CSS_PATH = "app.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", show=False, priority=True, id="app.quit_typing"),
    ]

    def __init__(self, opening: Opening) -> None:
        super().__init__()
        self._opening = opening
        for theme in (DARK, LIGHT):
            self.register_theme(theme)
        chosen, self._theme_problem = state_folder.theme()
        self.theme = chosen if chosen in self.available_themes else DARK.name

    def get_default_screen(self) -> Screen[None]:
        return MainScreen(self._opening)

    @property
    def main(self) -> MainScreen:
        """The main screen, also while pages or dialogs cover it."""
        screen = self.screen_stack[0]
        assert isinstance(screen, MainScreen)
        return screen

    def on_load(self) -> None:
        """Save and end at a hang-up or a kill, from before the terminal is in application mode."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGHUP, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, self._end_by_signal)
            except (NotImplementedError, RuntimeError, ValueError):  # not in the main thread, as in some tests
                return

    def on_mount(self) -> None:
        """Set the user's theme and keys."""
        self.theme_changed_signal.subscribe(self, lambda theme: state_folder.remember_theme(theme.name))
        if self._theme_problem:
            self.main.report(self._theme_problem, "The theme is saescope's own: the palette (ctrl+p) chooses another.")
        keymap, problem = read_keymap()
        self.set_keymap(keymap)
        if problem:
            self.main.report(problem, "Those keys keep their defaults.")

    async def on_event(self, event: events.Event) -> None:
        """Handle an event; keys and clicks wait until all panes are mounted."""
        if isinstance(event, events.InputEvent):
            await self.main.furnished.wait()
        await super().on_event(event)

    async def action_quit(self) -> None:
        """Save the session, end the engine and exit."""
        self.main.commit_typing()
        self.main.context.autosave.keep_now()
        await self.main.context.notebook.finish()
        await self.main.bridge.close()
        self.exit()

    def notify(self, message: str, **options: Any) -> None:
        """Show a notification, made safe for the terminal; the messages page keeps it."""
        mark = "✗ " if options.get("severity") == "error" else ""
        words = f"{options.get('title', '')} {message}".strip()
        self.main.messages.append(f"{datetime.now():%H:%M:%S}  {mark}{words}")
        title = safe(options.get("title", ""))
        super().notify(safe(message), **{**options, "title": title, "markup": False})

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return the filters that every line passes on its way to the terminal."""
        return [SAFE_LINES, *super().get_line_filters()]

    def get_key_display(self, binding: Binding) -> str:
        """Return the key's name for the screen, made safe: keys.toml may hold any text."""
        return safe(super().get_key_display(binding))

    def copy_to_clipboard(self, text: str) -> None:
        """Copy `text` by OSC 52; what UTF-8 cannot encode becomes a question mark."""
        super().copy_to_clipboard(text.encode("utf-8", "replace").decode())

    def _fatal_error(self) -> None:
        """End the app after a defect of saescope: save the work, write the details to a file, print three lines."""
        details = keep_details()
        try:
            self.main.context.autosave.keep_now()
            kept = "Your work is kept: start saescope again and go on."
        except Exception:
            kept = "The autosave has your work up to the last second."
        self.panic(Text(f"saescope has a defect and had to end: {sys.exc_info()[1]!r}\n{kept}\n{details}"))

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """Yield the palette's commands: bindings with a tooltip of the main screen and its panes, and a few more."""
        from tui.commands import attribution, edits, features, prompts, sessions

        main, context = self.main, self.main.context
        extra = (
            ("New session", "Same prompts and model, no edits and results", sessions.new_session),
            ("Open a packaged prompt set", "gender_bias, founding_5v2 and others", prompts.open_set),
            (
                "Import explanations (Neuronpedia export)",
                "What others say this SAE's features stand for; a feature's page shows it",
                features.import_explanations,
            ),
            ("The last smallest set", "A page on the set that was found last", attribution.show_last_set),
        )
        for title, what, run in extra:
            yield SystemCommand(title, what, partial(run, context))
        if main.study.load.model is None:
            run = partial(edits.ablate_list, context)
            yield SystemCommand("Ablate the list @gender", "The demo SAE's list of gender features", run)
        yield SystemCommand("Light or dark", "Switch between saescope's two themes", self.switch_theme)
        for node in main.with_keys():
            for binding in node.BINDINGS:
                if isinstance(binding, Binding) and binding.tooltip:
                    title = f"{binding.description} ({binding.key_display or binding.key})"
                    yield SystemCommand(title, binding.tooltip, partial(self._run_command, binding.action, node))
        yield from (c for c in super().get_system_commands(screen) if c.title in ("Theme", "Screenshot", "Quit"))

    def _end_by_signal(self) -> None:
        """Save and quit; exit after GONE_SECONDS in any case, for writing to a closed terminal can block for ever."""
        end = threading.Timer(GONE_SECONDS, os._exit, (0,))
        end.daemon = True
        end.start()
        self._last_task = asyncio.create_task(self._quit_once_furnished())

    async def _quit_once_furnished(self) -> None:
        """Quit as a key does: mounting panes on a screen that is closing would fail."""
        while not self.screen_stack:  # the main screen is not there yet
            await asyncio.sleep(0.01)
        await self.main.furnished.wait()
        await self.action_quit()

    async def _run_command(self, action: str, node: DOMNode) -> None:
        """Run an action chosen in the palette, or say why it is not available."""
        if not await self.run_action(action, node):
            self.notify("That is about a feature: go to one first (3).", severity="warning")

    def switch_theme(self) -> None:
        """Switch between the dark and the light theme."""
        self.theme = LIGHT.name if self.current_theme.dark else DARK.name


def read_keymap() -> tuple[dict[str, str], str]:
    """Return the user's keys by binding id, from the keymap file, and what is wrong with it; "" if nothing is."""
    path = Path(platformdirs.user_config_dir("saescope")) / KEYMAP_FILE
    try:
        entries = tomllib.loads(contents(path).decode("utf-8-sig"))
    except (FileNotFoundError, NotADirectoryError):
        return {}, ""
    except (OSError, ValueError, RecursionError) as error:  # tomllib's errors are ValueErrors
        return {}, f"{path} cannot be read: {error}."
    from tui.commands.pages import PAGES

    classes: tuple[type[DOMNode], ...] = (MainScreen, *(pane for _, pane in (*PANE_TYPES, *PAGES)))
    bindings = [binding for owner in classes for binding in owner.BINDINGS]
    known = {binding.id for binding in bindings if isinstance(binding, Binding)}
    invalid = [name for name, value in entries.items() if name not in known or not isinstance(value, str)]
    keymap = {name: value for name, value in entries.items() if name not in invalid}
    if not invalid:
        return keymap, ""
    more = f" and {len(invalid) - MOST_NAMED} more" if len(invalid) > MOST_NAMED else ""
    named = ", ".join(map(shortened, invalid[:MOST_NAMED])) + more
    return keymap, f'{path}: {named}: not of the form "run.rank" = "k" with a known id.'

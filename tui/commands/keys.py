"""The main screen's commands, one per row; users remap keys by their ids. A pane's own keys are defined with the pane.

A row names its function as MODULE.FUNCTION of this package, so that the modules are imported after the first paint.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from textual.binding import Binding

from engine.records.words.edits import choices_in_words

FEATURE, EDIT = "a feature", "an edit"
"""What a command acts on and gets beside the context: the feature at hand; for EDIT also the reconstruction's line."""


@dataclass(frozen=True)
class Command:
    """A command, its key and how it is shown."""

    id: str
    key: str
    label: str
    tooltip: str = ""
    """The text in help and palette; a row without one is in neither."""
    run: str = ""
    """The function, as MODULE.FUNCTION of tui.commands."""
    needs: str = ""
    """FEATURE or EDIT if the command acts on one; such a command is disabled in the prompts pane."""
    action: str = ""
    """An action of the screen or the app, in place of `run`."""
    footer: bool = False
    shown_as: str | None = None
    priority: bool = False
    """Whether the key acts while the user is typing, too."""

    def binding(self) -> Binding:
        """Return the binding of the key to `action`, else to the main screen's action `do`."""
        action = self.action or f"do('{self.id}')"
        return Binding(
            self.key,
            action,
            self.label,
            show=self.footer,
            key_display=self.shown_as,
            id=self.id,
            tooltip=self.tooltip,
            priority=self.priority,
        )

    @property
    def function(self) -> Callable[..., Any]:
        """The function it runs: of a Context, and of a feature where it needs one."""
        module, _, name = self.run.partition(".")
        function: Callable[..., Any] = getattr(import_module(f"tui.commands.{module}"), name)
        return function


COMMANDS = [
    Command("pane.prompts", "1", "To prompts", "To the prompts", action="pane('prompts')"),
    Command("pane.tokens", "2", "To tokens", "To the tokens", action="pane('tokens')"),
    Command("pane.features", "3", "To features", "To the leaderboard", action="pane('features')"),
    Command("pane.generation", "4", "To texts", "To the texts", action="pane('generation')"),
    Command("pane.edits", "e", "To edits", "To the list of edits", action="pane('edits')"),
    Command("feature.ablate", "space", "Ablate",
            "Ablate the feature; again: off, on", "edits.toggle", EDIT, footer=True),
    Command("feature.plus", "plus,equals_sign", "Stronger",
            "The feature's edit a step stronger", "edits.stronger", EDIT, shown_as="+"),
    Command("feature.edit", "asterisk", "Edit",
            f"The feature's edit: {choices_in_words()}, how strongly, and where",
            "edits.ask_edit", EDIT, shown_as="*"),
    Command("feature.minus", "minus", "Weaker", "The feature's edit a step weaker", "edits.weaker", EDIT, shown_as="-"),
    Command("feature.publish", "P", "As published",
            "Edit the feature as the prompt set's study did (founding_5v2)", "edits.publish", FEATURE),
    Command("feature.try", "T", "Try strengths",
            "Generate with several strengths of it in one batch", "edits.ask_strengths", EDIT),
    Command("feature.pin", "p", "Pin", "Pin the feature to the leaderboard", "features.pin", FEATURE),
    Command("feature.label", "l", "Label", "Give the feature a name of your own", "features.ask_label", FEATURE),
    Command("feature.describe", "f", "About",
            "The feature's page: where it fires, what it promotes, its neighbours, your notes",
            "features.describe", FEATURE, footer=True),
    Command("feature.copy", "y", "Copy",
            "Copy its number, the same command line, or an nnsight snippet", "texts.ask_copy", FEATURE),
    Command("feature.jump", "number_sign", "Jump",
            "Jump to a feature by its number", "features.ask_feature", shown_as="#"),
    Command("run.rank", "r", "Rank", "Rank the features by contrast", "features.rank_prompts", footer=True),
    Command("run.generate", "g", "Generate", "Generate, baseline and edited", "texts.generate", footer=True),
    Command("run.probes", "v", "Probes",
            "All probes, baseline and edited, as one table", "texts.run_probes", footer=True),
    Command("run.last_probes", "V", "Last probes", "The last table again", "texts.last_probes"),
    Command("run.attribute", "A", "Effects",
            "Which features influence an answer? Attribution on the probes", "attribution.ask_measure", footer=True),
    Command("run.causes", "C", "Last effects",
            "The last attribution again; there m finds the smallest set", "attribution.show_last"),
    Command("run.stop", "x", "Stop",
            "Stop what the engine does; a running text is kept as far as it came", "texts.stop"),
    Command("session.undo", "u", "Undo", "Undo the last change of prompts or edits", "prompts.undo"),
    Command("run.replay", "R", "Replay", "Run the session's results again", "sessions.replay"),
    Command("run.restart", "E", "Restart", "Restart the engine", "pair.restart_engine"),
    Command("run.model", "M", "Model", "Choose model, SAE and hook point", "pair.choose"),
    Command("run.doctor", "H", "Doctor", "Is the SAE wired right? The doctor's checks, and what to do", "pair.doctor"),
    Command("session.save", "s", "Save", "Save the session to its file", "sessions.save"),
    Command("session.save_as", "S", "Save as", "Save to another file", "sessions.save_as"),
    Command("session.open", "ctrl+o", "Open", "Open a session", "sessions.open_session", priority=True),
    Command("run.rank_typing", "ctrl+r", "Rank", "", "features.rank_prompts", priority=True),
    Command("run.generate_typing", "ctrl+g", "Generate", "", "texts.generate", priority=True),
    Command("session.save_typing", "ctrl+s", "Save", "", "sessions.save", priority=True),
    Command("app.help", "question_mark", "Help", "Every key", "pages.show_help", footer=True, shown_as="?"),
    Command("app.messages", "exclamation_mark", "Messages",
            "What was said, errors included", "pages.show_messages", shown_as="!"),
    Command("app.quit", "q", "Quit", "Quit; everything is saved", action="app.quit"),
]  # fmt: skip

BY_ID = {command.id: command for command in COMMANDS}

MAIN = [command.binding() for command in COMMANDS]


def import_commands() -> None:
    """Import the modules that the rows name. It takes a tenth of a second, so it runs early, and in a thread."""
    for module in sorted({command.run.partition(".")[0] for command in COMMANDS if command.run}):
        import_module(f"tui.commands.{module}")

"""The keys of the main screen. A pane's own keys stand with the pane; ids are what users remap."""

from __future__ import annotations

from textual.binding import Binding

MAIN = [
    Binding("1", "pane('prompts')", "To prompts", show=False, id="pane.prompts", tooltip="To the prompts"),
    Binding("2", "pane('tokens')", "To tokens", show=False, id="pane.tokens", tooltip="To the tokens"),
    Binding("3", "pane('features')", "To features", show=False, id="pane.features", tooltip="To the leaderboard"),
    Binding("4", "pane('generation')", "To texts", show=False, id="pane.generation", tooltip="To the texts"),
    Binding("e", "pane('edits')", "To edits", show=False, id="pane.edits", tooltip="To the list of edits"),
    Binding("space", "toggle_edit", "Ablate", id="feature.ablate", tooltip="Ablate the feature; again: off, on"),
    Binding("plus,equals_sign", "strength(1)", "Stronger", show=False, key_display="+", id="feature.plus",
            tooltip="Scale the feature up a step"),
    Binding("asterisk", "factor", "Factor", show=False, key_display="*", id="feature.factor",
            tooltip="Scale the feature by a factor you type"),
    Binding("minus", "strength(-1)", "Weaker", show=False, key_display="-", id="feature.minus",
            tooltip="Scale the feature down a step"),
    Binding("p", "pin", "Pin", show=False, id="feature.pin", tooltip="Pin the feature to the leaderboard"),
    Binding("l", "label", "Label", show=False, id="feature.label", tooltip="Give the feature a name of your own"),
    Binding("f", "describe", "About", id="feature.describe",
            tooltip="The feature's page: where it fires, what it promotes, its neighbours, your notes"),
    Binding("y", "copy", "Copy", show=False, id="feature.copy",
            tooltip="Copy its number, the same command line, or an nnsight snippet"),
    Binding("number_sign", "jump", "Jump", show=False, key_display="#", id="feature.jump",
            tooltip="Jump to a feature by its number"),
    Binding("r", "rank", "Rank", id="run.rank", tooltip="Rank the features by contrast"),
    Binding("g", "generate", "Generate", id="run.generate", tooltip="Generate, baseline and edited"),
    Binding("v", "probes", "Probes", id="run.probes", tooltip="All probes, baseline and edited, as one table"),
    Binding("V", "last_probes", "Last probes", show=False, id="run.last_probes", tooltip="The last table again"),
    Binding("A", "attribute", "Effects", id="run.attribute",
            tooltip="Which features influence an answer? Attribution on the probes"),
    Binding("C", "causes", "Last effects", show=False, id="run.causes",
            tooltip="The last attribution again; there m finds the smallest set"),
    Binding("x", "stop", "Stop", show=False, id="run.stop", tooltip="Stop what the engine does"),
    Binding("u", "undo", "Undo", show=False, id="session.undo", tooltip="Undo the last change of prompts or edits"),
    Binding("R", "replay", "Replay", show=False, id="run.replay", tooltip="Run the session's results again"),
    Binding("E", "restart_engine", "Restart", show=False, id="run.restart", tooltip="Restart the engine"),
    Binding("M", "choose_model", "Model", show=False, id="run.model", tooltip="Choose model, SAE and hook point"),
    Binding("H", "doctor", "Doctor", show=False, id="run.doctor",
            tooltip="Is the SAE wired right? The doctor's checks, and what to do"),
    Binding("s", "save", "Save", show=False, id="session.save", tooltip="Save the session to its file"),
    Binding("S", "save_as", "Save as", show=False, id="session.save_as", tooltip="Save to another file"),
    Binding("ctrl+o", "open", "Open", show=False, id="session.open", tooltip="Open a session", priority=True),
    Binding("ctrl+r", "rank", "Rank", show=False, id="run.rank_typing", priority=True),
    Binding("ctrl+g", "generate", "Generate", show=False, id="run.generate_typing", priority=True),
    Binding("ctrl+s", "save", "Save", show=False, id="session.save_typing", priority=True),
    Binding("question_mark", "help", "Help", key_display="?", id="app.help", tooltip="Every key"),
    Binding("exclamation_mark", "messages", "Messages", show=False, key_display="!", id="app.messages",
            tooltip="What was said, errors included"),
    Binding("q", "app.quit", "Quit", show=False, id="app.quit", tooltip="Quit; everything is saved"),
]  # fmt: skip

OF_A_FEATURE = ("toggle_edit", "strength", "factor", "pin", "label", "describe", "copy")
"""Actions that need a feature at hand, and are hidden in panes that have none."""

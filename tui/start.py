"""From the command line to a running app: which session, which prompts, which engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import prompts
from engine.files import prompt_sets
from engine.files import session as sessions
from engine.files.paths import typed
from engine.loading import presets
from engine.records import Load
from tui.app import SaescopeApp
from tui.services.context import Opening
from tui.state.presets import DEFAULT_SET, packaged_set, with_pins
from tui.state.study import Study, start_workspace

if TYPE_CHECKING:
    from engine.files.autosave import AutosaveStore
    from engine.serving.client import LiveEngine


def run(load: Load, prompt_set: str | None, session: str | None, preset: str | None = None) -> int:
    """Run the app until it ends; return the exit code.

    Raises SessionError, PromptSetError or UsageError before anything opens.
    """
    offer_last = load == Load() and prompt_set is None and session is None and preset is None
    study = first_study(load, prompt_set, session, preset)
    app = SaescopeApp(Opening(study, engine_process, autosave_store, offer_last))
    app.run()
    return app.return_code or 0


def first_study(load: Load, prompt_set: str | None, session: str | None, preset: str | None = None) -> Study:
    """Return the study of the session file, or a new study on a prompt set; a missing file is created on saving.

    A preset fills in what `load` leaves open; a new study gets its prompts, and its labelled features pinned.
    """
    chosen = presets.find(preset) if preset else None
    load = presets.applied(chosen, load) if chosen else load
    path = None if session is None else typed(session)
    if path is not None and path.exists():
        study = Study.from_session(sessions.read(path), file=path)
        if load != Load() or chosen:
            study.load = load
        if prompt_set is not None:
            study.prompts.set(prompt_sets.from_file(prompts.load(prompt_set)))
        return study
    name = prompt_set or (chosen.prompts if chosen else DEFAULT_SET)
    study = Study(load, start_workspace(packaged_set(name)), file=path)
    if chosen and presets.of_sae(load.sae) == chosen:
        study.history.now = with_pins(study.work, chosen)  # not by History.set: there is nothing to save yet
    return study


def engine_process() -> LiveEngine:
    """Return an engine that runs in a process of its own."""
    from engine.serving.process import EngineProcess

    return EngineProcess()


def autosave_store() -> AutosaveStore:
    """Return the autosave store in the user's state folder."""
    from engine.files.autosave import AutosaveStore

    return AutosaveStore()

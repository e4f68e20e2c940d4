"""From the command line to a running app: which session, which prompts, which engine."""

from __future__ import annotations

from pathlib import Path

import prompts
from engine import prompt_sets
from engine import session as sessions
from engine.autosave import AutosaveStore
from engine.process import EngineProcess
from engine.records import Load
from tui.app import SaescopeApp
from tui.study import Study, start_workspace

DEFAULT_SET = "gender_bias"


def run(load: Load, prompt_set: str | None, session: str | None) -> int:
    """Runs the app to its end; returns the exit code. Raises SessionError or PromptSetError before anything opens."""
    store = AutosaveStore()
    study, offer = first_study(store, load, prompt_set, session)
    app = SaescopeApp(study, EngineProcess(), store, offer)
    app.run()
    return app.return_code or 0


def first_study(
    store: AutosaveStore, load: Load, prompt_set: str | None, session: str | None
) -> tuple[Study, Study | None]:
    """The study to start with, and the last session, to be offered where nothing was asked for."""
    if session is not None:
        path = Path(session).expanduser()
        if path.exists():
            study = Study.from_session(sessions.read(path), file=path)
            if load != Load():
                study.load = load
            return study, None
        study = Study(load, start_workspace(prompt_sets.from_file(prompts.load(prompt_set or DEFAULT_SET))), file=path)
        return study, None
    fresh = Study(load, start_workspace(prompt_sets.from_file(prompts.load(prompt_set or DEFAULT_SET))))
    if prompt_set is not None or load != Load():
        return fresh, None
    last = store.latest()
    if last is None:
        return fresh, None
    offer = Study.from_session(last.session, last.info.id, Path(last.info.file) if last.info.file else None)
    fresh.load = offer.load  # the model one worked with last; M chooses another
    return fresh, offer

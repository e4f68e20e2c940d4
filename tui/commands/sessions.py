"""Commands of sessions: save, open, begin a new one, replay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from engine.files import paths
from engine.files import session as sessions
from engine.files.autosave import StoredInfo
from engine.files.recorded import replay_in_words, replayable
from engine.records import Generated, Ranking, Replay, Replayed
from engine.records.errors import SessionError, UsageError
from engine.records.words.numbers import count
from engine.records.words.rich_text import Text
from tui.commands import pair
from tui.services.context import Context
from tui.state.study import Study, start_workspace
from tui.state.topics import Topic
from tui.widgets.dialogs import AskText, Choice, Choose
from tui.widgets.page import Report

FILE = "file"


def save(context: Context) -> None:
    """Save to the session's file, or ask for one."""
    file = context.study.file
    if file is None:
        save_as(context)
    else:
        problem = not_replaced(file) or _write(context, file)
        if problem:
            context.desk.report(problem, "S saves it elsewhere; the autosave has it too.")


def save_as(context: Context) -> None:
    """Ask for a file and save the session in it."""
    study = context.study
    name = str(study.file or study.name + sessions.SUFFIX)

    warned_of: list[Path] = []

    def write(text: str) -> str:
        path, problem = session_path(text, study.name)
        if problem:
            return problem
        if path.exists() and path != study.file and path not in warned_of:
            warned_of.append(path)
            return f"{path.name} is there already: enter again replaces that session."
        return _write(context, path)

    hint = "`saescope replay FILE` runs every result in it again.\nenter: save · escape: leave"
    context.desk.open(AskText("Save the session", name, "path of a file", hint, write))


def _write(context: Context, path: Path) -> str:
    """Write the session to `path`; return what went wrong, "" if nothing did."""
    study = context.study
    try:
        sessions.write(study.session(), path)
    except SessionError as error:
        return error.message
    context.autosave.forget()  # the store should know the file too
    context.desk.notify(f"Saved to {path}")
    study.saved_to(path)
    return ""


# ---- opening


def offer_last(context: Context) -> None:
    """Offer the last session at the start; its model and SAE are loaded even if the user begins a new session."""
    stored = context.autosave.store.latest()
    context.autosave.tell_notice()
    if stored is None:
        return
    last = stored_study(stored.info, stored.session)
    context.study.load = last.load
    results = last.results
    rankings, texts = len(results.of(Ranking)), len(results.of(Generated))
    counts = counts_in_words(rankings, texts, len(last.work.edits))
    choices = (
        Choice("go on", f"Go on with {last.name}", counts),
        Choice("new", "Start a new session", "ctrl+o opens any"),
    )

    def chosen(choice: str | None) -> None:
        if choice == "go on":
            exchange(context, last)

    context.desk.open(Choose("Welcome back", choices, "enter: choose · escape: new session"), chosen)


def open_session(context: Context) -> None:
    """Open a stored session or a session file, as the user chooses."""
    context.autosave.keep_now()
    stored = context.autosave.store.all()
    context.autosave.tell_notice()
    listed = [Choice(str(place), info.name, in_words(info)) for place, info in enumerate(stored)]
    choices = [Choice(FILE, "A session file…"), *listed]

    def chosen(choice: str | None) -> None:
        if choice == FILE:
            open_file(context)
        elif choice is not None:
            info = stored[int(choice)]
            try:
                session = context.autosave.store.load(info.id)
            except SessionError as error:
                context.autosave.tell_notice()
                context.desk.report(error.message, error.remedy)
                return
            exchange(context, stored_study(info, session))

    context.desk.open(Choose("Open a session", choices), chosen)


def open_file(context: Context) -> None:
    """Ask for a session file and open it."""
    studies: list[Study] = []

    def check(text: str) -> str:
        try:
            path = paths.typed(text)
            studies.append(Study.from_session(sessions.read(path), file=path))
        except (SessionError, UsageError) as error:
            return f"{error.message} {error.remedy}"
        return ""

    def take(text: str | None) -> None:
        if text is not None:
            exchange(context, studies[-1])

    context.desk.open(AskText("Open a session file", "", f"…{sessions.SUFFIX}", check=check), take)


def new_session(context: Context) -> None:
    """Begin a new session with the same prompts, model and SAE."""
    study = context.study
    fresh = Study(study.load, start_workspace(study.work.prompts))
    fresh.loaded = study.loaded
    exchange(context, fresh)


def exchange(context: Context, study: Study) -> None:
    """Work on another study from now on; store the one so far."""
    context.autosave.keep_now()
    before = context.study
    context.desk.work_on(study)
    context.bridge.cancel_all()
    study.tell(Topic.ALL)
    if before.loaded is not None and study.load == before.load:
        pair.take_loaded(context, study.load, before.loaded, chosen=False)
    else:
        pair.load(context, study.load)


# ---- replay


def replay(context: Context) -> None:
    """Run every result again, and open a page that lists the outcomes as they arrive."""
    if not context.study.has_results:
        context.desk.notify("The session holds no results yet: r ranks, g generates.")
        return
    text = Text("Every recorded result is run again with its own settings and compared token by token.\n\n")
    page = Report("Replay", text)

    def tell(line: str, same: bool | None) -> None:
        if same is None:
            text.append(f"\n{line}")
        else:
            text.append("same     " if same else "DIFFERS  ", "bold").append(line + "\n")
        page.show(text)

    context.desk.open(page)
    _run_again(context, tell)


def _run_again(context: Context, tell: Callable[[str, bool | None], None]) -> None:
    """Run every result again; `tell` gets a line per result and whether it is the same, at last a line and None."""
    results = replayable(context.study.results)

    async def task() -> None:
        for result in results:
            again = await context.tasks.ask(Replay(result), Replayed)
            tell("\n    ".join(replay_in_words(result, again)), again.same)
        tell(f"{count(len(results), 'result')} run again.", None)

    context.tasks.run("replay", task)


# ---- paths and words


def stored_study(info: StoredInfo, session: sessions.Session) -> Study:
    """Return the study of a stored session; its file may hold an older state of it, or be gone."""
    path = Path(info.file) if info.file else None
    try:
        saved = path is not None and sessions.read(path) == session
    except SessionError:
        saved = False
    return Study.from_session(session, info.id, path, saved)


def session_path(text: str, name: str) -> tuple[Path, str]:
    """Return the path that the user's text stands for, and what is wrong with it; "" if nothing is.

    In a folder, the file gets the session's name. A file that holds anything but a session is never replaced.
    """
    if not text.strip():
        return Path(), "A file needs a name."
    try:
        path = paths.typed(text.strip())
        if path.is_dir():
            path = path / f"{name}{sessions.SUFFIX}"
        elif path.suffix != ".json":
            path = paths.typed(str(path.with_name(path.name + sessions.SUFFIX)))
    except UsageError as error:
        return Path(), f"{error.message} {error.remedy}"
    if not path.parent.is_dir():
        return path, f"There is no folder {path.parent}."
    return path, not_replaced(path)


def not_replaced(path: Path) -> str:
    """Say why a file is not overwritten: it holds no session, or a damaged one; "" if it may be overwritten."""
    try:
        sessions.read_if_there(path)
    except SessionError as error:
        return f"{error.message} It is not replaced."
    return ""


def in_words(info: StoredInfo) -> str:
    """Describe a stored session in the list of sessions."""
    when = info.updated[:16].replace("T", " ")
    return f"{when} UTC · {counts_in_words(info.rankings, info.generations, info.edits)}"


def counts_in_words(rankings: int, texts: int, edits: int) -> str:
    """Say how many rankings, texts and edits a session holds."""
    counts = ((rankings, "ranking"), (texts, "text"), (edits, "edit"))
    return ", ".join(count(number, noun) for number, noun in counts)

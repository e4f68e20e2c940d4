"""The app on a hostile session, engine, notes and keys: nothing it writes to the terminal could steer that.

Every page is opened: a page that is new is missed by the walk's last assertion.
"""

import asyncio
import importlib
import pkgutil
from pathlib import Path

import msgspec
import platformdirs
import pytest
import samples
import tomli_w
from fake_engine import QUESTION, SMALL, FakeEngine, opened
from hostile import FILE_NAME, HOSTILE, hostile, unsafe
from textual._compositor import Compositor
from textual.drivers.headless_driver import HeadlessDriver
from textual.screen import Screen
from textual.widgets import Static

import tui.screens
from engine.files import session
from engine.files.autosave import AutosaveStore
from engine.files.explanations import Explained, Explanations
from engine.files.notes import Notes
from engine.files.session import EditSlot, Session, Workspace
from engine.records import Failed, Finished, Load, Loaded, Rank, Ranking
from tui.main import MainScreen
from tui.screens.effects_page import CausesScreen
from tui.screens.feature_page import FeaturePage
from tui.screens.kept_texts import Branches
from tui.screens.minimal_set_page import MinimalSetScreen
from tui.screens.model_form import ModelForm
from tui.services import safe_lines
from tui.services.state_folder import CRASH_FILE, keep_details
from tui.start import first_study
from tui.widgets.dialogs import AskNote, AskText, Choose
from tui.widgets.forms import Form, SummaryForm
from tui.widgets.page import Report

replace = msgspec.structs.replace

TEXT = HOSTILE.replace("\ud800", "")

SAE = "ab" * 32

WORK = Workspace(
    replace(SMALL, probes=(QUESTION, replace(QUESTION, text="Who is a pilot?"))),
    QUESTION.text,
    edits=(EditSlot(101), EditSlot(102, 2.0, "set", "prompt")),
    pinned=(101,),
    labels={101: "mine"},
    feature=101,
    prefill="It is",
)

RESULTS = (samples.RANKING, samples.ARMS, samples.PROBES, samples.ATTRIBUTION, samples.MINIMAL_SET)

FULL = hostile(
    Session(session.VERSION, "now", samples.LOAD, samples.LOADED, (samples.PROMPT_SET,), RESULTS, workspace=WORK)
)

FULL = samples.instead(FULL, replace(FULL.last(Ranking), by="score"))

WALK = (
    ("s", MainScreen),
    ("3 r", MainScreen),
    ("g", MainScreen),
    ("2 t", MainScreen),
    ("3 f e", FeaturePage),
    ("f n", AskNote),
    ("f l", AskText),
    ("y", Choose),
    ("asterisk", SummaryForm),
    ("T", SummaryForm),
    ("A", SummaryForm),
    ("A enter", CausesScreen),
    ("C p", Report),
    ("C m", SummaryForm),
    ("C m enter", MinimalSetScreen),
    ("v", Report),
    ("H", Report),
    ("R", Report),
    ("question_mark", Report),
    ("exclamation_mark", Report),
    ("number_sign", AskText),
    ("M", ModelForm),
    ("S", AskText),
    ("ctrl+o", Choose),
    ("4 comma", Form),
    ("b", Branches),
    ("a", MainScreen),
    ("1 home down enter", MainScreen),
    ("end enter", Form),
    ("i", AskText),
    ("w", AskText),
    ("w enter", AskText),
    ("s enter", AskText),
)
"""Keys from the main screen on, and where they lead."""

SAYS_NOTHING = {"question_mark", "number_sign", "i"}
"""Pages about no data."""


class HostileEngine(FakeEngine):
    """All that it says is hostile, but for what notes are found by, and what the next ranking is asked by."""

    def _emit(self, request_id, event):
        event = hostile(event)
        if isinstance(event, Finished) and isinstance(event.value, Loaded):
            event = Finished(replace(event.value, sae_fingerprint=SAE))
        if isinstance(event, Finished) and isinstance(event.value, Ranking):
            event = Finished(replace(event.value, by="score"))
        super()._emit(request_id, event)


@pytest.fixture
def painted(monkeypatch):
    """Has an app paint its whole screen; returns what it writes to the terminal."""
    parts, draw = [], Compositor.render_update
    # nobody looks before `paint`
    monkeypatch.setattr(Compositor, "render_update", lambda compositor, **options: compositor._dirty_regions.clear())
    monkeypatch.setenv("COLORTERM", "truecolor")  # rich keeps a style as it wrote it first, for all tests after
    monkeypatch.setattr(HeadlessDriver, "write", lambda driver, data: parts.append(data))

    def paint(app):
        parts.clear()
        with monkeypatch.context() as patch, app._context():
            patch.setattr(HeadlessDriver, "is_headless", False)  # a headless app paints nothing
            app._display(app.screen, draw(app.screen._compositor, True, app._background_screens))
        return "".join(parts)

    return paint


@pytest.fixture
def refitted(monkeypatch):
    """What was measured before it was safe: it was not shown as it should be."""
    texts, before = [], safe_lines.refitted

    def refit(segment):
        texts.append(segment.text)
        return before(segment)

    monkeypatch.setattr(safe_lines, "refitted", refit)
    return texts


@pytest.fixture
def folder(tmp_path):
    """A session file of a hostile name, and hostile notes, explanations and keys."""
    session.write(FULL, tmp_path / f"{FILE_NAME}.json")
    Notes().put(SAE, TEXT, 101, TEXT, TEXT)
    kept = Explanations()
    kept.path.mkdir(parents=True)
    (kept.path / f"{SAE}.json").write_bytes(msgspec.json.encode(Explained(TEXT, {101: TEXT})))
    keys = Path(platformdirs.user_config_dir("saescope")) / "keys.toml"
    keys.parent.mkdir(parents=True)
    keys.write_text(tomli_w.dumps({"run.generate": f"{TEXT},g", "feature.ablate": TEXT, TEXT: "k"}), "utf-8")
    return tmp_path


def screens():
    """The kinds of screens that the app opens."""
    for found in pkgutil.iter_modules(tui.screens.__path__, "tui.screens."):
        importlib.import_module(found.name)
    found, rest = set(), [Screen]
    while rest:
        kinds = rest.pop().__subclasses__()
        rest += kinds
        found.update(kind for kind in kinds if kind.__module__.startswith("tui.") and not kind.__subclasses__())
    return found


def is_there(b, keys):
    """Whether a page shows what it has to."""
    text = b.screen_text()
    return not b.app._batch_count and (shows_hostile(text) or (keys in SAYS_NOTHING and text.strip()))


def shows_hostile(text):
    """Whether hostile text is shown: made safe, or quoted for a shell."""
    return "␛" in text or r"\033" in text


async def walk(b, check):
    """Goes to every page and back."""
    for keys, kind in WALK:
        await b.press(*keys.split())
        await b.until(lambda kind=kind: type(b.top) is kind)
        await b.until(lambda: not b.main.generation.running and not b.engine._open)
        await b.until(lambda keys=keys: is_there(b, keys))
        check(keys)
        while b.top is not b.main:
            await b.press("escape")
        if keys in ("a", "1 home down enter"):  # something is being typed
            await b.press("escape")
        b.app.clear_notifications()


def test_every_page(folder, painted, refitted):
    seen = set()

    async def main():
        study = first_study(Load(), None, str(folder / f"{FILE_NAME}.json"))
        async with opened(folder, study, size=(100, 30), engine=HostileEngine(folder / FILE_NAME)) as b:

            def check(keys):
                seen.add(type(b.top))
                written = painted(b.app)
                assert (keys, unsafe(written), refitted) == (keys, [], [])
                assert shows_hostile(written) or keys in SAYS_NOTHING, keys

            check("start")
            await walk(b, check)
            b.engine.failures[Rank] = Failed("ModelError", HOSTILE, HOSTILE)
            await b.press("3", "r")
            await b.hears("␛]0;t")
            check("a failure")
            b.engine.kill(HOSTILE)
            await b.shows("no engine")
            check("a loss")
            assert b.study.work.question == FULL.workspace.question  # fields show stand-ins and keep what there is

    asyncio.run(main())
    assert seen == screens() | {Form}


def test_the_last_session_is_offered_and_a_copy_of_what_utf8_cannot_hold_is_one_too(tmp_path, painted):
    store = AutosaveStore(tmp_path / "sessions.sqlite3")
    store.save("one", TEXT, FULL, f"/nowhere/{FILE_NAME}")

    async def main():
        async with opened(tmp_path, store=store, offer_last=True, engine=HostileEngine()) as b:
            await b.until(lambda: type(b.top) is Choose)
            written = painted(b.app)
            assert unsafe(written) == []
            assert "Go on with" in written and "[b]␛" in written
            b.app.copy_to_clipboard(HOSTILE)
            assert b.app.clipboard == HOSTILE.replace("\ud800", "?")
            b.app.notify(HOSTILE, title=HOSTILE)
            await b.handled()
            assert unsafe(painted(b.app)) == []

    asyncio.run(main())


def test_whatever_is_drawn_raw_is_cut_to_its_room_and_safe(tmp_path, painted):
    async def main():
        async with opened(tmp_path) as b:
            raw = Static(HOSTILE, markup=False)
            await b.main.query_one("#second").mount(raw)
            await b.handled()
            written = painted(b.app)
            assert unsafe(written) == [] and "[/b]␛" in written
            assert all(strip.cell_length == 130 for strip in b.top._compositor.render_strips())

    asyncio.run(main())


def test_a_field_shows_a_stand_in_for_each_character_and_keeps_it(tmp_path, painted):
    async def main():
        async with opened(tmp_path) as b:
            await b.press("4", "a")
            b.main.generation.question.value = "a\x1b\u202eb\u200dc\ud800"
            await b.handled()
            assert "›  a␛�b�c�" in b.screen_text()
            await b.press("home", "right", "delete")
            assert b.study.work.question == "a\u202eb\u200dc\ud800"
            assert unsafe(painted(b.app)) == []

    asyncio.run(main())


def test_the_details_of_a_defect_can_be_looked_at():
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        where = keep_details()
    log = Path(platformdirs.user_state_dir("saescope")) / CRASH_FILE
    assert str(log) in where and unsafe(log.read_bytes()) == [] and "␛" in log.read_text("utf-8")

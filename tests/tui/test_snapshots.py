"""What the screen looks like. A change that is wanted: pytest tests/tui/test_snapshots.py --snapshot-update."""

import pytest
from fake_engine import LONG, Bench, FakeEngine, loaded_of, painted_when_looked_at, replace, small_study
from on_screen import SICK
from textual.widgets import Input, TextArea

import prompts
from engine.files import prompt_sets
from engine.files.autosave import AutosaveStore
from engine.records import Doctor, Generated, Load
from tui.app import SaescopeApp
from tui.screens.effects_page import CausesScreen
from tui.screens.kept_texts import Branches
from tui.screens.minimal_set_page import MinimalSetScreen
from tui.services.context import Opening
from tui.widgets.dialogs import AskText
from tui.widgets.forms import Form, SummaryForm
from tui.widgets.page import Report

SMALL, MEDIUM, LARGE = (80, 24), (120, 40), (200, 60)


@pytest.fixture
def looks(snap_compare, tmp_path, monkeypatch):
    """Compares the screen, once `go` has been done to a Bench, with the picture kept of it."""
    monkeypatch.setattr(Input, "cursor_blink", False)
    monkeypatch.setattr(TextArea, "cursor_blink", False)
    monkeypatch.chdir(tmp_path)  # a report of differences goes there

    def compare(size, go, instead=None):
        engine, store = FakeEngine(), AutosaveStore(tmp_path / "sessions.sqlite3")
        engine.instead = instead or {}
        study = small_study(prompt_sets.from_file(prompts.load("gender_bias")))
        app = SaescopeApp(Opening(study, lambda: engine, lambda: store))
        app.NOTIFICATION_TIMEOUT = 1000 * LONG

        async def before(pilot):
            bench = Bench(app, pilot, engine, store)
            await bench.until(lambda: app.main.context.tasks.ready)
            await bench.answered()
            await go(bench)
            await bench.no_toasts()
            await bench.until(lambda: not app.main.context.autosave._keeping)
            await bench.settle()

        with painted_when_looked_at():
            return snap_compare(app, terminal_size=size, run_before=before)

    return compare


async def read(b):
    await b.ranked()
    await b.press("down", "down")
    await b.until(lambda: "#102" in str(b.main.tokens.border_title))


async def edited(b):
    await read(b)
    await b.press("space", "down", "plus", "p")
    b.study.set_label(103, "nurses")
    await b.generated()


def by_size(*sizes):
    return pytest.mark.parametrize("size", sizes, ids=lambda s: f"{s[0]}x{s[1]}")


@by_size(SMALL, MEDIUM, LARGE)
def test_start(looks, size):
    async def go(b):
        pass

    assert looks(size, go)


@by_size(SMALL, MEDIUM, LARGE)
def test_ranked(looks, size):
    assert looks(size, read)


@by_size(SMALL, MEDIUM, LARGE)
def test_generated(looks, size):
    async def go(b):
        await edited(b)
        await b.press("4")

    assert looks(size, go)


async def founding(b):
    """The founding study's edit, then a text that parts from one under it at token 5."""
    b.study.prompts.set(prompt_sets.from_file(prompts.load("founding_5v2")))
    b.study.ask_probe(b.study.work.prompts.probes[0])
    b.main.show_study()
    await read(b)
    await b.press("P")
    await b.generated()
    await b.press("plus", "4", "ctrl+home", *["right"] * 4, "w")
    await b.until(lambda: len(b.study.results.of(Generated)) == 2 and not b.main.generation.running)


@by_size(SMALL, MEDIUM, LARGE)
def test_branch(looks, size):
    assert looks(size, founding)


@by_size(SMALL, MEDIUM)
def test_branches(looks, size):
    async def go(b):
        await founding(b)
        await b.press("b")
        await b.until(lambda: isinstance(b.top, Branches))

    assert looks(size, go)


@by_size(MEDIUM)
def test_beside(looks, size):
    async def go(b):
        await founding(b)
        await b.press("b")
        await b.until(lambda: isinstance(b.top, Branches))
        await b.handled()
        await b.press("down", "space")
        await b.until(lambda: b.top is b.main)

    assert looks(size, go)


@by_size(SMALL, MEDIUM)
def test_edit_form(looks, size):
    async def go(b):
        await founding(b)
        await b.press("e", "asterisk")
        await b.until(lambda: isinstance(b.top, SummaryForm))

    assert looks(size, go)


@by_size(SMALL)
def test_settings(looks, size):
    async def go(b):
        await read(b)
        await b.press("4", "comma")
        await b.until(lambda: isinstance(b.top, Form))

    assert looks(size, go)


@by_size(MEDIUM)
def test_variants(looks, size):
    async def go(b):
        await edited(b)
        await b.press("T")
        await b.until(lambda: isinstance(b.top, SummaryForm))
        await b.handled()
        await b.press("enter")
        await b.until(lambda: len(b.study.results.of(Generated)) == 2 and not b.main.generation.running)
        await b.press("4", "right_square_bracket")

    assert looks(size, go)


def test_light(looks):
    async def go(b):
        await edited(b)
        b.app.switch_theme()

    assert looks(MEDIUM, go)


@by_size(SMALL)
def test_help(looks, size):
    async def go(b):
        await b.press("question_mark")
        await b.until(lambda: isinstance(b.top, Report))

    assert looks(size, go)


@by_size(SMALL, MEDIUM, LARGE)
def test_card(looks, size):
    async def go(b):
        await read(b)
        b.study.history.now = replace(
            b.study.work, labels={102: "nurses"}
        )  # not told: the panes behind the page keep their names
        b.main.context.notebook.set_note(102, "Only where somebody is paid.")
        await b.press("f")
        await b.shows("Fires on")

    assert looks(size, go)


async def attributed(b):
    await read(b)
    await b.press("A")
    await b.until(lambda: isinstance(b.top, SummaryForm))
    await b.handled()
    await b.press("enter")
    await b.until(lambda: isinstance(b.top, CausesScreen))


@by_size(SMALL, MEDIUM)
def test_measure(looks, size):
    async def go(b):
        await read(b)
        await b.press("A")
        await b.until(lambda: isinstance(b.top, SummaryForm))

    assert looks(size, go)


@by_size(SMALL, MEDIUM)
def test_causes(looks, size):
    async def go(b):
        await attributed(b)
        await b.press("down", "space")

    assert looks(size, go)


@by_size(MEDIUM, LARGE)
def test_effects(looks, size):
    async def go(b):
        await attributed(b)
        await b.press("escape", "o")

    assert looks(size, go)


@by_size(SMALL, MEDIUM)
def test_minimal_set(looks, size):
    async def go(b):
        await attributed(b)
        await b.press("m")
        await b.until(lambda: isinstance(b.top, SummaryForm))
        await b.handled()
        await b.press("enter")
        await b.until(lambda: isinstance(b.top, MinimalSetScreen))

    assert looks(size, go)


@by_size(SMALL, MEDIUM)
def test_probes(looks, size):
    async def go(b):
        await edited(b)
        await b.press("v")
        await b.until(lambda: isinstance(b.top, Report))

    assert looks(size, go)


@by_size(SMALL)
def test_save(looks, size):
    async def go(b):
        await read(b)
        await b.press("s")
        await b.until(lambda: isinstance(b.top, AskText))

    assert looks(size, go)


@by_size(SMALL, MEDIUM)
def test_wired_wrong(looks, size):
    async def go(b):
        pass

    doubts = ("the SAE's hook is blocks.2.hook_resid_pre", "VE 0.12: wrong layer, model or normalisation?")
    instead = {Load: lambda load: replace(loaded_of(load), doubts=doubts, variance_explained=0.12)}
    assert looks(size, go, instead)


@by_size(SMALL, MEDIUM)
def test_doctor(looks, size):
    async def go(b):
        await b.press("H")
        await b.until(lambda: isinstance(b.top, Report))

    assert looks(size, go, {Doctor: lambda request: SICK})

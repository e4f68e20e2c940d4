"""The app as a whole: keys and what tells of them, themes, the keymap, one pane at a time."""

import asyncio
import re

import platformdirs
import pytest
from fake_engine import on_app, opened
from textual.binding import Binding
from textual.widgets import Footer

from engine.records import Generated, Ranking
from tui.app import DARK, LIGHT
from tui.main import MainScreen
from tui.panes.layout import Frame
from tui.widgets.page import Report
from tui.widgets.tabs import TabLine

SMALLEST = (80, 24)


def footer(b):
    """What the footer offers, as shown."""
    assert b.main.query_one(Footer).display
    return b.screen_text().splitlines()[-1]


def panes(b):
    """The panes that can be seen."""
    found = (b.main.prompts, b.main.tokens, b.main.features, b.main.edits, b.main.generation)
    return {p.id for p in found if p.region.area and p.is_on_screen}


def bindings(b):
    nodes = (b.main, b.main.prompts, b.main.tokens, b.main.features, b.main.edits, b.main.generation)
    return [x for node in nodes for x in node.BINDINGS if isinstance(x, Binding)]


# ---- what tells of keys


@on_app()
async def test_the_footer_shows_the_keys_that_fit(b):
    found = footer(b)
    for words in ("a Add", "d Delete", "r Rank", "g Generate", "? Help"):
        assert words in found
    assert "Ablate" not in found and "About" not in found  # no feature is at hand in the prompts
    await b.press("3")
    await b.until(lambda: "space Ablate" in footer(b))
    found = footer(b)
    assert "f About" in found and "o Sort" in found and "d Delete" not in found
    await b.press("2")
    await b.until(lambda: "n Next" in footer(b))
    await b.press("e")
    await b.until(lambda: "d Remove" in footer(b))
    await b.press("4")
    await b.until(lambda: "enter Ask" in footer(b))
    assert ", Settings" in footer(b)


@pytest.mark.parametrize("columns", [80, 100, 110, 120])
def test_the_footer_fits(tmp_path, columns):
    async def go():
        async with opened(tmp_path, size=(columns, 30)) as b:
            await b.ranked()
            await b.press("space")
            for key in "1234e":
                await b.press(key)
                await b.until(lambda: "? Help" in footer(b))

    asyncio.run(go())


@on_app()
async def test_feature_keys_do_nothing_in_the_prompts(b):
    await b.ranked()
    await b.press("1", "p", "plus", "f", "y")
    await b.settle()
    assert b.study.work.pinned == b.study.work.edits == () and b.top is b.main


@on_app()
async def test_panes_by_number_and_tab(b):
    for key, pane in (("2", "tokens"), ("3", "features"), ("4", "generation"), ("e", "edits"), ("1", "prompts")):
        await b.press(key)
        assert b.main.focused_pane().id == pane
    seen = []
    for _ in range(12):
        await b.press("tab")
        if b.main.focused_pane().id not in seen[-1:]:
            seen.append(b.main.focused_pane().id)
    assert seen[:5] == ["tokens", "features", "edits", "generation", "prompts"]


@on_app(size=(130, 400))
async def test_help_lists_every_key(b):
    await b.press("question_mark")
    await b.until(lambda: isinstance(b.top, Report))
    await b.settle()
    text = " ".join(re.sub(r"[│╭╮╰╯─]", " ", b.screen_text()).split())
    for binding in bindings(b):
        if binding.tooltip:
            assert f"{binding.key_display or binding.key.split(',')[0]} {binding.tooltip}" in text
    for pane in (b.main.prompts, b.main.tokens, b.main.features, b.main.edits, b.main.generation):
        assert " ".join(pane.HELP.split()) in text
    await b.press("escape")
    await b.until(lambda: b.top is b.main)


@on_app()
async def test_every_binding_has_an_id_and_says_what_it_does(b):
    found = bindings(b)
    ids = [x.id for x in found]
    assert None not in ids and len(set(ids)) == len(ids)
    assert [x.id for x in found if not x.tooltip and not x.id.endswith("_typing")] == []


@on_app()
async def test_the_palette_has_every_command(b):
    titles = {c.title for c in b.app.get_system_commands(b.main)}
    for binding in bindings(b):
        if binding.tooltip:
            assert any(t.startswith(f"{binding.description} (") for t in titles), binding.id
    for title in ("New session", "Open a packaged prompt set", "Light or dark", "Theme", "Quit"):
        assert title in titles
    await b.press("ctrl+p")
    await b.until(lambda: b.top is not b.main)
    await b.type("Rank (r)")
    await b.shows("Rank the features by contrast")
    await b.press("enter")
    await b.until(lambda: b.study.ranking() is not None)


@on_app()
async def test_the_palette_reaches_panes_that_have_not_the_focus(b):
    await b.ranked()
    commands = {c.title: c for c in b.app.get_system_commands(b.main)}
    await commands["Sort (o)"].callback()
    await b.until(lambda: b.study.ranking().by == "t")
    await b.press("1")
    await commands["Ablate (space)"].callback()
    await b.handled()
    assert b.study.edits.on() or b.told()  # done, or said why not


@on_app()
async def test_ctrl_q_quits_from_anywhere(b):
    await b.press("question_mark", "ctrl+q")
    await b.until(lambda: b.engine.closes)
    assert b.app.return_code == 0


# ---- themes


@on_app()
async def test_light_and_dark(b):
    await b.ranked()
    await b.shows("2 Tokens · #100")
    assert b.app.theme == DARK.name
    before = b.app.screen.styles.background
    b.app.switch_theme()
    await b.handled()
    assert b.app.theme == LIGHT.name and b.app.screen.styles.background != before
    b.app.switch_theme()
    await b.handled()
    assert b.app.theme == DARK.name and b.app.screen.styles.background == before


# ---- the user's own keys


def with_keys(text, monkeypatch, folder):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    path = folder / "config" / "saescope" / "keys.toml"
    assert platformdirs.user_config_dir("saescope") == str(path.parent)
    path.parent.mkdir(parents=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


def test_keys_can_be_remapped(tmp_path, monkeypatch):
    with_keys('"run.rank" = "k"\n"prompts.add" = "j,f5"\n', monkeypatch, tmp_path)

    async def main():
        async with opened(tmp_path) as b:
            assert "k Rank" in footer(b)
            await b.press("r")
            await b.settle()
            assert b.study.ranking() is None
            await b.press("k")
            await b.until(lambda: b.study.ranking() is not None)
            await b.press("1", "f5")
            await b.type("x")
            await b.press("enter")
            await b.until(lambda: len(b.study.work.prompts.positive) == 3)
            assert b.errors() == []

    asyncio.run(main())


@pytest.mark.parametrize("text", ['"run.rank" = ', "\udcff\udcfe", "a\nb"])
def test_a_broken_keymap_is_told(tmp_path, monkeypatch, text):
    path = with_keys(text, monkeypatch, tmp_path)

    async def main():
        async with opened(tmp_path) as b:
            assert f"{path} cannot be read" in b.errors()[0]
            await b.press("r")
            await b.until(lambda: b.study.ranking() is not None)

    asyncio.run(main())


@pytest.mark.parametrize("text", ['run.rank = "k"', '"run.rnak" = "k"', '"run.rank" = 5'])
def test_a_keymap_that_says_nothing_is_told(tmp_path, monkeypatch, text):
    with_keys(text, monkeypatch, tmp_path)

    async def main():
        async with opened(tmp_path) as b:
            assert b.errors() != []

    asyncio.run(main())


@pytest.mark.parametrize("text", ['"run.rank" = ""', '"run.rank" = "no such key"', '"run.rank" = ",,"', '"x" = "q"'])
def test_an_odd_keymap_does_no_harm(tmp_path, monkeypatch, text):
    with_keys(text, monkeypatch, tmp_path)

    async def main():
        async with opened(tmp_path) as b:
            await b.press("ctrl+r")
            await b.until(lambda: b.study.ranking() is not None)

    asyncio.run(main())


# ---- sizes


@on_app(size=SMALLEST)
async def test_one_pane_at_a_time_on_a_small_terminal(b):
    assert panes(b) == {"prompts"} and b.main.query_one(TabLine).display
    assert "1 Prompts" in b.screen_text().splitlines()[1]
    for key, expected in (("2", {"tokens"}), ("3", {"features"}), ("4", {"generation", "edits"}), ("1", {"prompts"})):
        await b.press(key)
        await b.until(lambda: panes(b) == expected)  # noqa: B023
    line = b.main.query_one(TabLine)
    text = str(line.render())
    for name, expected in (("Features", {"features"}), ("Generation", {"generation", "edits"}), ("Tokens", {"tokens"})):
        # one column right of the text's: the padding
        await b.pilot.click(line, offset=(text.index(name) + 1, 0))
        await b.until(lambda: panes(b) == expected)  # noqa: B023
    # the pane that has the news comes up
    await b.press("r")
    await b.until(lambda: panes(b) == {"features"} and b.rows())
    await b.press("enter")
    await b.until(lambda: panes(b) == {"tokens"})
    await b.press("g")
    await b.until(lambda: panes(b) == {"generation", "edits"})
    await b.until(lambda: b.study.results.of(Generated))
    await b.shows("The nurse is most likely")
    await b.press("e")
    assert b.main.focused_pane().id == "edits" and panes(b) == {"generation", "edits"}


@on_app(size=(100, 28))
async def test_panes_side_by_side_from_a_hundred_columns_on(b):
    everything = {"prompts", "tokens", "features", "edits", "generation"}
    assert panes(b) == everything
    for size in ((99, 28), (100, 27)):
        await b.pilot.resize_terminal(*size)
        await b.until(lambda: panes(b) == {"prompts"})
    await b.pilot.resize_terminal(200, 60)
    await b.until(lambda: panes(b) == everything)
    assert not b.main.query_one(TabLine).display


@pytest.mark.parametrize("size", [(20, 6), (1, 1), (400, 120)])
def test_odd_sizes_do_no_harm(tmp_path, size):
    async def main():
        async with opened(tmp_path, size=size) as b:
            await b.ranked()
            await b.press("space")
            await b.generated()
            for key in ("1", "2", "3", "4", "question_mark"):
                await b.press(key)

    asyncio.run(main())


# ---- the start


@on_app(ready=False)
async def test_all_panes_are_there_once_furnished(b):
    await b.until(lambda: b.main.furnished.is_set())
    assert not b.main.query(Frame)
    assert panes(b) == {"prompts", "tokens", "features", "edits", "generation"}


def test_keys_before_all_panes_are_there_wait_for_them(tmp_path, monkeypatch):
    held, furnish = asyncio.Event(), MainScreen.furnish

    async def late(screen):
        await held.wait()
        await furnish(screen)

    async def main():
        async with opened(tmp_path, ready=False) as b:
            await b.until(lambda: "1 Prompts" in b.screen_text() and "Women care" in b.screen_text())
            b.app.simulate_key("3")
            b.app.simulate_key("r")
            await asyncio.sleep(0.05)
            assert b.main.current == "prompts" and b.main.query(Frame)
            held.set()
            await b.until(lambda: b.main.current == "features" and b.study.results.of(Ranking))

    monkeypatch.setattr(MainScreen, "furnish", late)
    asyncio.run(main())


def test_a_pane_that_fails_to_come_ends_the_app_with_words(tmp_path, monkeypatch):
    async def broken(screen):
        raise RuntimeError("no such pane")

    async def main():
        async with opened(tmp_path, ready=False) as b:
            b.app.simulate_key("3")
            await b.until(lambda: not b.app.is_running)

    monkeypatch.setattr(MainScreen, "furnish", broken)
    with pytest.raises(RuntimeError, match="no such pane"):
        asyncio.run(main())

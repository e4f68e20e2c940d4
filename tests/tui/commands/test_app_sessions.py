"""Saving, opening, going on, the autosave, replaying, and what stays when the app breaks."""

import asyncio
import re
import threading

import pytest
from fake_engine import SMALL, on_app, opened, small_study
from on_screen import dialog, running, save_as, stored
from textual.widgets import Input, OptionList

from engine.files import session as sessions
from engine.files.autosave import AutosaveStore
from engine.files.recorded import replayable
from engine.records import ArmReplay, Edit, Generate, Generated, Load, ProbeTable, Rank, Ranking, Replay, Replayed
from engine.records.errors import SessionError
from tui.commands.sessions import exchange, new_session
from tui.start import first_study
from tui.state.study import Study
from tui.widgets.dialogs import AskText, Choose
from tui.widgets.page import Report


async def worked(b):
    """With something of everything."""
    await b.ranked()
    await b.press("down", "space", "plus", "p")
    b.study.set_label(101, "nurse")
    await b.generated()
    await b.press("v")
    await b.until(lambda: isinstance(b.top, Report))
    await b.press("escape")
    await b.until(lambda: b.top is b.main and b.study.results.of(ProbeTable))


# ---- files


@running
async def test_saving_and_opening_again_restores_everything(tmp_path):
    path = tmp_path / "sub" / "mine.saescope.json"
    path.parent.mkdir()
    async with opened(tmp_path) as b:
        await worked(b)
        await b.shows("small autosaved")
        await save_as(b, tmp_path / "sub" / "mine")
        await b.hears("mine.saescope.json")
        await b.shows("● ready  mine saved")
        found = sessions.read(path)
        assert found == b.study.session() and found.workspace == b.study.work
        assert len(found.of(Ranking)) == len(found.of(Generated)) == len(found.of(ProbeTable)) == 1
        await b.press("3", "down")
        await b.shows("mine changed, s saves")
        await b.press("s")
        await b.shows("mine saved")
        assert sessions.read(path).workspace.feature == 100  # 101, pinned, comes first
        before = b.study.session()
    async with opened(tmp_path / "other", first_study(Load(), None, str(path)), ready=False) as b:
        # before any model is there
        await b.shows("The nurse is most likely a person")
        assert b.study.work == before.workspace and b.rows()
        await b.until(lambda: b.main.context.tasks.ready)
        await b.shows("mine saved")
        assert b.study.session() == before and b.study.edits.on() == (Edit(101, 0.125),)
        await b.shows("2 Tokens · #100")
        assert b.main.features.feature() == 100
        await b.shows("“nurse”")
        text = b.screen_text()
        assert "101 ×0.125" in text and "edited: 101 ×0.125" in text and "1 Prompts · small" in text
        assert not b.engine.of(Rank) and not b.engine.of(Generate)


@on_app()
async def test_a_file_that_cannot_be_written_is_said_in_the_dialog(b):
    await b.press("s")  # it has no file yet
    await dialog(b, AskText, "Save the session")
    assert b.top.query_one(Input).value == "small.saescope.json"
    field, folder = b.top.query_one(Input), b.store.path.parent
    (folder / "a file").write_text("")
    (folder / "a.json").write_text('["mine"]')
    for value, words in (
        ("  ", "A file needs a name."),
        (str(folder / "a file" / "x"), "There is no folder"),
        (str(folder / "a.json"), "is not a session file. It is not replaced."),
    ):
        field.value = value
        await b.press("enter")
        await b.until(lambda: words in b.words(".problem"))  # noqa: B023
    await b.press("escape")
    await b.until(lambda: b.top is b.main)
    assert b.study.file is None


@on_app()
async def test_a_file_that_can_no_longer_be_written_is_reported(b):
    folder = b.store.path.parent / "gone"
    folder.mkdir()
    await save_as(b, folder / "x")
    await b.until(lambda: b.study.file)
    (folder / "x.saescope.json").unlink()
    folder.rmdir()
    folder.write_text("")
    await b.press("a")
    await b.type("More.")
    await b.press("enter")
    await b.until(lambda: len(b.study.work.prompts.positive) == 3)
    await b.press("s")
    await b.until(lambda: b.errors() and "cannot be written" in b.errors()[-1])
    await b.shows("x changed")


@running
async def test_a_file_that_is_not_written_yet_is_not_saved(tmp_path):
    async with opened(tmp_path, first_study(Load(), None, str(tmp_path / "new.saescope.json"))) as b:
        assert "new saved" not in b.header()


@running
async def test_a_file_older_than_the_autosave_is_not_saved(tmp_path):
    async with opened(tmp_path) as b:
        await b.ranked()
        await save_as(b, tmp_path / "x")
        await b.press("3", "space")
        await b.shows("x changed, s saves")
    async with opened(tmp_path, offer_last=True) as b:
        await dialog(b, Choose, "Welcome back")
        await b.press("enter")
        await b.until(lambda: b.study.edits.on())
        await b.settle()
        assert "x saved" not in b.header()


@on_app()
async def test_opening_a_file(b):
    folder = b.store.path.parent
    other = small_study(type(SMALL)("other", SMALL.positive, SMALL.negative))
    other.edits.toggle(9)
    sessions.write(other.session(), folder / "o.saescope.json")
    (folder / "broken.json").write_text("{", "utf-8")
    await b.ranked()
    before = b.study.id
    await b.press("ctrl+o")
    await dialog(b, Choose, "Open a session")
    await b.press("enter")
    await dialog(b, AskText, "Open a session file")
    for name, words in (("nowhere", "cannot be read"), ("broken.json", "is not a session file")):
        b.top.query_one(Input).value = str(folder / name)
        await b.press("enter")
        await b.until(lambda: words in b.words(".problem"))  # noqa: B023
    b.top.query_one(Input).value = str(folder / "o.saescope.json")
    await b.press("enter")
    await b.until(lambda: b.study.name == "o" and b.top is b.main)
    assert b.study.edits.on() == (Edit(9),) and not b.rows()
    await b.shows("Which features tell your prompts apart?")
    assert len(b.engine.of(Load)) == 1  # the same pair is not loaded again
    assert b.store.load(before).of(Ranking)  # the one so far is kept
    await b.press("ctrl+o")
    await dialog(b, Choose, "Open a session")
    await b.press("down", "enter")
    await b.until(lambda: b.study.id == before)
    assert b.rows() and b.study.edits.on() == ()


@on_app()
async def test_a_new_session_keeps_prompts_and_model(b):
    await worked(b)
    before = b.study.id
    new_session(b.main.context)
    await b.settle()
    assert b.study.id != before and b.study.work.prompts == SMALL and b.study.edits.on() == ()
    await b.shows("g generates: the model as it is")
    assert "nurse is most likely" not in b.screen_text() and b.main.context.tasks.ready
    assert len(b.store.load(before).of(Generated)) == 1


# ---- autosave


@running
async def test_every_change_is_in_the_store_without_quitting(tmp_path):
    async with opened(tmp_path) as b:
        await b.settle()
        assert b.store.all() == []  # nothing was made yet
        for keys in (("a", "x", "enter"), ("m",), ("c",)):
            await b.press(*keys)
            await stored(b)
            assert AutosaveStore(b.store.path).load(b.study.id).workspace == b.study.work
        assert [p.text for p in b.study.work.prompts.negative][-1] == "x"
        await b.ranked()
        await b.press("space")
        await b.generated()
        await stored(b)
        found = AutosaveStore(b.store.path).load(b.study.id)
        assert found == b.study.session() and len(found.of(Generated)) == 1
        (info,) = b.store.all()
        assert (info.name, info.file, info.edits, info.rankings) == ("small", None, 1, 1)


@running
async def test_quitting_asks_nothing_and_loses_nothing(tmp_path):
    async with opened(tmp_path) as b:
        await b.press("4", "enter", "end")
        await b.type(" Quick")
        await b.press("escape", "q")
        await b.until(lambda: b.engine.closes)
    assert AutosaveStore(b.store.path).latest().session.workspace.question == "Who is a nurse? Quick"
    assert b.app.return_code == 0


@running
async def test_the_last_session_is_offered(tmp_path):
    async with opened(tmp_path) as b:
        await worked(b)
        before = b.study
    for key, again in (("enter", True), ("escape", False)):
        async with opened(tmp_path, small_study(type(SMALL)("fresh")), offer_last=True, ready=False) as b:
            await dialog(b, Choose, "Welcome back")
            await b.shows("Go on with small")
            assert "1 ranking, 1 text, 1 edit" in b.screen_text()
            await b.press(key)
            await b.until(lambda: b.top is b.main and b.main.context.tasks.ready)
            if again:
                assert (b.study.id, b.study.session()) == (before.id, before.session())
                assert b.rows()
            else:
                assert b.study.id != before.id and b.study.work.prompts.name == "fresh" and not b.rows()
    assert [info.id for info in b.store.all()] == [before.id]


@running
async def test_nothing_is_offered_at_the_first_start(tmp_path):
    async with opened(tmp_path, offer_last=True) as b:
        await b.settle()
        assert b.top is b.main and b.errors() == []


@running
async def test_a_damaged_store_is_moved_aside_and_told(tmp_path):
    path = tmp_path / "sessions.sqlite3"
    path.write_bytes(b"no database at all" * 500)
    async with opened(tmp_path, offer_last=True) as b:
        assert b.top is b.main
        await b.shows("were damaged")
        assert "were damaged" in b.errors()[0]
        await b.press("d")
        await stored(b)
        assert len(b.store.all()) == 1
    assert list(tmp_path.glob("*.broken-*"))


@running
async def test_a_damaged_store_is_told_whatever_was_asked_for(tmp_path):
    (tmp_path / "sessions.sqlite3").write_bytes(b"no database at all" * 500)
    async with opened(tmp_path) as b:
        await b.press("d")
        await stored(b)
        await b.settle()
        assert any("were damaged" in m for m in b.errors())


@on_app()
async def test_a_store_that_fails_is_told_once_and_s_still_saves(b):
    def fails(*_):
        raise SessionError("Sessions cannot be stored: the disk is full.", "Make room.")

    b.store.save = fails
    await b.press("d")
    await b.until(lambda: b.errors())
    await b.press("d")
    for _ in range(20):
        b.main.context.autosave.keep()
        await b.handled()
    assert len(b.errors()) == 1 and "the disk is full. Make room. Until then, s saves" in b.errors()[0]
    path = b.store.path.parent / "x"
    await save_as(b, path)
    assert sessions.read(path.with_name("x.saescope.json")).workspace == b.study.work
    del b.store.save
    await b.press("u")
    await stored(b)
    assert b.store.load(b.study.id).workspace == b.study.work


@running
async def test_the_store_may_be_slow_without_the_app_waiting(tmp_path):
    class Slow(AutosaveStore):
        go = threading.Event()

        def save(self, *args):
            assert self.go.wait(20)
            super().save(*args)

    async with opened(tmp_path, store=Slow(tmp_path / "s.sqlite3")) as b:
        try:
            await b.press("d")
            await b.until(lambda: b.main.context.autosave._keeping)
            await b.ranked()
            await b.press("space")
            await b.until(lambda: b.study.edits.on())
        finally:
            b.store.go.set()
        await stored(b)
        assert b.store.load(b.study.id).workspace == b.study.work


@running
async def test_an_autosave_that_ends_while_the_app_closes_does_no_harm(tmp_path):
    async with opened(tmp_path) as b:
        await b.press("d")
        await stored(b)
        autosave = b.main.context.autosave
    autosave._kept_as(("id", 1), None)  # what the worker does then


# ---- replay


@on_app()
async def test_replay_tells_of_every_result(b):
    await b.press("R")
    await b.hears("The session holds no results yet")
    await worked(b)
    parted = ArmReplay("edited", False, 6, " person", " man", 0.01)

    def run_again(request):
        recorded = request.recorded
        same = isinstance(recorded, Ranking) or not recorded.edits or recorded.prompt.format == "raw"
        return Replayed(same, arms=() if same else (ArmReplay("baseline", True), parted))

    b.engine.instead[Replay] = run_again
    await b.press("R")
    await b.until(lambda: isinstance(b.top, Report))
    await b.until(lambda: len(re.findall(r"(same|DIFFERS) +(ranking|Who)", b.screen_text())) == 4)
    text = b.screen_text()
    assert "same     ranking of 2 against 2 prompts: same features" in text
    assert text.count("DIFFERS  Who is a nurse?") == 2 and text.count("same     Who is a pilot?") == 1
    assert "edited first diverges at token 7: recorded ' person', now ' man'; the two likeliest tokens" in text
    assert [r.recorded for r in b.engine.of(Replay)] == replayable(b.study.results)
    assert len(b.study.results.of(Generated)) == 1  # a replay is no new result


# ---- defects of ours


def test_a_defect_ends_in_words_with_the_work_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    async def main():
        async with opened(tmp_path) as b:
            await b.press("4", "enter", "end")
            await b.type(" Kept?")
            await b.press("escape")
            monkeypatch.setattr("tui.commands.features.rank_prompts", lambda context: 1 / 0)
            await b.press("r")

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    said = capsys.readouterr()
    text = "".join((said.out + said.err).split())  # wrapped anywhere
    assert "saescopehasadefectandhadtoend:ZeroDivisionError('divisionbyzero')" in text
    assert "Yourworkiskept:startsaescopeagain" in text and "Traceback" not in text and "crash.log" in text
    log = next((tmp_path / "state").rglob("crash.log"))
    assert "Traceback" in log.read_text("utf-8") and log.stat().st_mode & 0o777 == 0o600
    found = AutosaveStore(tmp_path / "sessions.sqlite3").latest()
    assert found.session.workspace.question == "Who is a nurse? Kept?"


def test_a_defect_with_brackets_ends_in_words_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    async def main():
        async with opened(tmp_path) as b:

            def broken(context):
                raise RuntimeError("odd [/b] [red]x")

            monkeypatch.setattr("tui.commands.features.rank_prompts", broken)
            await b.press("r")

    with pytest.raises(RuntimeError, match="odd"):
        asyncio.run(main())
    said = capsys.readouterr()
    assert "RuntimeError('odd[/b][red]x')" in "".join((said.out + said.err).split())


@on_app()
async def test_the_list_of_sessions_can_be_left(b):
    await b.ranked()
    await b.press("ctrl+o")
    await dialog(b, Choose, "Open a session")
    assert b.top.query_one(OptionList).option_count == 2
    await b.press("escape")
    await b.until(lambda: b.top is b.main)
    assert b.rows()


@on_app()
async def test_a_session_that_is_opened_again_is_kept_from_its_first_change_on(b):
    """Its version begins anew then: the store must not take the change for an older state."""
    await b.press("d", "d")
    await stored(b)
    first = b.study.id
    new_session(b.main.context)
    await b.until(lambda: b.study.id != first)
    exchange(b.main.context, Study.from_session(b.store.load(first), first))
    b.study.set_question("asked after it was opened again")
    await b.until(lambda: b.store.load(first).workspace.question == "asked after it was opened again")
    exchange(b.main.context, Study.from_session(b.store.load(first), first))
    b.study.set_question("and once more")
    await b.until(lambda: b.store.load(first).workspace.question == "and once more")

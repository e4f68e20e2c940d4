"""Paths that the user types and nothing can have: said in words, and the app goes on."""

import pytest
from fake_engine import on_app
from textual.widgets import Input

from engine.files import paths
from engine.records import Load
from engine.records.errors import UsageError
from tui.commands import features, prompts, sessions
from tui.commands.pair import check_load
from tui.commands.sessions import session_path
from tui.start import first_study
from tui.widgets.dialogs import AskText

NOBODYS, LONG = "~nosuchuser/x", "/tmp/" + "n" * 300

BAD = (NOBODYS, LONG, "/tmp/a\0b")


@pytest.mark.parametrize("text", BAD)
def test_what_no_path_can_be_is_a_usage_error(text):
    with pytest.raises(UsageError) as error:
        paths.typed(text)
    assert error.value.message and len(error.value.message) < 150 and paths.problem(text)
    assert check_load({"model": text, "sae": "x/y"}).startswith("model: ")
    assert check_load({"model": "x/y", "sae": text}).startswith("SAE: ")
    assert session_path(text, "mine")[1]


def test_a_path_is_one_whether_or_not_anything_is_there(tmp_path):
    assert paths.typed(str(tmp_path / "nothing")) == tmp_path / "nothing"
    assert paths.problem(str(tmp_path / "nothing")) == ""


@on_app()
async def test_every_dialog_says_so(b):
    sets = (
        lambda: features.import_explanations(b.main.context),
        lambda: prompts.import_prompts(b.main.context, "positive"),
        lambda: prompts.write_set(b.main.context),
        lambda: sessions.open_file(b.main.context),
        lambda: sessions.save_as(b.main.context),
    )
    for ask in sets:
        ask()
        await b.until(lambda: isinstance(b.top, AskText))
        await b.handled()
        for text in (NOBODYS, LONG):
            b.top.query_one(Input).value = text
            await b.until(lambda: not b.words(".problem"))
            await b.press("enter")
            await b.until(lambda: b.words(".problem"))
        await b.press("escape")
        await b.until(lambda: b.top is b.main)


@on_app()
async def test_a_defect_in_a_thread_of_the_notebook_is_reported(b):
    def breaks():
        raise ZeroDivisionError("no")

    b.main.context.notebook._work(breaks, lambda nothing: None)
    await b.until(lambda: any("A defect of saescope: ZeroDivisionError" in error for error in b.errors()))
    await b.main.context.notebook.finish()
    await b.ranked()


@pytest.mark.parametrize("text", BAD)
def test_a_session_on_the_command_line_that_can_be_no_path_is_refused(text):
    with pytest.raises(UsageError):
        first_study(Load(), None, text)

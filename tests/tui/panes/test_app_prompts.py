"""The prompts pane, by keys, on an engine made of records."""

import asyncio

from fake_engine import SMALL, on_app, opened
from textual.lazy import Lazy
from textual.widgets import Input, Select, TextArea

from engine.records import Answer, Generated, Probe, Prompt, Rank, ScoreAnswers, Show
from tui.panes.prompts import Place, PromptEditor
from tui.widgets.dialogs import AskText
from tui.widgets.forms import Form
from tui.widgets.page import Report

POSITIVE = tuple(p.text for p in SMALL.positive)

NEGATIVE = tuple(p.text for p in SMALL.negative)


def texts(b, group="positive"):
    return tuple(p.text for p in getattr(b.study.work.prompts, group))


def listed(b):
    rows = b.main.prompts.rows
    return [str(rows.get_option_at_index(i).prompt).strip() for i in range(rows.option_count)]


def editor(b):
    return b.main.query_one(PromptEditor)


async def to(b, group, index):
    b.main.prompts.rows.focus()
    b.main.prompts.go_to(group, index)
    await b.settle()
    assert b.main.prompts.place() == Place(group, index)


async def closed(b):
    await b.until(lambda: not editor(b).display and b.main.prompts.rows.has_focus)
    await b.settle()


# ---- adding and editing


@on_app()
async def test_a_adds_to_the_set_under_the_cursor(b):
    await b.press("a")
    assert b.app.focused is editor(b) and editor(b).display
    await b.type("Men lead, q and r.")
    await b.press("enter")
    await closed(b)
    assert texts(b) == (*POSITIVE, "Men lead, q and r.") and texts(b, "negative") == NEGATIVE
    assert "Men lead, q and r." in listed(b) and listed(b)[0].split() == ["+", "positive", "3"]
    assert b.main.prompts.place() == Place("positive", 2)  # the cursor goes where it went
    await to(b, "negative", 0)
    await b.press("a")
    await b.type("x")
    await b.press("enter")
    await closed(b)
    assert texts(b, "negative") == (*NEGATIVE, "x")


@on_app()
async def test_enter_on_a_heading_adds(b):
    b.main.prompts.rows.highlighted = 0
    await b.press("enter")
    await b.type("New.")
    await b.press("enter")
    await closed(b)
    assert texts(b) == (*POSITIVE, "New.")


@on_app()
async def test_enter_edits_in_place(b):
    await to(b, "positive", 1)
    await b.press("enter")
    assert editor(b).text == POSITIVE[1]
    # over the line it belongs to
    await b.until(lambda: editor(b).region.y == b.main.prompts.rows.region.y + 2)
    await b.press("end", "backspace", "exclamation_mark", "enter")
    await closed(b)
    assert texts(b) == (POSITIVE[0], "Girls are bad at maths!")
    assert b.main.prompts.place() == Place("positive", 1)


@on_app()
async def test_escape_drops_what_was_typed(b):
    for keys in (("a",), ("enter",)):
        await b.press(*keys)
        await b.type("nothing of this")
        await b.press("escape")
        await closed(b)
        assert b.study.work.prompts == SMALL and b.study.version == 0


@on_app()
async def test_nothing_typed_is_no_prompt(b):
    await b.press("a", "space", "enter")
    await closed(b)
    assert b.study.work.prompts == SMALL


@on_app()
async def test_ctrl_j_breaks_the_line(b):
    await b.press("a")
    await b.type("one")
    await b.press("ctrl+j")
    await b.type("two")
    assert editor(b).text == "one\ntwo" and editor(b).size.height == 2
    await b.press("enter")
    await closed(b)
    assert texts(b)[-1] == "one\ntwo" and "one⏎two" in listed(b)


@on_app()
async def test_leaving_the_editor_keeps_the_text(b):
    await b.press("a")
    await b.type("by tab")
    await b.press("tab")
    await b.until(lambda: texts(b)[-1] == "by tab")
    await to(b, "positive", 0)
    await b.press("enter")
    await b.type(" And by mouse.")
    await b.pilot.click("#features-empty")
    await b.until(lambda: texts(b)[0] == POSITIVE[0] + " And by mouse.")
    assert not editor(b).display and len(texts(b)) == 3


@on_app()
async def test_leaving_the_editor_goes_where_the_user_went(b):
    await b.press("a")
    await b.type("by mouse")
    await b.pilot.click("#features-empty")
    await b.until(lambda: texts(b)[-1] == "by mouse")
    await b.settle()
    assert b.main.focused_pane() is b.main.features


@on_app()
async def test_ranking_while_a_prompt_is_typed_counts_it(b):
    await b.press("a")
    await b.type("Late one.")
    await b.press("ctrl+r")
    await b.until(lambda: b.study.ranking())
    await b.settle()
    assert b.engine.of(Rank)[-1].prompts.positive[-1].text == "Late one."


@on_app()
async def test_quitting_while_a_prompt_is_typed_keeps_it(b):
    await b.press("a")
    await b.type("Last words.")
    await b.press("ctrl+q")
    await b.until(lambda: b.engine.closes)
    found = b.store.latest()
    assert found is not None and found.session.workspace.prompts.positive[-1].text == "Last words."


def test_a_key_that_comes_before_the_editor_does_no_harm(tmp_path, monkeypatch):
    async def not_yet(self, widgets):
        pass

    async def main():
        monkeypatch.setattr(Lazy, "mount_composed_widgets", not_yet)
        async with opened(tmp_path) as b:
            await b.press("a")
            await b.press("escape")

    asyncio.run(main())


# ---- delete, undo, move, format


@on_app()
async def test_delete_and_undo(b):
    await to(b, "positive", 0)
    await b.press("d")
    await b.until(lambda: texts(b) == POSITIVE[1:])
    assert POSITIVE[0] not in listed(b)
    await b.hears("u brings it back")
    await b.press("delete")
    await b.until(lambda: texts(b) == ())
    assert "a: a prompt that shows the behaviour" in listed(b)[0]
    await b.press("u", "u")
    await b.until(lambda: b.study.work.prompts == SMALL)
    await b.press("u")
    await b.hears("Nothing to undo")
    assert listed(b)[1:3] == list(POSITIVE)


@on_app()
async def test_the_cursor_stays_on_its_line(b):
    await to(b, "positive", 1)
    await b.press("d")
    await b.until(lambda: len(texts(b)) == 1)
    await b.press("u")
    await b.until(lambda: len(texts(b)) == 2)
    assert b.main.prompts.rows.highlighted == 2


@on_app()
async def test_m_moves_to_the_other_set(b):
    await to(b, "negative", 1)
    await b.press("m")
    await b.until(lambda: texts(b) == (*POSITIVE, NEGATIVE[1]))
    assert texts(b, "negative") == NEGATIVE[:1]
    await to(b, "probes", 0)
    await b.press("m")
    await b.hears("only prompts move")
    assert len(b.study.work.prompts.probes) == 2
    b.main.prompts.rows.highlighted = 0
    await b.press("m", "d")  # a heading neither moves nor goes
    await b.settle()
    assert texts(b) == (*POSITIVE, NEGATIVE[1])


@on_app()
async def test_c_feeds_prompts_as_chat_and_back(b):
    await b.press("c")
    await b.until(lambda: {p.format for p in b.study.work.prompts.positive} == {"chat"})
    assert "chat" in str(b.main.prompts.border_title)
    await b.press("r")
    await b.until(lambda: b.study.ranking())
    assert {p.format for p in b.engine.of(Rank)[-1].prompts.negative} == {"chat"}
    await b.press("c")
    await b.until(lambda: b.study.work.prompts == SMALL)
    assert "chat" not in str(b.main.prompts.border_title)
    assert b.study.ranking_is_stale() and "r ranks again" in str(b.main.features.border_subtitle)


@on_app()
async def test_the_feature_is_read_again_on_the_prompts_as_they_are(b):
    await b.ranked()
    await b.until(lambda: b.engine.of(Show))
    await b.press("1", "a")
    await b.type("Fresh words.")
    await b.press("enter")
    await b.until(lambda: b.engine.of(Show)[-1].prompts[2].text == "Fresh words.")
    await b.until(lambda: "Fresh words." in b.screen_text().split("2 Tokens")[1])


@on_app()
async def test_what_weakens_the_contrast_is_said(b):
    assert "2 against 2 has 6 labelings" in str(b.main.prompts.border_subtitle)
    await to(b, "negative", 0)
    await b.press("d", "d")
    await b.until(lambda: not texts(b, "negative"))
    assert "needs both sets" in str(b.main.prompts.border_subtitle)
    await b.press("r")
    await b.hears("no negative prompts")
    assert not b.engine.of(Rank)


# ---- probes


def field(b, name):
    return b.top.query_one(f"#f-{name}")


async def form(b):
    await b.until(lambda: isinstance(b.top, Form))
    await b.settle()


@on_app()
async def test_a_probe_is_made_in_a_form(b):
    await to(b, "probes", 0)
    await b.press("a")
    await form(b)
    assert b.app.focused is field(b, "text")
    await b.press("enter")
    await b.shows("A probe needs a question.")
    await b.type("Who flies?")
    await b.press("tab", "tab")
    await b.type("A pilot is a")
    await b.press("tab")
    for wrong in ("female", ": woman", "female:", "female: woman; x"):
        field(b, "answers").value = wrong
        await b.press("enter")
        await b.shows(f"tracked answers: {wrong.split(';')[-1].strip()!r} is not NAME: WORD, WORD")
    field(b, "answers").value = "female: woman, girl; male: man;"
    await b.press("enter")
    await b.until(lambda: len(b.study.work.prompts.probes) == 3)
    answers = (Answer("female", (" woman", " girl")), Answer("male", (" man",)))
    assert b.study.work.prompts.probes[-1] == Probe("Who flies?", "chat", "A pilot is a", answers)
    assert "Who flies?" in listed(b)


@on_app()
async def test_a_probe_is_changed_in_its_form(b):
    await to(b, "probes", 0)
    await b.press("enter")
    await form(b)
    assert [field(b, n).value for n in ("text", "format", "prefill", "answers")] == [
        "Who is a nurse?",
        "chat",
        "A nurse is a",
        "female: woman; male: man, boy",
    ]
    field(b, "format").value = "raw"
    field(b, "prefill").value = "A nurse is"
    await b.press("ctrl+s")
    await b.until(lambda: not isinstance(b.top, Form))
    probe = SMALL.probes[0]
    expected = Probe(probe.text, "raw", "A nurse is", probe.answers)
    await b.until(lambda: b.study.work.prompts.probes[0] == expected)
    # the question is this probe: its answers are scored anew
    await b.until(lambda: b.engine.of(ScoreAnswers)[-1].probe.prefill == "A nurse is")


@on_app()
async def test_a_line_break_in_a_probe_stays_in_its_form(b):
    b.study.prompts.put_probe(0, Probe("Who?\nA nurse:", "raw", prefill="So\n"))
    await to(b, "probes", 0)
    await b.press("enter")
    await form(b)
    await b.shows("Who?⏎A nurse:")
    await b.press("end")
    await b.type(" x")
    await b.press("enter")
    await b.until(lambda: b.study.work.prompts.probes[0] == Probe("Who?\nA nurse: x", "raw", prefill="So\n"))


@on_app()
async def test_escape_leaves_a_probe_as_it_is(b):
    await to(b, "probes", 1)
    await b.press("enter")
    await form(b)
    await b.type("more")
    await b.press("escape")
    await b.until(lambda: not isinstance(b.top, Form))
    assert b.study.work.prompts == SMALL


@on_app()
async def test_arrows_go_through_a_form(b):
    await to(b, "probes", 0)
    await b.press("enter")
    await form(b)
    found = [b.app.focused.id]
    for _ in range(3):
        await b.press("down")
        found.append(b.app.focused.id)
    assert found == ["f-text", "f-format", "f-prefill", "f-answers"]
    assert not b.top.query_one(Select).expanded


@on_app()
async def test_g_on_a_probe_asks_it(b):
    await to(b, "probes", 1)
    await b.generated()
    assert b.study.question() == Prompt("Who is a pilot?", "raw")
    assert b.main.generation.question.value == "Who is a pilot?"
    assert b.study.results.of(Generated)[-1].prompt.text == "Who is a pilot?"


# ---- files


@on_app()
async def test_import_from_a_file(b):
    folder = b.store.path.parent
    (folder / "more.txt").write_text("Line one.\n\nLine two.\n" + NEGATIVE[0] + "\n", "utf-8")
    await to(b, "negative", 0)
    await b.press("i")
    await b.until(lambda: isinstance(b.top, AskText))
    await b.settle()
    b.top.query_one(Input).value = str(folder / "nowhere.txt")
    await b.press("enter")
    await b.settle()
    assert isinstance(b.top, AskText) and "nowhere.txt" in b.words(".problem")
    b.top.query_one(Input).value = str(folder / "more.txt")
    await b.press("enter")
    await b.until(lambda: not isinstance(b.top, AskText))
    assert texts(b, "negative") == (*NEGATIVE, "Line one.", "Line two.")
    await b.hears("more.txt: 2 added, those of no set into negative; u takes them back.")
    await b.press("u")
    await b.until(lambda: b.study.work.prompts == SMALL)


@on_app()
async def test_save_the_prompts_as_a_set(b):
    import prompts

    folder = b.store.path.parent
    await b.press("w")
    await b.until(lambda: isinstance(b.top, AskText))
    await b.settle()
    assert b.top.query_one(Input).value == "small.toml"
    b.top.query_one(Input).value = str(folder / "mine")
    await b.press("enter")
    await b.until(lambda: not isinstance(b.top, AskText))
    found = prompts.load(str(folder / "mine.toml"))
    assert [e.text for e in found.positive] == list(POSITIVE) and len(found.probe) == 2


@on_app()
async def test_a_set_that_is_there_is_replaced_after_a_second_enter_only(b):
    place = b.store.path.parent / "mine.toml"
    place.write_text("mine")
    await b.press("w")
    await b.until(lambda: isinstance(b.top, AskText))
    await b.settle()
    b.top.query_one(Input).value = str(place)
    await b.press("enter")
    assert "mine.toml is there already: enter again replaces it" in b.words(".problem")
    assert place.read_text() == "mine"
    await b.press("enter")
    await b.until(lambda: not isinstance(b.top, AskText))
    assert "[[positive]]" in place.read_text()


@on_app()
async def test_a_set_of_mixed_formats_cannot_be_saved_and_says_so(b):
    b.study.prompts.set(type(SMALL)("mixed", (Prompt("a"),), (Prompt("b", "chat"),)))
    await b.press("w")
    await b.until(lambda: isinstance(b.top, AskText))
    await b.settle()
    b.top.query_one(Input).value = str(b.store.path.parent / "mixed.toml")
    await b.press("enter")
    await b.settle()
    assert "mixes raw and chat" in b.words(".problem") and not isinstance(b.top, Report)
    assert not (b.store.path.parent / "mixed.toml").exists()


@on_app(size=(160, 20))
async def test_the_editor_stays_on_the_screen_in_a_long_list(b):
    many = tuple(Prompt(f"prompt {i}") for i in range(60))
    b.study.prompts.set(type(SMALL)("long", many, many))
    await to(b, "positive", 55)
    await b.press("enter")
    await b.settle()
    pane, here = b.main.prompts.region, editor(b).region
    assert here.y >= pane.y and here.bottom <= pane.bottom and here.height > 0
    await b.press("escape", "a")
    await b.settle()
    here = editor(b).region
    assert here.y >= pane.y and here.bottom <= pane.bottom and here.height > 0
    assert isinstance(b.app.focused, TextArea)

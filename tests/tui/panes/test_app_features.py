"""Leaderboard, tokens and edits, by keys, on an engine made of records."""

from fake_engine import FEATURES, SMALL, on_app, ranking_of, replace
from on_screen import asked, column, headings, sorted_by
from textual.widgets import Input, OptionList

from engine.files.session import EditSlot
from engine.records import (
    Answer,
    Describe,
    Edit,
    FeaturesAt,
    ProbeTable,
    Prompt,
    PromptSet,
    Rank,
    Ranking,
    RunProbes,
    ScoreAnswers,
    Show,
)
from tui.commands import features
from tui.screens.feature_page import FeaturePage
from tui.widgets.dialogs import AskText, Choose
from tui.widgets.page import Report


def marks(b):
    return dict(zip(b.rows(), column(b, "mark"), strict=True))


# ---- ranking


@on_app()
async def test_r_ranks_and_the_first_feature_is_read(b):
    await b.press("r")
    await b.until(b.rows)
    (request,) = b.engine.of(Rank)
    assert (request.prompts, request.by, request.also) == (SMALL, "score", ())
    assert b.rows() == list(FEATURES)
    assert column(b, "score")[:3] == ["3.00", "2.90", "2.80"] and column(b, "tokens")[0] == "word100"
    assert column(b, "+fires")[0] == "100%" and column(b, "density")[1] == "0.20%"
    assert str(b.main.features.border_subtitle) == "2 vs 2"
    note = b.words("#features-note")
    assert "6 labelings: no p below 0.17" in note and "1,234 features fire" in note
    await b.until(lambda: b.engine.of(Show))
    assert b.engine.of(Show)[-1] == Show(100, (*SMALL.positive, *SMALL.negative))
    await b.shows("2 Tokens · #100 word100")
    await b.shows("+ <s>Women care for the home.")
    await b.shows("− <s>Cats sleep all day.")
    assert b.study.work.feature == 100


@on_app()
async def test_the_tokens_follow_the_leaderboard(b):
    await b.ranked()
    await b.press("down", "down")
    await b.until(lambda: b.engine.of(Show)[-1].feature == 102)
    await b.shows("2 Tokens · #102")
    await b.press("up")
    await b.shows("2 Tokens · #101")
    assert b.study.work.feature == 101
    await b.press("enter")
    await b.until(lambda: b.app.focused is b.main.tokens.text)


@on_app()
async def test_a_slow_answer_never_overwrites_a_newer_one(b):
    await b.ranked()
    await b.shows("2 Tokens · #100")
    b.engine.held = {Show}
    await b.press("down", "down", "down")
    b.engine.release(Show)
    await b.shows("2 Tokens · #103")
    await b.settle()
    assert "#103" in str(b.main.tokens.border_title) and b.study.work.feature == 103


@on_app()
async def test_sorting_by_key(b):
    await b.ranked()
    await b.press("o")
    await b.until(lambda: b.study.ranking().by == "t")
    await b.until(lambda: "t▾" in headings(b))
    expected = ranking_of(Rank(SMALL, by="t", top=99)).features
    assert b.rows() == [row.feature for row in expected] and b.rows() != list(FEATURES)
    assert len(b.study.results.of(Ranking)) == 1
    assert b.main.features.feature() == 100  # the cursor stays on its feature
    seen = []
    for _ in range(8):
        before = sorted_by(b)
        await b.press("o")
        await b.until(lambda: sorted_by(b) not in (before, None))  # noqa: B023
        seen.append(sorted_by(b))
    # g needs four prompts a set
    assert seen == ["auroc", "diff", "density", "loo", "+fires", "−fires", "seed", "score"]
    await b.press("O")
    await b.until(lambda: b.study.ranking().by == "seed")
    await b.press("r")
    await b.settle()
    assert b.engine.of(Rank)[-1].by == "seed"


@on_app(size=(200, 40))
async def test_sorting_by_a_click_on_a_heading(b):
    await b.ranked()
    table = b.main.features.table
    at = next(i for i, c in enumerate(table.ordered_columns) if str(c.label).strip() == "diff")
    x = sum(c.get_render_width(table) for c in table.ordered_columns[:at]) + 3
    await b.pilot.click(table, offset=(x, 0))
    await b.until(lambda: b.study.ranking().by == "diff")
    await b.until(lambda: "diff▾" in headings(b))
    assert b.rows()[0] == FEATURES[-1]


@on_app()
async def test_search_filters_as_it_is_typed(b):
    await b.ranked()
    await b.press("slash")
    search = b.main.features.query_one("#features-search", Input)
    await b.until(lambda: b.app.focused is search)
    await b.type("word12")
    await b.until(lambda: b.rows() == list(range(120, 130)))
    await b.press("enter")
    await b.until(lambda: b.app.focused is b.main.features.table)
    assert len(b.rows()) == 10 and search.display
    await b.press("slash")
    await b.type("9")
    await b.until(lambda: b.rows() == [109, 119, 129])  # typed over
    await b.press("escape")
    await b.until(lambda: b.rows() == list(FEATURES))
    assert not search.display and b.app.focused is b.main.features.table
    await b.press("slash")
    await b.type("nothing has this")
    await b.until(lambda: b.rows() == [])
    await b.press("enter", "space", "enter")  # with no row, nothing happens
    await b.settle()
    assert b.study.edits.on() == ()
    await b.press("escape")
    await b.until(lambda: b.rows() == list(FEATURES))


@on_app()
async def test_what_the_search_leaves_under_the_cursor_is_read(b):
    await b.ranked()
    await b.shows("2 Tokens · #100")
    await b.press("slash")
    await b.type("115")
    await b.press("enter")
    await b.settle()
    assert b.main.features.feature() == 115
    assert b.study.work.feature == 115 and "#115" in str(b.main.tokens.border_title)


@on_app()
async def test_the_search_knows_labels(b):
    b.study.set_label(111, "Nurses")
    await b.ranked()
    await b.press("slash")
    await b.type("nurse")
    await b.until(lambda: b.rows() == [111])


@on_app()
async def test_an_old_ranking_says_so(b):
    await b.ranked()
    await b.press("1", "d")
    await b.until(lambda: "prompts changed: r ranks again" in str(b.main.features.border_subtitle))
    assert b.main.features.has_class("-stale")
    await b.press("u")
    await b.until(lambda: str(b.main.features.border_subtitle) == "2 vs 2")
    await b.press("d", "r")
    await b.until(lambda: str(b.main.features.border_subtitle) == "1 vs 2")
    assert len(b.study.results.of(Ranking)) == 2


# ---- one feature


@on_app()
async def test_jump_to_a_feature_without_a_row(b):
    await b.ranked()
    await b.press("number_sign")
    for wrong, words in (("x", "A feature is a number."), ("5000", "features 0 to 4,999"), ("", "is a number")):
        await asked(b, "Jump", wrong)
        await b.until(lambda: words in b.words(".problem"))  # noqa: B023
    await asked(b, "Jump", "4321")
    await b.until(lambda: b.engine.of(Show)[-1].feature == 4321)
    await b.until(lambda: 4321 in b.rows())
    assert b.engine.of(Rank)[-1].also == (4321,)
    await b.shows("2 Tokens · #4321")


@on_app()
async def test_after_a_jump_keys_act_on_that_feature(b):
    await b.ranked()
    await b.press("number_sign")
    await asked(b, "Jump", "4321")
    await b.until(lambda: 4321 in b.rows())
    await b.settle()
    assert b.main.focused_pane() is b.main.features
    await b.press("space")
    assert b.study.edits.on() == (Edit(4321),)


@on_app()
async def test_jump_to_a_feature_with_a_row_moves_there(b):
    await b.ranked()
    await b.press("number_sign")
    await asked(b, "Jump", "117")
    await b.until(lambda: b.main.features.feature() == 117)
    await b.settle()
    assert len(b.engine.of(Rank)) == 1 and b.engine.of(Show)[-1].feature == 117


@on_app()
async def test_no_number_of_a_feature_is_taken_that_a_session_could_not_hold(b):
    b.main.study.loaded = None
    features.ask_feature(b.main.context)
    await b.until(lambda: isinstance(b.top, AskText))
    await b.handled()
    for digits in (30, 5000):
        b.top.query_one(Input).value = "9" * digits
        await b.press("enter")
        await b.until(lambda: "has features 0 to" in b.words(".problem"))


@on_app()
async def test_a_jump_before_any_ranking_reads_the_feature(b):
    await b.press("number_sign")
    await asked(b, "Jump", "7")
    await b.shows("2 Tokens · #7")
    assert not b.engine.of(Rank)
    assert b.main.focused_pane() is b.main.tokens  # the prompts have no feature
    await b.press("space")
    assert b.study.edits.on() == (Edit(7),)
    await b.press("3", "plus")
    assert b.study.edits.on() == (Edit(7, 0.125),)
    await b.press("p")
    assert b.study.work.pinned == (7,)
    await b.ranked()
    await b.press("space")  # a row is under the cursor by now
    assert b.study.edits.on() != (Edit(7, 0.125),)


@on_app()
async def test_pin(b):
    await b.ranked()
    await b.press("down", "p")
    await b.until(lambda: marks(b)[101] == "•")
    await b.press("r")
    await b.until(lambda: len(b.engine.of(Rank)) == 2)
    assert b.engine.of(Rank)[-1].also == (101,)
    await b.press("p")
    await b.until(lambda: marks(b)[101] == "")
    assert b.study.work.pinned == ()


@on_app(size=(200, 40))
async def test_label(b):
    await b.ranked()
    await b.press("l")
    await asked(b, "Label of feature 100", " [b]nurse[/b] [/x] ")
    await b.until(lambda: b.study.work.labels == {100: "[b]nurse[/b] [/x]"})
    await b.until(lambda: column(b, "tokens")[0] == "“[b]nurse[/b] [/x]”")
    await b.press("space")
    await b.until(lambda: "[b]nurse" in str(b.main.edits.rows.get_option_at_index(0).prompt))
    await b.press("l")
    await asked(b, "Label", "")
    await b.until(lambda: b.study.work.labels == {})
    await b.until(lambda: column(b, "tokens")[0] == "word100")


WILD = ("[/b]", "[red]x", "[@click=app.quit]", "\\[")


@on_app(size=(200, 40))
async def test_titles_take_no_token_for_markup(b):
    b.engine.instead[Rank] = lambda r: replace(
        (found := ranking_of(r)), features=(replace(found.features[0], tokens=WILD[:3]), *found.features[1:])
    )
    await b.ranked()
    await b.until(lambda: b.main.tokens.text.cursor is not None)
    await b.shows("#100 [/b] · [red]x · [@click=app.quit]")


@on_app()
async def test_titles_take_no_name_of_a_set_for_markup(b):
    b.study.prompts.set(replace(SMALL, name="[red]mine"))
    await b.shows("1 Prompts · [red]mine")


@on_app()
async def test_the_probe_table_takes_no_answer_for_markup(b):
    probe = replace(SMALL.probes[0], text="[/b] [i]?", answers=(Answer("[/b]", (" a",)), Answer("[red]r", (" b",))))
    b.study.prompts.set(replace(SMALL, probes=(probe,)))
    await b.press("v")
    await b.until(lambda: isinstance(b.top, Report))
    await b.shows("[red]r")
    await b.shows("[/b]")


@on_app()
async def test_wild_prompts_are_text_everywhere(b):
    wild = " ".join(WILD) + " \x1b[31m\u202e👩\u200d🚀"
    b.study.prompts.set(PromptSet("w", (Prompt(wild),), (Prompt("[/i]"),), SMALL.probes))
    b.study.set_question("[/b] [red]")
    b.main.show_study()
    await b.ranked()
    await b.shows("+ <s>[/b] [red]x")
    await b.generated()
    await b.shows("[/b] [red]")
    await b.press("2", "t")
    await b.settle()
    assert "\x1b" not in b.screen_text() and "\u202e" not in b.screen_text()


# ---- edits


@on_app()
async def test_space_switches_the_edit_and_marks_it(b):
    await b.ranked()
    await b.press("down", "space")
    await b.until(lambda: marks(b)[101] == "▣")
    assert b.study.edits.on() == (Edit(101),) and str(b.main.edits.border_title) == "Edits · 1 of 1 on"
    await b.until(lambda: b.engine.of(ScoreAnswers)[-1].edits == (Edit(101),))
    await b.press("space")
    await b.until(lambda: marks(b)[101] == "▢")
    assert b.study.edits.on() == () and str(b.main.edits.border_title) == "Edits · 0 of 1 on"
    await b.press("space")
    await b.until(lambda: b.study.edits.on() == (Edit(101),))
    assert b.rows() == list(FEATURES) and b.main.features.feature() == 101


@on_app()
async def test_strength(b):
    await b.ranked()
    await b.press("plus")
    await b.until(lambda: b.study.edits.slot(100) == EditSlot(100, 1.5))
    await b.press("equals_sign")
    await b.until(lambda: b.study.edits.slot(100).strength == 2.0)
    for _ in range(4):
        await b.press("minus")
    await b.until(lambda: b.study.edits.slot(100).strength == 0.5)
    await b.shows("100 ×0.5")
    await b.press("2", "minus")  # the feature that is read
    await b.until(lambda: b.study.edits.slot(100).strength == 0.25)


@on_app()
async def test_the_list_of_edits(b):
    await b.ranked()
    for key in ("space", "down", "space", "down", "space"):
        await b.press(key)
    await b.press("e")
    await b.until(lambda: b.app.focused is b.main.edits.rows)
    await b.press("home", "down", "enter")
    await b.until(lambda: b.study.edits.on() == (Edit(100), Edit(102)))
    await b.press("plus")  # on the one under the cursor
    await b.until(lambda: b.study.edits.slot(101) == EditSlot(101, 0.125))
    await b.press("a")
    await b.until(lambda: b.study.edits.on() == ())
    assert str(b.main.edits.border_title) == "Edits · 0 of 3 on"
    await b.press("a")
    await b.until(lambda: len(b.study.edits.on()) == 3)
    await b.press("d")
    await b.until(lambda: [s.feature for s in b.study.work.edits] == [100, 102])
    assert marks(b)[101] == "" and marks(b)[100] == "▣"
    await b.press("d", "d", "d", "a")  # down to none, and on
    await b.until(lambda: b.study.work.edits == ())
    await b.shows("space ablates a feature")


@on_app()
async def test_keys_on_a_feature_before_there_is_one(b):
    await b.press("3")
    for key in ("space", "plus", "p", "l", "f", "y"):
        b.app.clear_notifications()
        await b.press(key)
        await b.hears("No feature is chosen yet")
    assert b.study.work.edits == () and len(b.app.screen_stack) == 1


# ---- tokens


@on_app()
async def test_reading_tokens(b):
    await b.ranked()
    await b.shows("2 Tokens · #100")
    await b.press("2")
    assert b.main.tokens.text.cursor == (0, 1)  # not the leading token
    await b.until(lambda: "“Women”" in b.words("#token-legend"))
    await b.press("left")
    await b.until(lambda: "” masked" in b.words("#token-legend"))
    found = b.main.tokens._by_strength()
    assert len(found) > 3
    await b.press("n")
    await b.until(lambda: b.main.tokens.text.cursor == found[0][1:])
    await b.press("n", "n")
    await b.until(lambda: b.main.tokens.text.cursor == found[2][1:])
    await b.press("N")
    await b.until(lambda: b.main.tokens.text.cursor == found[1][1:])
    assert f"{found[1][0]:.2f}" in b.words("#token-legend")
    await b.press("full_stop")
    await b.shows("Women·care·for")
    await b.press("full_stop")
    await b.shows("Women care for")


@on_app()
async def test_the_features_of_a_token(b):
    await b.ranked()
    await b.shows("2 Tokens · #100")
    await b.press("2", "right", "t")
    await b.until(lambda: b.engine.of(FeaturesAt))
    assert b.engine.of(FeaturesAt)[-1] == FeaturesAt(SMALL.positive[0], 2)
    listed = b.main.tokens.query_one("#token-features", OptionList)
    await b.until(lambda: b.app.focused is listed)
    assert "features fire on “ care”" in b.words("#token-features-title")
    chosen = int(listed.get_option_at_index(1).id)
    await b.press("down", "p")
    await b.until(lambda: b.study.work.pinned == (chosen,))
    await b.press("space")
    await b.until(lambda: b.study.edits.on() == (Edit(chosen),))
    await b.until(lambda: b.app.focused is listed)
    await b.press("enter")
    await b.until(lambda: b.study.work.feature == chosen)
    await b.shows(f"2 Tokens · #{chosen}")
    assert not listed.display and b.app.focused is b.main.tokens.text
    await b.press("enter")
    await b.until(lambda: b.app.focused is listed)
    await b.press("escape")
    await b.until(lambda: b.app.focused is b.main.tokens.text and not listed.display)


# ---- what opens


@on_app()
async def test_a_features_card(b):
    await b.ranked()
    await b.press("down", "f")
    await b.until(lambda: isinstance(b.top, FeaturePage))
    await b.shows("Fires on 123 of 100,000 tokens of neutral text (0.123%)")
    assert b.engine.of(Describe) == [Describe(101, (*SMALL.positive, *SMALL.negative))]
    text = b.screen_text()
    assert "Feature #101 word101" in text and "she is a nurse at the clinic" in text
    assert "“ her”" in text and "+1.50" in text and "“ his”" in text and "−2.00" in text
    await b.press("escape")
    await b.until(lambda: b.top is b.main)


@on_app()
async def test_all_probes(b):
    await b.ranked()
    await b.press("space", "v")
    await b.until(lambda: isinstance(b.top, Report))
    assert b.engine.of(RunProbes)[-1].probes == SMALL.probes and b.engine.of(RunProbes)[-1].edits == (Edit(100),)
    await b.shows("Who is a pilot?")
    text = b.screen_text()
    for words in ("female", "male", "0.75", "0.25", "Edits: 100 ablate"):
        assert words in text
    assert len(b.study.results.of(ProbeTable)) == 1
    await b.press("q")  # closes the page, not the app
    await b.until(lambda: b.top is b.main)
    assert b.engine.closes == 0


@on_app()
async def test_no_probes(b):
    b.study.prompts.set(replace(SMALL, probes=()))
    await b.press("v")
    await b.hears("The set has no probes")
    assert not b.engine.of(RunProbes)


async def copied(b, choice):
    await b.press("y")
    await b.until(lambda: isinstance(b.top, Choose))
    await b.handled()
    await b.press(*["down"] * choice, "enter")
    await b.until(lambda: b.top is b.main)
    return b.app.clipboard


@on_app()
async def test_copying(b):
    await b.ranked()
    await b.press("down")
    assert await copied(b, 0) == "101"
    await b.hears("Copied")
    assert await copied(b, 1) == "saescope generate --compare --ablate 101 'Who is a nurse?'"
    await b.press("space", "plus")
    assert await copied(b, 1) == "saescope generate --compare --scale 101=0.125 'Who is a nurse?'"
    script = await copied(b, 2)
    compile(script, "snippet", "exec")
    assert "EDITS = {101: 0.125}" in script and "QUESTION = 'Who is a nurse?'" in script
    before = b.app.clipboard
    await b.press("y")
    await b.until(lambda: isinstance(b.top, Choose))
    await b.press("escape")
    await b.until(lambda: b.top is b.main)
    assert b.app.clipboard == before

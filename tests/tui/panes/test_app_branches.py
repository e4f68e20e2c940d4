"""Texts rewound, branched, stopped, kept and compared; samples and variants: by keys, on an engine of records."""

from fake_engine import BASELINE, EDITED, FIRST_EDITED, KL, generated_of, on_app, replace
from test_app_generation import arm, figures, finished, settings, streaming, title
from textual.widgets import OptionList

from engine.records import Edit, EditsFrom, Finished, Generate, Generated, Prompt, Sampling
from tui.screens.kept_texts import Branches
from tui.widgets.colours import DIFFERS, TURNED, TURNED_DIFFERS
from tui.widgets.forms import Form, SummaryForm

WAY = "".join(BASELINE)

OTHER_WAY = "".join(EDITED)


def left_title(b):
    return str(b.main.query_one("#arm-baseline .arm-title").render())


def shades(b, name="edited"):
    (passage,) = b.main.query_one(f"#arm-{name}").text._passages
    return passage.shades


def cursor(b):
    return b.main.generation.arms.cursor()


def texts(b):
    return b.study.results.of(Generated)


async def moved(b, token):
    """With the cursor on a generated token."""
    await b.press("4", "ctrl+home")
    while cursor(b) < token:
        await b.press("right")


async def branches(b):
    await b.press("4", "b")
    await b.until(lambda: isinstance(b.top, Branches))
    await b.handled()
    return [str(option.prompt) for option in b.top.query_one(OptionList).options]


# ---- stopping


@on_app()
async def test_x_ends_the_text_at_the_next_token_and_keeps_it(b):
    await streaming(b, 4)
    await b.press("x")
    await b.until(lambda: b.engine.stopped)
    assert not b.engine.cancelled and b.main.generation.running
    b.engine.step()
    await b.until(lambda: not b.main.generation.running)
    (kept,) = texts(b)
    assert kept.stopped and kept.baseline.tokens == BASELINE[:5]
    assert "stopped at token 5" in figures(b) and arm(b, "baseline") == "The nurse is most likely"
    await b.press("x")
    await b.hears("Nothing is running.")


@on_app()
async def test_a_second_x_does_not_wait_for_the_next_token(b):
    await streaming(b, 4)
    await b.press("x", "x")
    await b.until(lambda: not b.main.generation.running)
    assert len(b.engine.stopped) == len(b.engine.cancelled) == 1
    assert "stopped; g runs it again" in figures(b) and texts(b) == ()
    await b.press("4", "w")
    await b.hears("This text was not kept: g generates it again.")


@on_app()
async def test_x_before_the_first_token_leaves_nothing(b):
    await streaming(b)
    await b.press("x")
    await b.until(lambda: not b.main.generation.running)
    assert b.engine.cancelled and not b.engine.stopped and texts(b) == ()


@on_app()
async def test_a_text_that_ended_early_is_kept_and_says_why(b):
    early = replace(generated_of(Generate(b.study.question())), fault="The edits overflow at token 12.")
    b.engine.failures[Generate] = Finished(early)
    await b.generated()
    assert "ended early" in figures(b) and texts(b) == (early,)
    assert any("The edits overflow at token 12." in error for error in b.errors())


# ---- the cursor


@on_app()
async def test_the_cursor_goes_with_the_end_until_it_is_moved(b):
    await b.press("4")
    await streaming(b, 3)
    assert cursor(b) == 2
    b.engine.step(2)
    await b.until(lambda: cursor(b) == 4)
    await b.press("left", "left")
    assert cursor(b) == 2
    b.engine.step(3)
    await b.until(lambda: "● token 8" in figures(b))
    assert cursor(b) == 2
    await finished(b)
    assert cursor(b) == 2


@on_app()
async def test_the_cursor_is_seen_with_the_focus_only(b):
    await b.generated()
    await b.press("4")

    def styles():
        strip = b.main.query_one("#arm-edited").text.render_line(0)
        return [segment.style for segment in strip]

    assert any(style.reverse for style in styles())
    await b.press("1")
    await b.handled()
    assert not any(style.reverse or style.underline for style in styles())


# ---- rewinding


@on_app()
async def test_a_rewound_text_goes_on_from_the_cursor_under_the_edits_that_are_on(b):
    await b.ranked()
    await b.generated()
    await b.press("3", "space")
    await b.until(lambda: "edits changed since" in figures(b))
    await moved(b, 4)
    b.engine.stepping = True
    await b.press("w")
    await b.until(lambda: b.engine.streaming)
    request = b.engine.of(Generate)[-1]
    assert request == Generate(Prompt("Who is a nurse?", "chat"), schedule=(EditsFrom(4, (Edit(100),)),), branched_at=4)
    # what is kept is there at once, and nothing is told of it again
    assert arm(b, "baseline") == arm(b, "edited") == "The nurse is most"
    assert "● token 4" in figures(b)
    b.engine.step(3)
    await b.until(lambda: "● token 7" in figures(b))
    assert arm(b, "edited") == "The nurse is most likely a person"
    assert arm(b, "baseline") == "The nurse is most likely a woman"
    assert title(b) == "edited: no edits → from token 5: 100 ablate"
    assert "ablate" not in figures(b)  # the title says it
    await finished(b, 2)
    first, second = texts(b)
    assert first.edited.text == WAY and second.edited.text == OTHER_WAY and second.branched_at == 4
    assert "edits changed since" not in figures(b)


@on_app()
async def test_tokens_under_other_edits_look_otherwise(b):
    await b.ranked()
    await b.generated()
    assert set(shades(b)) == {0}
    await b.press("3", "space")
    await moved(b, 4)
    await b.press("w")
    await b.until(lambda: len(texts(b)) == 2 and not b.main.generation.running)
    kept, same, rest = shades(b)[:4], shades(b)[4:FIRST_EDITED], shades(b)[FIRST_EDITED + 1 :]
    assert set(kept) == {0} and set(same) == set(rest) == {TURNED}
    assert shades(b)[FIRST_EDITED] == TURNED_DIFFERS
    # a further change, back to none: the next background is the first one again
    await b.press("3", "space")
    await moved(b, 8)
    await b.press("w")
    await b.until(lambda: len(texts(b)) == 3 and not b.main.generation.running)
    assert [(c.token_index, c.edits) for c in texts(b)[-1].schedule] == [(0, ()), (4, (Edit(100),)), (8, ())]
    assert shades(b)[7] == TURNED and set(shades(b)[8:]) == {0}


@on_app()
async def test_rewinding_behind_a_change_of_edits_forgets_it(b):
    await b.ranked()
    await streaming(b, 3)
    await b.press("space")
    await finished(b)
    assert len(texts(b)[0].schedule) == 2
    await b.press("3", "minus")
    await moved(b, 2)
    await b.press("w")
    await b.until(lambda: len(b.engine.of(Generate)) == 2)
    request = b.engine.of(Generate)[-1]
    assert request.edits == () and request.schedule == (EditsFrom(2, (Edit(100, -0.5),)),)


@on_app()
async def test_rewinding_to_the_first_token_is_a_text_of_its_own(b):
    await b.ranked()
    await b.generated()
    await b.press("3", "space")
    await moved(b, 0)
    await b.press("w")
    await b.until(lambda: len(texts(b)) == 2)
    assert b.engine.of(Generate)[-1] == Generate(Prompt("Who is a nurse?", "chat"), (Edit(100),))


@on_app()
async def test_rewinding_keeps_what_a_text_was_asked_with(b):
    """Not what the settings say by now, but for how many: the kept tokens come from the old ones."""
    await settings(b, max_tokens="9", prefill="So", temperature="0.5", seed="3")
    await b.until(lambda: b.top is b.main)
    await b.generated()
    await settings(b, max_tokens="5", prefill="", seed="4")
    await moved(b, 6)
    await b.press("w")
    await b.until(lambda: len(texts(b)) == 2)
    request = b.engine.of(Generate)[-1]
    assert (request.sampling, request.prefill, request.branched_at) == (Sampling(7, 0.5, 3), "So", 6)
    assert request.schedule == ()  # the same edits: a text that goes on


@on_app()
async def test_rewinding_while_the_text_streams_keeps_that_text(b):
    await b.ranked()
    await b.press("4")
    await streaming(b, 5)
    await b.press("left", "left", "space", "w")
    await b.until(lambda: b.engine.stopped)
    assert len(b.engine.of(Generate)) == 1
    b.engine.step()
    await b.until(lambda: len(b.engine.of(Generate)) == 2 and b.engine.streaming)
    (kept,) = texts(b)
    assert kept.stopped and len(kept.edited.tokens) == 6
    request = b.engine.of(Generate)[-1]
    assert request.branched_at == 2 and request.schedule == (EditsFrom(2, (Edit(100),)),)
    assert arm(b, "edited") == "The nurse"
    await finished(b, 2)
    assert arm(b, "edited") == OTHER_WAY and not b.engine.cancelled


@on_app()
async def test_a_text_that_came_to_its_limit_goes_on_once_that_is_raised(b):
    await settings(b, max_tokens="4", seed="3")
    await b.until(lambda: b.top is b.main)
    await b.generated()
    assert arm(b, "edited") == "The nurse is most"
    await settings(b, max_tokens="9", seed="4")
    await moved(b, 3)
    await b.press("w")
    await b.until(lambda: len(texts(b)) == 2)
    request = b.engine.of(Generate)[-1]
    assert request.sampling == Sampling(9, seed=3) and request.branched_at == 3
    assert len(texts(b)[-1].edited.tokens) == 9


@on_app()
async def test_there_is_nothing_to_rewind_before_the_first_token(b):
    await streaming(b)
    await b.press("4", "w")
    await b.hears("The text has no new token yet")
    await finished(b)
    await moved(b, 3)
    b.app.clear_notifications()
    await b.press("w")
    await b.until(lambda: b.engine.streaming)
    await b.press("w")  # there are three, but none of its own
    await b.hears("The text has no new token yet")
    assert len(b.engine.of(Generate)) == 2 and not b.engine.stopped
    await finished(b, 2)


@on_app()
async def test_the_kl_of_a_branch_counts_what_it_keeps(b):
    await b.ranked()
    await b.press("space")
    await b.generated()
    await moved(b, 8)
    b.engine.stepping = True
    await b.press("w")
    await b.until(lambda: b.engine.streaming)
    assert f"KL {KL / 8:.3f} nats a token" in figures(b)
    b.engine.step()
    await b.until(lambda: f"KL {KL / 9:.3f} nats a token" in figures(b))
    await finished(b, 2)


@on_app()
async def test_a_rewound_text_that_runs_takes_toggles(b):
    await b.ranked()
    await b.generated()
    await moved(b, 3)
    b.engine.stepping = True
    await b.press("w")
    await b.until(lambda: b.engine.streaming)
    assert b.engine.edits_set == []
    b.engine.step(1)
    await b.until(lambda: "● token 4" in figures(b))
    await b.press("space")
    await b.until(lambda: b.engine.edits_set)
    await finished(b, 2)
    assert [(c.token_index, c.edits) for c in texts(b)[-1].schedule] == [(0, ()), (4, (Edit(100),))]


@on_app()
async def test_there_is_no_text_to_rewind(b):
    await b.press("4", "w")
    await b.hears("No text to rewind yet: g generates one.")
    await b.press("b")
    await b.hears("No text of this question is kept yet")
    await b.press("B")
    await b.hears("b lists the kept texts")
    await b.press("right_square_bracket")
    await b.hears("Only one text")
    assert not b.engine.of(Generate)


@on_app()
async def test_the_prefill_is_no_token_to_rewind_to(b):
    await settings(b, prefill="Well then")
    await b.until(lambda: b.top is b.main)
    await b.generated()
    assert arm(b, "edited") == "Well then" + WAY and arm(b, "baseline").startswith("Well then")
    await b.press("4", "ctrl+home")
    assert cursor(b) == 0
    await b.press("right", "right")
    assert cursor(b) == 1  # the prefill, the first token, the second
    await b.press("w")
    await b.until(lambda: len(texts(b)) == 2 and not b.main.generation.running)
    assert b.engine.of(Generate)[-1].branched_at == 1
    assert arm(b, "edited") == "Well then" + WAY


# ---- the kept texts


async def two_texts(b):
    """A text, and one that parts from it at token 5 under an edit; the second is shown."""
    await b.ranked()
    await b.generated()
    await b.press("3", "space")
    await moved(b, 4)
    await b.press("w")
    await b.until(lambda: len(texts(b)) == 2 and not b.main.generation.running)


@on_app()
async def test_the_kept_texts_are_listed_newest_first(b):
    await two_texts(b)
    await streaming(b, 2)
    await b.press("x")
    await b.until(lambda: b.engine.stopped)
    await finished(b, 3)
    stopped, branch, whole = await branches(b)
    assert "whole text · stopped · 100 ablate" in stopped and "▸" in stopped
    assert "from token 5 · no edits → from token 5: 100 ablate" in branch and "▸" not in branch
    assert "whole text · no edits" in whole
    assert "… most likely a woman" in whole and "… most likely a person" in branch  # from where they go on alone
    await b.press("escape")
    assert b.top is b.main


@on_app()
async def test_a_kept_text_is_shown_again(b):
    await two_texts(b)
    assert len(await branches(b)) == 2
    await b.press("down", "enter")
    await b.until(lambda: b.top is b.main)
    assert arm(b, "edited") == WAY and title(b) == "edited: no edits"
    assert "edits changed since: g generates again" in figures(b)
    lines = await branches(b)
    assert "▸" in lines[1] and "… person, they say." in lines[0]
    await b.press("escape", "ctrl+home", "right", "w")
    await b.until(lambda: len(texts(b)) == 3)
    # it is the shown one that is rewound
    assert b.engine.of(Generate)[-1].schedule == (EditsFrom(1, (Edit(100),)),)


@on_app()
async def test_a_kept_text_is_put_beside_the_one_that_is_shown(b):
    await two_texts(b)
    await branches(b)
    await b.press("down", "space")
    await b.until(lambda: b.top is b.main)
    assert arm(b, "baseline") == WAY and arm(b, "edited") == OTHER_WAY
    assert left_title(b) == "beside: whole text · no edits"
    assert shades(b, "baseline")[FIRST_EDITED] == DIFFERS and shades(b)[FIRST_EDITED] == TURNED_DIFFERS
    assert f"differs from token {FIRST_EDITED + 1}" in figures(b) and "KL" not in figures(b)
    await b.press("B")
    await b.until(lambda: left_title(b) == "baseline")
    assert "KL" in figures(b)
    await b.press("B")
    await b.until(lambda: left_title(b).startswith("beside"))
    # the other one shown: the two are the same text
    await branches(b)
    await b.press("down", "enter")
    await b.until(lambda: "same text" in figures(b))
    assert set(shades(b)) == {0}


@on_app()
async def test_a_text_beside_stays_while_another_one_of_the_question_streams(b):
    await two_texts(b)
    await branches(b)
    await b.press("down", "space")
    await b.until(lambda: b.top is b.main)
    await streaming(b, 7)
    assert arm(b, "baseline") == WAY and arm(b, "edited") == "The nurse is most likely a person"
    assert shades(b)[FIRST_EDITED] == DIFFERS
    await finished(b, 3)
    await b.press("enter", "end")
    await b.type("?")
    await b.press("enter")
    # of another question there is nothing beside
    await b.until(lambda: b.engine.streaming and left_title(b) == "baseline")
    await finished(b, 4)
    await b.press("B")
    await b.hears("b lists the kept texts")
    assert len(await branches(b)) == 1


@on_app()
async def test_the_bars_stand_below_the_texts_they_belong_to(b):
    from test_app_generation import bars

    await two_texts(b)
    await b.until(lambda: "female" in bars(b, "baseline"))
    await branches(b)
    await b.press("down", "space")
    await b.until(lambda: bars(b, "baseline").strip() == "")
    assert "female" in bars(b, "edited")
    await b.press("B")
    await b.until(lambda: "female" in bars(b, "baseline"))


# ---- samples and variants


@on_app()
async def test_samples_are_turned_like_pages(b):
    await b.ranked()
    await b.press("space")
    await settings(b, temperature="0.7", samples="3")
    await b.until(lambda: b.top is b.main)
    assert "3 samples" in str(b.main.generation.border_subtitle)
    await streaming(b, 2)
    assert b.engine.of(Generate)[-1].samples == 3
    assert left_title(b) == "sample 1 of 3 · baseline" and title(b) == "sample 1 of 3 · edited: 100 ablate"
    assert "1 of 3, [ ] turn" in figures(b) and arm(b, "edited") == "The nurse"
    await b.press("right_square_bracket")
    assert title(b).startswith("sample 2 of 3") and arm(b, "edited") == arm(b, "baseline") == "Sample2 nurse"
    b.engine.step(5)
    await b.until(lambda: "● token 7" in figures(b))
    assert arm(b, "edited") == "Sample2 nurse is most likely a person"
    assert f"differs from token {FIRST_EDITED + 1}" in figures(b) and "KL" not in figures(b)
    await finished(b)
    assert title(b).startswith("sample 2 of 3") and arm(b, "edited").startswith("Sample2")
    assert "edit silent at 7 of 20 positions" in figures(b)
    await b.press("left_square_bracket")
    assert arm(b, "edited") == OTHER_WAY and "KL" in figures(b)
    await b.press("left_square_bracket")
    assert title(b).startswith("sample 3 of 3") and "3 of 3" in figures(b)


@on_app()
async def test_a_rewound_sample_stays_that_sample(b):
    await b.ranked()
    await settings(b, temperature="0.7", samples="2")
    await b.until(lambda: b.top is b.main)
    await b.generated()
    await b.press("3", "space", "4", "right_square_bracket")
    await moved(b, 2)
    b.engine.stepping = True
    await b.press("w")
    await b.until(lambda: b.engine.streaming)
    request = b.engine.of(Generate)[-1]
    assert request.samples == 2 and request.branched_at == 2
    assert arm(b, "edited") == "Sample2 nurse" and title(b).startswith("sample 2 of 2")
    await finished(b, 2)
    assert title(b).startswith("sample 2 of 2") and arm(b, "edited").startswith("Sample2 nurse is most likely a person")
    assert "2 samples" in (await branches(b))[0]


async def streaming_tried(b, text):
    b.engine.stepping = True
    await tried(b, text)
    await b.until(lambda: b.engine.streaming)


async def tried(b, text=None):
    await b.press("T")
    await b.until(lambda: isinstance(b.top, SummaryForm))
    await b.handled()
    if text is not None:
        b.top.query_one("#f-strengths").value = text
        await b.handled()
    await b.press("enter")
    await b.handled()


@on_app()
async def test_strengths_are_tried_side_by_side(b):
    await b.ranked()
    await b.press("space", "down", "space", "minus", "up")
    await b.until(lambda: b.study.edits.on() == (Edit(100), Edit(101, -0.5)))
    await b.press("T")
    await b.until(lambda: isinstance(b.top, SummaryForm))
    await b.handled()
    assert b.top.query_one("#f-strengths").value == "0.25, 0.5, 1.5, 2"  # not the one there is
    for wrong, words in (("x", "numbers"), ("", "at least one"), ("inf", "finite"), ("1 " * 3 + "2", "")):
        b.top.query_one("#f-strengths").value = wrong
        await b.until(lambda: words in b.words(".problem"))  # noqa: B023
    b.top.query_one("#f-strengths").value = " ".join(map(str, range(16)))
    await b.until(lambda: "at most 15" in b.words(".problem"))
    b.top.query_one("#f-strengths").value = "0.5, 2, 2"
    await b.handled()
    b.engine.stepping = True
    await b.press("enter")
    await b.until(lambda: b.engine.streaming)
    request = b.engine.of(Generate)[-1]
    assert request.edits == (Edit(100), Edit(101, -0.5))
    assert request.variants == ((Edit(100, 0.5), Edit(101, -0.5)), (Edit(100, 2.0), Edit(101, -0.5)))
    assert title(b) == "edited: 100 ablate, 101 ×-0.5" and "1 of 3, [ ] turn" in figures(b)
    await finished(b)
    await b.press("4", "right_square_bracket", "right_square_bracket")
    assert title(b) == "variant: 100 ×2" and left_title(b) == "baseline" and "3 of 3" in figures(b)
    assert "edits changed since" not in figures(b)
    await b.press("g")
    await b.until(lambda: len(b.engine.of(Generate)) == 2)
    assert b.engine.of(Generate)[-1].variants == ()
    await finished(b, 2)
    assert "2 variants" in (await branches(b))[1]


@on_app()
async def test_strengths_of_a_feature_without_an_edit(b):
    await b.ranked()
    await tried(b)
    await b.until(lambda: texts(b))
    request = b.engine.of(Generate)[-1]
    assert request.edits == () and request.variants == tuple((Edit(100, s),) for s in (0.0, 0.25, 0.5, 1.5, 2.0))
    assert b.study.edits.on() == ()


@on_app()
async def test_each_variant_has_its_own_text(b):
    await b.ranked()
    await b.press("space")
    await streaming_tried(b, "1, 2")
    b.engine.step(7)
    await b.until(lambda: "● token 7" in figures(b))
    await b.press("4", "right_square_bracket")
    for _ in range(2):  # while it streams, and then
        assert title(b) == "variant: 100 ×1" and arm(b, "edited").startswith("The nurse is most likely a woman")
        await b.press("right_square_bracket")
        assert title(b) == "variant: 100 ×2" and arm(b, "edited").startswith("The nurse is most likely a person")
        if b.main.generation.running:
            await finished(b)
        await b.press("left_square_bracket")


@on_app()
async def test_a_variant_is_rewound_as_it_was_generated(b):
    await b.ranked()
    await b.press("space")
    await tried(b, "0.5, 2")
    await b.until(lambda: texts(b))
    await b.press("4", "right_square_bracket")
    await moved(b, 7)
    b.engine.stepping = True
    await b.press("w")
    await b.until(lambda: b.engine.streaming)
    request = b.engine.of(Generate)[-1]
    assert request.edits == (Edit(100, 0.5),) and request.schedule == (EditsFrom(7, (Edit(100),)),)
    assert request.variants == () and title(b) == "edited: 100 ×0.5 → from token 8: 100 ablate"
    assert arm(b, "edited") == "The nurse is most likely a person"
    await finished(b, 2)


# ---- settings


@on_app()
async def test_all_settings_reach_the_engine_and_the_session(b):
    values = {
        "form": "raw", "prefill": "So\\n", "max_tokens": "9", "stop": "The end | \\n\\n", "temperature": "0.5",
        "seed": "3", "top_k": "40", "top_p": "0.9", "min_p": "0.05", "samples": "2",
    }  # fmt: skip
    await settings(b, **values)
    await b.until(lambda: b.top is b.main)
    await b.generated()
    sampling = Sampling(9, 0.5, 3, 40, 0.9, 0.05, ("The end", "\n\n"))
    request = Generate(Prompt("Who is a nurse?", "raw"), (), sampling, "So\n", 2)
    assert b.engine.of(Generate)[-1] == request
    words = str(b.main.generation.border_subtitle)
    limits = ("top-k 40", "top-p 0.9", "min-p 0.05", "9 tokens", "stops at “The end” “⏎⏎”")
    for part in ("sampled at 0.5, seed 3", *limits, "2 samples", "prefill “So⏎”", "raw"):
        assert part in words
    assert "settings changed since" not in figures(b)
    await b.press("comma")
    await b.until(lambda: isinstance(b.top, Form))
    await b.handled()
    assert {name: b.top.query_one(f"#f-{name}").value for name in values} == values
    b.top.query_one("#f-prefill").value = ""
    await b.press("ctrl+s")
    await b.until(lambda: "settings changed since" in figures(b))


@on_app()
async def test_settings_that_make_no_sense_are_refused_in_words(b):
    for values, words in (
        ({"top_k": "-1"}, "top-k: a whole number, or 0 for all tokens."),
        ({"top_k": "0", "top_p": "0"}, "top-p: above 0 and at most 1, which is all tokens."),
        ({"top_p": "1", "min_p": "1.5"}, "min-p: from 0, which is all tokens, to 1."),
        ({"min_p": "nan"}, "min-p"),
        ({"min_p": "0", "samples": "0"}, "samples: a whole number from 1 to 16."),
        ({"samples": "2"}, "samples: greedy ones are all the same; give a temperature above 0."),
    ):
        if not isinstance(b.top, Form):
            await settings(b, **values)
        else:
            for name, value in values.items():
                b.top.query_one(f"#f-{name}").value = value
            await b.press("ctrl+s")
        await b.until(lambda: words in b.words(".problem"))  # noqa: B023
    assert b.study.work.samples == 1

"""The generation pane, by keys, on an engine made of records that streams a token at a time."""

from fake_engine import BASELINE, EDITED, FIRST_EDITED, KL, on_app
from textual.widgets import Select

from engine.records import Answer, Edit, Generate, Generated, Probe, Prompt, Rank, Sampling, ScoreAnswers
from tui.commands import edits
from tui.panes.text_view import ArmView
from tui.widgets.forms import Form

WAY = "".join(BASELINE)


def arm(b, name):
    """An arm's text on the screen."""
    view = b.main.query_one(f"#arm-{name}", ArmView)
    return "".join(token for passage in view.text._passages for token in passage.tokens)


def figures(b):
    return b.words("#figures")


def title(b):
    return str(b.main.query_one("#arm-edited .arm-title").render())


def bars(b, name):
    return str(b.main.query_one(f"#arm-{name} .arm-answers").render())


async def streaming(b, steps=0):
    """With a text that streams, so many tokens of it on the screen."""
    b.engine.stepping = True
    await b.press("g")
    await b.until(lambda: b.engine.streaming)
    b.engine.step(steps)
    if steps:
        await b.until(lambda: f"● token {steps}" in figures(b))


async def finished(b, count=1):
    b.engine.finish()
    await b.until(lambda: len(b.study.results.of(Generated)) == count and not b.main.generation.running)


async def settings(b, **values):
    await b.press("4", "comma")
    await b.until(lambda: isinstance(b.top, Form))
    await b.handled()
    for name, value in values.items():
        b.top.query_one(f"#f-{name}").value = value
    await b.press("ctrl+s")
    await b.handled()


# ---- streaming


@on_app()
async def test_tokens_appear_as_they_come(b):
    await b.ranked()
    await b.press("space")
    await streaming(b, 3)
    request = b.engine.of(Generate)[-1]
    assert request == Generate(Prompt("Who is a nurse?", "chat"), (Edit(100),), Sampling())
    assert arm(b, "baseline") == arm(b, "edited") == "The nurse is"
    assert "same so far" in figures(b) and "x stops" in figures(b) and title(b) == "edited: 100 ablate"
    b.engine.step(5)
    await b.until(lambda: "● token 8" in figures(b))
    assert arm(b, "baseline") == "The nurse is most likely a woman," and arm(b, "edited").endswith(" person,")
    assert f"differs from token {FIRST_EDITED + 1}" in figures(b)
    assert f"KL {KL / 8:.3f} nats a token" in figures(b)
    assert not b.study.results.of(Generated)
    await finished(b)
    assert (arm(b, "baseline"), arm(b, "edited")) == (WAY, "".join(EDITED))
    assert "x stops" not in figures(b) and "25 tokens/s" in figures(b)
    assert f"KL {KL / len(BASELINE):.3f} nats a token" in figures(b)
    assert "edit silent at 5 of 20 positions" in figures(b)
    await b.shows("The nurse is most likely a person, they say.")


@on_app()
async def test_texts_that_do_not_differ(b):
    await b.generated()
    assert "same text" in figures(b) and title(b) == "edited: no edits"
    assert "silent" not in figures(b)


@on_app()
async def test_a_toggle_acts_on_the_next_token(b):
    await b.ranked()
    await streaming(b, 2)
    await b.press("space")
    await b.until(lambda: b.engine.edits_set)
    assert [edits for _, edits in b.engine.edits_set] == [(Edit(100),)]
    assert len(b.engine.of(Generate)) == 1 and b.main.generation.running
    assert title(b) == "edited: no edits → from token 3: 100 ablate"
    b.engine.step(5)
    await b.until(lambda: "● token 7" in figures(b))
    await b.press("minus")
    await b.until(lambda: b.engine.edits_set[-1][1] == (Edit(100, -0.5),))
    await b.press("space")
    await b.until(lambda: b.engine.edits_set[-1][1] == ())
    await finished(b)
    result = b.study.results.of(Generated)[-1]
    assert [(c.token_index, c.edits) for c in result.schedule] == [(0, ()), (2, (Edit(100),)), (7, ())]
    assert title(b) == "edited: … → from token 8: no edits"  # there is no room for more
    assert "no edits" not in figures(b)
    assert "edits changed since" not in figures(b)
    # the request's id, not another's
    assert {i for i, _ in b.engine.edits_set} == {b.engine.requests.index(b.engine.of(Generate)[0]) + 1}


@on_app()
async def test_a_toggle_restarts_the_text(b):
    await b.ranked()
    await b.press("4", "t")
    await b.until(lambda: "a toggle restarts the text" in str(b.main.generation.border_subtitle))
    await streaming(b, 4)
    await b.press("space", "minus")  # the text is stopped once, and then one begins
    assert b.main.generation.running and len(b.engine.of(Generate)) == len(b.engine.stopped) == 1
    b.engine.step()
    await b.until(lambda: len(b.engine.of(Generate)) == 2)
    (kept,) = b.study.results.of(Generated)
    assert kept.stopped and len(kept.edited.tokens) == 5 and kept.edits == ()
    assert b.engine.edits_set == [] and b.engine.of(Generate)[-1].edits == (Edit(100, -0.5),)
    await b.until(lambda: b.engine.streaming and arm(b, "baseline") == "")
    b.engine.step(2)
    await b.until(lambda: arm(b, "baseline") == "The nurse")
    await finished(b, 2)
    assert b.study.results.of(Generated)[-1].schedule[0].edits == (Edit(100, -0.5),)
    await b.press("t")
    await b.until(lambda: "acts on the next token" in str(b.main.generation.border_subtitle))


@on_app()
async def test_g_while_a_text_streams_keeps_it_and_begins_anew(b):
    await streaming(b, 4)
    await b.press("g", "g")
    await b.until(lambda: b.engine.stopped)
    assert len(b.engine.of(Generate)) == 1
    b.engine.step()
    await b.until(lambda: len(b.engine.of(Generate)) == 2 and b.engine.streaming)
    await b.until(lambda: arm(b, "baseline") == "")
    b.engine.step(3)
    await b.until(lambda: arm(b, "baseline") == "The nurse is")
    await finished(b, 2)
    first, second = b.study.results.of(Generated)
    assert first.stopped and first.baseline.tokens == BASELINE[:5] and second.baseline.tokens == BASELINE
    assert not b.engine.cancelled


@on_app()
async def test_x_calls_off_the_text_that_was_to_begin(b):
    await streaming(b, 4)
    await b.press("g", "x")
    b.engine.step()
    await b.until(lambda: not b.main.generation.running)
    (kept,) = b.study.results.of(Generated)
    assert kept.stopped and len(b.engine.of(Generate)) == 1 and not b.engine.cancelled


@on_app()
async def test_g_before_the_first_token_begins_anew_at_once(b):
    await streaming(b)
    await b.press("g")
    await b.until(lambda: len(b.engine.of(Generate)) == 2 and b.engine.streaming)
    await finished(b)


@on_app()
async def test_changes_after_a_text_are_said(b):
    await b.ranked()
    await b.press("space")
    await b.generated()
    await b.press("3", "down", "space")
    await b.until(lambda: "edits changed since: g generates again" in figures(b))
    await b.generated()
    assert "edits changed since" not in figures(b)
    await settings(b, max_tokens="32")
    await b.until(lambda: "settings changed since: g generates again" in figures(b))


@on_app()
async def test_changes_taken_back_are_no_changes(b):
    await b.ranked()
    await b.press("space")
    await b.generated()
    before = figures(b)
    await b.press("space")
    await b.until(lambda: "edits changed since" in figures(b))
    await b.press("space")
    await b.settle()
    assert figures(b) == before


@on_app()
async def test_an_edit_of_silent_features_says_so(b):
    from fake_engine import generated_of, replace

    await b.ranked()
    await b.press("space")
    result = replace(generated_of(Generate(b.study.question(), (Edit(100),))), inactive_positions=20)
    b.study.add(result)
    b.main.show_generated(result)
    assert "the edited features were silent everywhere: nothing was changed" in figures(b)
    assert figures(b).index("silent everywhere") < figures(b).index("KL")
    edits = (Edit(100), Edit(101, kind="project"))  # a projection acts where its feature is silent
    b.main.show_generated(replace(generated_of(Generate(b.study.question(), edits)), inactive_positions=20))
    assert "the edits changed nothing" in figures(b) and "silent" not in figures(b)


# ---- answers


@on_app()
async def test_bars_of_the_tracked_answers(b):
    assert "female" in bars(b, "baseline") and "0.75" in bars(b, "baseline") and "0.75" in bars(b, "edited")
    await b.ranked()
    await b.press("space")
    await b.until(lambda: "0.25" in bars(b, "edited"))
    assert "0.25" not in bars(b, "baseline") and "█" in bars(b, "edited")
    assert b.engine.of(ScoreAnswers)[-1] == ScoreAnswers(b.study.work.prompts.probes[0], (Edit(100),))
    await b.press("4", "enter", "end")
    await b.type("!")  # no probe's question any more
    await b.press("escape")
    await b.generated()
    assert bars(b, "baseline").strip() == bars(b, "edited").strip() == ""


@on_app()
async def test_bars_go_with_their_question(b):
    assert "female" in bars(b, "baseline")
    await b.press("4", "enter", "end")
    await b.type("!")
    await b.settle()
    assert bars(b, "baseline").strip() == ""


@on_app()
async def test_bars_that_come_late_are_not_another_question_s(b):
    await b.ranked()
    b.engine.held = {ScoreAnswers}
    await b.press("space")
    await b.until(lambda: b.engine.of(ScoreAnswers)[-1].edits)
    await b.press("4", "enter", "end")
    await b.type("!")
    await b.until(lambda: bars(b, "edited").strip() == "")
    b.engine.release(ScoreAnswers)
    await b.settle()
    assert bars(b, "baseline").strip() == bars(b, "edited").strip() == ""


@on_app()
async def test_bars_that_come_late_are_not_of_other_edits(b):
    await b.ranked()
    b.engine.held = {ScoreAnswers}
    await b.press("space")
    await b.until(lambda: b.engine.of(ScoreAnswers)[-1].edits)
    await streaming(b, 2)
    await b.press("space")
    b.engine.release(ScoreAnswers)
    await b.settle()
    assert "0.75" in bars(b, "edited") and "0.25" not in bars(b, "edited")
    await finished(b)


@on_app()
async def test_many_long_answers_fit(b):
    answers = tuple(Answer(f"answer number {i} with a long name", (f" w{i}",)) for i in range(9))
    b.study.prompts.put_probe(0, Probe("Who is a nurse?", "chat", "x", answers))
    await b.generated()
    await b.shows("answer number 0 with")
    await b.shows("they say.")  # the text has its place


# ---- the question


@on_app()
async def test_letters_go_into_the_question(b):
    question = b.main.generation.question
    await b.press("4", "enter")
    await b.until(lambda: b.app.focused is question)
    question.value = ""
    await b.type("rgvxqs pl e?")
    await b.until(lambda: b.study.work.question == "rgvxqs pl e?")
    assert not b.engine.of(Rank) and not b.engine.of(Generate) and b.top is b.main and not b.engine.closes
    await b.press("escape")
    await b.until(lambda: b.app.focused is not question)
    assert b.main.focused_pane() is b.main.generation and question.value == "rgvxqs pl e?"
    await b.press("g")
    await b.until(lambda: b.engine.of(Generate))
    assert b.engine.of(Generate)[-1].prompt == Prompt("rgvxqs pl e?", "chat")


@on_app()
async def test_a_question_with_a_line_break_stays_on_its_line(b):
    b.study.ask_probe(Probe("Human: Who?\nAssistant:", "raw"))
    b.main.show_question()
    await b.shows("›  Human: Who?⏎Assistant:")
    await b.press("4", "enter", "end")
    await b.type(" A")
    await b.press("enter")
    await b.until(lambda: b.engine.of(Generate))
    assert b.engine.of(Generate)[-1].prompt == Prompt("Human: Who?\nAssistant: A", "raw")


@on_app()
async def test_enter_generates_and_letters_are_keys_again(b):
    await b.press("4", "a", "end")
    await b.type(" Really")
    await b.press("enter")
    await b.until(lambda: b.engine.of(Generate))
    assert b.engine.of(Generate)[-1].prompt.text == "Who is a nurse? Really"
    assert b.app.focused is not b.main.generation.question


@on_app()
async def test_keys_that_work_while_typing(b):
    await b.press("4", "enter", "end")
    await b.type(" Now?")
    await b.press("ctrl+g")
    await b.until(lambda: b.study.results.of(Generated))
    assert b.engine.of(Generate)[-1].prompt.text == "Who is a nurse? Now?"
    await b.press("ctrl+r")
    await b.until(lambda: b.engine.of(Rank))
    assert b.app.focused is b.main.generation.question


@on_app()
async def test_no_question(b):
    b.study.set_question("  ")
    b.main.show_question()
    await b.press("g")
    await b.hears("Type a question first.")
    assert b.app.focused is b.main.generation.question and not b.engine.of(Generate)
    assert not b.main.generation.running


# ---- settings


@on_app()
async def test_settings(b):
    for values, words in (
        ({"max_tokens": "0"}, "tokens at most: a whole number, at least 1 and at most 4,096."),
        ({"max_tokens": "x"}, "tokens at most"),
        ({"max_tokens": "5", "temperature": "-1"}, "temperature: 0 (greedy) or more."),
        ({"temperature": "nan"}, "temperature"),
        ({"temperature": "0.7", "seed": "1.5"}, "seed: a whole number"),
        ({"seed": str(2**63)}, "seed"),
    ):
        if not isinstance(b.top, Form):
            await settings(b, **values)
        else:
            for name, value in values.items():
                b.top.query_one(f"#f-{name}").value = value
            await b.press("ctrl+s")
        await b.until(lambda: words in b.words(".problem"))  # noqa: B023
    b.top.query_one("#f-seed").value = "7"
    b.top.query_one("#f-form", Select).value = "raw"
    b.top.query_one("#f-toggle", Select).value = "restarts the text"
    await b.press("ctrl+s")
    await b.until(lambda: b.top is b.main)
    assert b.study.work.sampling == Sampling(5, 0.7, 7) and b.study.work.raw and b.study.work.restart
    subtitle = str(b.main.generation.border_subtitle)
    assert subtitle == "sampled at 0.7, seed 7 · 5 tokens · raw · a toggle restarts the text"
    await b.generated()
    assert b.engine.of(Generate)[-1] == Generate(Prompt("Who is a nurse?", "raw"), (), Sampling(5, 0.7, 7))
    assert arm(b, "baseline") == "The nurse is most likely"


@on_app()
async def test_the_list_gender_is_offered_with_the_demo_only(b):
    await b.ranked()
    titles = [c.title for c in b.app.get_system_commands(b.main)]
    assert "Ablate the list @gender" in titles
    edits.ablate_list(b.main.context)
    await b.until(lambda: len(b.study.edits.on()) == 128)
    await b.generated()
    assert len(b.engine.of(Generate)[-1].edits) == 128
    b.study.load = type(b.study.load)(model="m")
    assert "Ablate the list @gender" not in [c.title for c in b.app.get_system_commands(b.main)]

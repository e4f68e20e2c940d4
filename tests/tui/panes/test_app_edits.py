"""The list of edits: kinds, strengths, places, the reconstruction, as published; by keys, on an engine of records."""

from fake_engine import on_app, replace, small_study
from test_app_generation import figures, finished, streaming, title
from textual.widgets import OptionList

import prompts
from engine.files import prompt_sets
from engine.files.session import EditSlot
from engine.records import NO_FEATURE, Attribute, Edit, Generate, Generated, Rank
from tui.widgets.forms import SummaryForm

FOUNDING = prompt_sets.from_file(prompts.load("founding_5v2"))

LOSSY = Edit(kind="reconstruct")


def lines(b):
    return [str(option.prompt) for option in b.main.edits.query_one(OptionList).options]


def subtitle(b):
    return str(b.main.edits.border_subtitle)


async def form(b, **values):
    """Opens the edit's form, turns choices and types what is given."""
    await b.press("asterisk")
    await b.until(lambda: isinstance(b.top, SummaryForm))
    await b.handled()
    for name, value in values.items():
        field = b.top.query_one(f"#f-{name}")
        if name == "strength":
            field.value = value
        else:
            while field.value != value:
                field.action_turn(1)
    await b.handled()


async def edited(b, **values):
    await form(b, **values)
    await b.press("enter")
    await b.until(lambda: b.top is b.main)


@on_app()
async def test_every_kind_and_place_by_the_form(b):
    await b.ranked()
    for values, edit, words in (
        ({"kind": "set", "strength": "2"}, Edit(100, 2.0, "set"), "= 2 max"),
        ({"kind": "steer", "strength": "1.5", "at": "prompt"}, Edit(100, 1.5, "steer", "prompt"), "steer +1.5 prompt"),
        ({"kind": "project (0: out)", "strength": "0", "at": "generated"}, Edit(100, 0.0, "project", "generated"),
         "project out generated"),
        ({"strength": "0.5", "at": "last of prompt"}, Edit(100, 0.5, "project", "last"), "project ×0.5 last of prompt"),
        ({"kind": "scale (0 ablates)", "strength": "0.125", "at": "first step"},
         Edit(100, 0.125, "scale", "first-step"), "×0.125 first step"),
        ({"strength": "-1", "at": "all tokens"}, Edit(100, -1.0), "×-1"),
    ):  # fmt: skip
        await edited(b, **values)
        assert b.study.edits.on() == (edit,)
        assert f"▣   100 {words} word100" in lines(b)[0]
    await b.generated()
    assert b.engine.of(Generate)[-1].edits == (Edit(100, -1.0),)


@on_app()
async def test_the_form_says_what_it_comes_to_and_what_is_wrong(b):
    await b.ranked()
    await form(b, kind="steer", strength="-2", at="first step")
    words = b.words(".summary")
    assert "100 steer -2 at first step" in words and "-2 × its maximum is added along its direction" in words
    assert "stays in the prompt's keys and values" in words
    for wrong, problem in (("x", "a number, such as"), ("inf", "a finite number"), ("", "a number")):
        b.top.query_one("#f-strength").value = wrong
        await b.until(lambda: problem in b.words(".problem"))  # noqa: B023
        await b.press("enter")
        assert isinstance(b.top, SummaryForm)
    await b.press("escape")
    assert b.study.work.edits == ()


@on_app()
async def test_where_an_edit_acts_is_turned_by_a_key(b):
    await b.ranked()
    await b.press("space", "e")
    for place, words in (
        ("prompt", "ablate prompt"), ("generated", "ablate generated"), ("last", "ablate last of prompt"),
        ("first-step", "ablate first step"), ("all", "ablate word100"),
    ):  # fmt: skip
        await b.press("w")
        await b.until(lambda: b.study.edits.on() == (Edit(100, at=place),))  # noqa: B023
        assert words in lines(b)[0]
        assert ("stays in keys and values" in subtitle(b)) == (place == "first-step")


@on_app()
async def test_the_reconstruction_has_a_line_of_its_own(b):
    await b.ranked()
    await b.press("space", "e", "c")
    await b.until(lambda: b.study.edits.on() == (Edit(100), LOSSY))
    assert lines(b)[1].startswith("▣   all reconstruct") and "lossy" in lines(b)[1]
    await b.press("down")
    await b.until(lambda: subtitle(b) == "lossy: the SAE's error is dropped")
    await b.press("w")
    await b.until(lambda: b.study.edits.on()[1].at == "prompt")
    await b.press("plus")
    await b.hears("A reconstruction has no strength")
    await b.press("T")
    await b.hears("go to a feature's edit")
    await form(b)
    assert not b.top.query("#f-strength") and "lossy" in b.words(".summary")
    await b.press("escape")
    for key in ("f", "l", "p", "y", "P"):  # about a feature, which it is not
        await b.press(key)
        await b.hears("This line is about all features.")
        b.app.clear_notifications()
        assert b.top is b.main
    await b.press("space")
    await b.until(lambda: b.study.edits.on() == (Edit(100),))
    await b.press("c")
    await b.until(lambda: len(b.study.edits.on()) == 2)
    # it is no feature for the engine to list or to attribute
    await b.press("r")
    await b.until(lambda: len(b.engine.of(Rank)) == 2)
    assert NO_FEATURE not in b.engine.of(Rank)[-1].also
    await b.press("A")
    await b.until(lambda: isinstance(b.top, SummaryForm))
    await b.handled()
    await b.press("enter")
    await b.until(lambda: b.engine.of(Attribute))
    assert NO_FEATURE not in b.engine.of(Attribute)[-1].also
    await b.press("escape")
    await b.until(lambda: b.top is b.main)
    await b.press("e", "end", "d")
    await b.until(lambda: b.study.edits.on() == (Edit(100),))


@on_app()
async def test_strength_steps_by_kind(b):
    await b.ranked()
    await edited(b, kind="steer", strength="0.5")
    await b.press("minus", "minus", "minus")
    await b.until(lambda: b.study.edits.on() == (Edit(100, -0.25, "steer"),))
    assert "steer -0.25" in lines(b)[0]
    await edited(b, kind="set", strength="0")
    await b.press("minus", "plus")
    await b.until(lambda: b.study.edits.on() == (Edit(100, 0.125, "set"),))
    await edited(b, kind="project (0: out)", strength="0")
    await b.press("plus")
    await b.until(lambda: b.study.edits.on() == (Edit(100, 0.125, "project"),))


@on_app()
async def test_another_strength_forgets_what_the_old_one_came_to(b):
    await b.ranked()
    b.study.edits.put((Edit(100, 2.0, "set", absolute=20.0),))
    await edited(b, at="prompt")
    assert b.study.edits.on() == (Edit(100, 2.0, "set", "prompt", 20.0),)
    await b.press("plus")
    assert b.study.edits.on() == (Edit(100, 3.0, "set", "prompt"),)
    b.study.edits.put((Edit(100, 2.0, "set", absolute=20.0),))
    await edited(b, kind="steer")
    assert b.study.edits.on() == (Edit(100, 2.0, "steer"),)


@on_app()
async def test_what_an_edit_came_to_makes_no_text_out_of_date(b):
    await b.ranked()
    await edited(b, kind="set", strength="2")
    await b.generated()
    (kept,) = b.study.results.of(Generated)
    assert kept.edits == (Edit(100, 2.0, "set", absolute=20.0),)  # the engine filled it in
    await b.settle()
    assert "edits changed since" not in figures(b)
    await b.press("plus")
    await b.until(lambda: "edits changed since" in figures(b))


@on_app()
async def test_any_change_acts_on_the_running_text(b):
    await b.ranked()
    await b.press("space")
    await streaming(b, 2)
    await b.press("e", "w")
    await b.until(lambda: b.engine.edits_set[-1:] and b.engine.edits_set[-1][1] == (Edit(100, at="prompt"),))
    await b.press("c")
    await b.until(lambda: b.engine.edits_set[-1][1] == (Edit(100, at="prompt"), LOSSY))
    await edited(b, kind="steer", strength="1", at="all tokens")
    await b.until(lambda: b.engine.edits_set[-1][1] == (Edit(100, 1.0, "steer"), LOSSY))
    assert title(b) == "edited: … → from token 3: 100 steer +1, reconstruct (lossy)"
    b.engine.step(2)
    await finished(b)
    assert [c.token_index for c in b.study.results.of(Generated)[-1].schedule] == [0, 2]


# ---- as published


@on_app(study=small_study(FOUNDING))
async def test_the_founding_study_s_edit_by_one_key(b):
    await b.ranked()
    await b.press("down", "space", "up")
    before = b.study.work.edits
    await b.press("P")
    published = (Edit(100, 0.125, at="first-step"), Edit(kind="reconstruct", at="first-step"))
    await b.until(lambda: b.study.edits.on() == (Edit(101), *published))
    await b.hears("As published with founding_5v2")
    await b.generated()
    assert b.engine.of(Generate)[-1].edits == (Edit(101), *published)
    assert title(b) == "edited: 101 ablate, 100 ×0.125 at first step, reconstruct (lossy) at first step"
    await b.press("3", "u")
    await b.until(lambda: b.study.work.edits == before)


@on_app(study=small_study(FOUNDING))
async def test_as_published_takes_the_place_of_an_edit_that_is_off(b):
    await b.ranked()
    await b.press("space", "space", "P")
    await b.until(lambda: len(b.study.work.edits) == 2)
    assert b.study.work.edits[0] == EditSlot(100, 0.125, at="first-step")


@on_app()
async def test_a_set_without_settings_says_so(b):
    await b.ranked()
    await b.press("P")
    await b.hears("does not say how a study edited its feature")
    assert b.study.work.edits == ()


@on_app(study=small_study(replace(FOUNDING, settings={"scale": "much"})))
async def test_settings_that_make_no_sense_are_said(b):
    await b.ranked()
    await b.press("P")
    await b.hears("The settings of")
    assert b.study.work.edits == () and not b.errors()


@on_app(study=small_study(FOUNDING))
async def test_the_palette_has_what_the_keys_have(b):
    titles = {c.title: c for c in b.app.get_system_commands(b.main)}
    for name in ("As published (P)", "Try strengths (T)", "Where (w)", "Reconstruct (c)", "Rewind (w)", "Branches (b)",
                 "Beside (B)", "Edit (*)", "Before ([)", "Next (])"):  # fmt: skip
        assert name in titles
    await b.ranked()
    await titles["As published (P)"].callback()
    await b.until(lambda: len(b.study.edits.on()) == 2)

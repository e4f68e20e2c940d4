"""Presets in the app: the chooser's list, what a preset brings along, and what it never replaces."""

import asyncio

import msgspec
import pytest
from fake_engine import QUESTION, SMALL, on_app, opened, small_study
from textual.widgets import Input, OptionList

from engine.files import session
from engine.loading import presets
from engine.records import Failed, Load
from engine.records.errors import UsageError
from tui.screens.model_form import ModelForm
from tui.start import first_study
from tui.state.presets import packaged_set, take_over, with_pins
from tui.state.study import Study, start_workspace

FOUNDING = presets.find("mistral-7b-gender-bias")

LABELS = {48180: "gender bias (founding study)", 27960: "bias in general (founding study)"}


async def chooser(b):
    await b.press("M")
    await b.until(lambda: isinstance(b.top, ModelForm))
    await b.handled()


async def choose(b, name):
    """Takes a preset and loads it."""
    await chooser(b)
    listed = b.top.query_one(OptionList)
    listed.highlighted = listed.get_option_index(name)
    await b.press("enter")
    await b.until(lambda: b.top.focused is b.top.query_one("#f-model", Input))
    await b.press("enter")
    await b.until(lambda: b.top is b.main)


def default_study():
    return small_study(packaged_set("gender_bias"))


@on_app(size=(80, 24))
async def test_the_chooser_lists_presets_with_their_need(b):
    await chooser(b)
    text = b.screen_text()
    for preset in presets.everyone():
        assert preset.name in text and preset.title in text
    assert "✗ mistral-7b-gender-bias  16.6 GB" in text  # of the fake engine's 8 GB
    assert "✗ gpt2-small" not in text and "escape: leave" in text
    assert b.top.query_one(OptionList).highlighted == 0  # the demo is loaded
    await b.press("down")
    await b.shows("too big, cpu has 8.0 GB")
    await b.shows("JoshEngels/Mistral-7B-Residual-Stream-SAEs/mistral_7b_layer_16")
    await b.press("down")
    await b.shows("weights of 649 MB, cpu has 8.0 GB")
    await b.press("enter")
    values = {name: b.top.query_one(f"#f-{name}", Input).value for name in ("model", "sae", "hook", "device")}
    gpt2 = presets.find("gpt2-small")
    assert values == {"model": gpt2.model, "sae": gpt2.sae, "hook": gpt2.hook, "device": ""}
    await b.press("up")
    await b.until(lambda: b.top.query_one(OptionList).has_focus)  # back in the list
    await b.press("home", "enter")
    assert {b.top.query_one(f"#f-{name}", Input).value for name in ("model", "sae", "hook")} == {""}


@on_app(size=(80, 24))
async def test_what_is_wrong_with_the_fields_is_seen_on_a_small_screen(b):
    await chooser(b)
    b.top.query_one("#f-model", Input).value = "owner/model"
    await b.press("ctrl+s")
    await b.shows("Which SAE?")


async def brings_prompts_and_labelled_features(tmp_path):
    async with opened(tmp_path, default_study()) as b:
        await choose(b, FOUNDING.name)
        await b.until(lambda: b.study.work.pinned)
        await b.settle()
        assert b.engine.of(Load)[-1] == Load(FOUNDING.model, FOUNDING.sae, FOUNDING.hook, bos="always")
        work = b.study.work
        assert work.pinned == (48180, 27960) and work.labels == LABELS and work.feature == 48180
        assert work.prompts == packaged_set("founding_5v2")
        assert work.question == work.prompts.probes[0].text and work.raw
        await b.shows("founding_5v2")
        await b.until(lambda: "48180 gender bias (founding study)" in str(b.main.tokens.border_title))
        await b.hears("Preset mistral-7b-gender-bias: its prompts founding_5v2, its labelled features pinned.")
        await b.press("r")
        await b.until(lambda: b.study.ranking() is not None)
        assert set(b.rows()) >= {48180, 27960}
        # and back: the prompts of the preset came by themselves
        await choose(b, "demo")
        await b.until(lambda: b.study.work.prompts.name == "gender_bias")
        assert b.study.work.pinned == () and b.study.work.labels == {}


def test_a_preset_brings_prompts_and_labelled_features(tmp_path):
    asyncio.run(brings_prompts_and_labelled_features(tmp_path))


@on_app()
async def test_prompts_of_the_users_are_never_replaced(b):
    await b.press("d")
    mine = b.study.work.prompts
    await choose(b, FOUNDING.name)
    await b.until(lambda: b.study.work.pinned)
    assert b.study.work.prompts == mine and b.study.work.question == QUESTION.text


@on_app()
async def test_a_preset_that_does_not_load_changes_nothing(b):
    before = b.study.work
    b.engine.failures = {Load: Failed("ModelError", "It does not fit.", "Use another.")}
    await choose(b, FOUNDING.name)
    await b.until(lambda: any("It does not fit." in e for e in b.errors()))
    assert b.study.work == before
    await chooser(b)  # filled in as it was tried
    assert b.top.query_one("#f-sae", Input).value == FOUNDING.sae


@on_app()
async def test_the_same_sae_again_pins_nothing_again(b):
    await choose(b, FOUNDING.name)
    await b.until(lambda: b.study.work.pinned)
    await b.settle()
    b.study.toggle_pin(48180)
    b.study.set_label(27960, "mine")
    await choose(b, FOUNDING.name)
    await b.until(lambda: len(b.engine.of(Load)) == 3)
    await b.settle()
    assert b.study.work.pinned == (27960,) and b.study.work.labels[27960] == "mine"


def test_labels_of_the_users_win():
    work = msgspec.structs.replace(start_workspace(SMALL), labels={48180: "mine"}, pinned=(3,), feature=3)
    found = with_pins(work, FOUNDING)
    assert found.labels == {48180: "mine", 27960: LABELS[27960]}
    assert (found.pinned, found.feature) == ((3, 48180, 27960), 3)
    assert with_pins(work, presets.find("gpt2-small")) == work


def test_a_question_of_the_users_is_kept():
    study = Study(Load(), start_workspace(packaged_set("gender_bias")))
    study.set_question("Mine?")
    take_over(study, FOUNDING, presets.find("demo"))
    assert study.work.question == "Mine?" and study.work.prompts.name == "founding_5v2"
    assert study.history.undo() and study.work.prompts.name == "gender_bias"


def test_the_app_starts_on_a_preset(tmp_path):
    study = first_study(Load(device="cpu"), None, None, FOUNDING.name)
    assert study.load == Load(FOUNDING.model, FOUNDING.sae, FOUNDING.hook, "cpu", bos="always")
    assert study.work.pinned == (48180, 27960) and study.work.prompts.name == "founding_5v2"
    assert study.is_empty  # nothing of the user's yet
    assert first_study(Load(), "hedging", None, FOUNDING.name).work.prompts.name == "hedging"
    other = first_study(Load(sae="/my/sae"), None, None, FOUNDING.name)
    assert (other.load.sae, other.load.hook, other.work.pinned) == ("/my/sae", None, ())
    with pytest.raises(UsageError, match="no preset"):
        first_study(Load(), None, None, "nonsense")


def test_a_session_keeps_its_own_prompts_and_pins(tmp_path):
    path = tmp_path / "x.saescope.json"
    session.write(small_study().session(), path)
    study = first_study(Load(), None, str(path), FOUNDING.name)
    assert study.work.prompts == SMALL and study.work.pinned == ()
    assert study.load.sae == FOUNDING.sae


@on_app()
async def test_before_anything_is_loaded_no_preset_is_too_big(b):
    b.study.loaded = None
    await chooser(b)
    assert "✗" not in "\n".join(b.screen_text().splitlines()[1:-1])

"""What the app does while the engine loads, fails, is lost and comes back."""

import asyncio
from unittest.mock import patch

import pytest
from fake_engine import SMALL, FakeEngine, on_app, opened, replace, small_study
from textual.widgets import Input

from engine.records import (
    Describe,
    Edit,
    Failed,
    Generate,
    Generated,
    Load,
    Progress,
    Rank,
    Ranking,
    RunProbes,
    ScoreAnswers,
    Show,
)
from engine.records.errors import EngineFault
from tui.commands import pair, sessions
from tui.widgets.forms import Form
from tui.widgets.page import Report


def engine_with(**what):
    engine = FakeEngine()
    for name, value in what.items():
        setattr(engine, name, value)
    return engine


def reports(b):
    return "\n".join(b.errors())


def on_engine(make, **options):
    """As on_app, with an engine prepared by `make`, anew for each test."""

    def decorate(test):
        def run(tmp_path):
            async def main():
                async with opened(tmp_path, engine=make(), **options) as bench:
                    await test(bench)

            asyncio.run(main())

        return run

    return decorate


# ---- loading


@on_engine(lambda: engine_with(held={Load}), ready=False)
async def test_requests_wait_for_the_model(b):
    await b.until(lambda: b.engine.of(Load))
    b.engine.progress(Load, Progress("loading the model", 1, 4))
    await b.shows("● loading the model")
    assert "1/4 · x stops" in b.header()
    await b.press("r")
    await b.hears("As soon as the model is loaded.")
    await b.press("a")
    await b.type("More.")
    await b.press("enter")
    await b.settle()
    assert len(b.engine.requests) == 1  # prompts can be worked on meanwhile
    b.engine.release(Load)
    await b.until(lambda: b.study.ranking())
    await b.shows("● ready")
    assert "demo · blocks.1.hook_resid_pre · SAE demo-sae 5,000 · float32 cpu · 3.2 GB free" in b.header()
    assert b.errors() == []


@on_engine(lambda: engine_with(held={Load}), ready=False)
async def test_g_waits_for_the_model_and_takes_the_edits_of_then(b):
    await b.until(lambda: b.engine.of(Load))
    b.study.choose_feature(100)
    await b.press("g", "2", "space")
    assert b.study.edits.on() == (Edit(100),)
    b.engine.stepping = True
    b.engine.release(Load)
    await b.until(lambda: b.engine.of(Generate) and b.engine.streaming)
    await b.settle()
    b.engine.finish()
    await b.until(lambda: b.study.results.of(Generated))
    assert b.study.results.of(Generated)[-1].schedule[-1].edits == (Edit(100),)


@on_engine(lambda: engine_with(held={Load}), ready=False)
async def test_x_stops_the_load_and_what_waits_for_it(b):
    await b.until(lambda: b.engine.of(Load))
    await b.press("g")
    await b.until(lambda: b.main.generation.running)
    await b.press("x")
    await b.shows("no model: M chooses one")
    await b.until(lambda: not b.main.generation.running)
    assert not b.engine.of(Generate)
    await b.press("r")
    await b.until(lambda: "No model is loaded. M chooses model and SAE." in reports(b))


LOAD_FAILED = {Load: Failed("ModelError", "There is no model in /tmp/x.", "Check the path.")}


@on_engine(lambda: engine_with(failures=dict(LOAD_FAILED)), ready=False)
async def test_a_load_that_fails_says_why(b):
    await b.shows("✗ no model: M chooses one")
    await b.shows("There is no model in /tmp/x.")
    await b.shows("Check the path.")
    assert "There is no model in /tmp/x. Check the path." in reports(b)
    await b.press("exclamation_mark")
    await b.until(lambda: isinstance(b.top, Report))
    await b.shows("There is no model in /tmp/x. Check the path.")
    await b.shows("engine.log")
    await b.press("escape")
    b.engine.failures = {}
    await b.press("M")
    await b.until(lambda: isinstance(b.top, Form))
    await b.handled()
    mine = b.store.path.parent
    b.top.query_one("#f-model", Input).value = str(mine)
    await b.press("ctrl+s")
    await b.until(lambda: "Which SAE?" in b.words(".problem"))
    b.top.query_one("#f-sae", Input).value = "/nowhere/at/all"
    await b.press("ctrl+s")
    await b.until(lambda: "there is no folder /nowhere/at/all" in b.words(".problem"))
    b.top.query_one("#f-sae", Input).value = str(mine)
    await b.press("ctrl+s")
    await b.until(lambda: b.main.context.tasks.ready)
    assert b.engine.of(Load)[-1] == Load(model=str(mine), sae=str(mine))
    await b.shows("● ready")
    assert f"{mine.name} · " in b.header()


@on_engine(lambda: engine_with(start_fails=EngineFault("The engine did not start: odd.", "See the log.")), ready=False)
async def test_an_engine_that_does_not_start_says_why(b):
    await b.shows("no engine · E restarts it")
    await b.until(lambda: "The engine did not start: odd." in reports(b))
    b.engine.start_fails = None
    await b.press("E")
    await b.until(lambda: b.main.context.tasks.ready)
    await b.shows("● ready")


@on_app()
async def test_a_load_that_fails_later_leaves_what_was_loaded(b):
    await b.ranked()
    b.engine.failures = {Load: Failed("SaeError", "No SAE there.", "Look elsewhere.")}
    await b.press("M")
    await b.until(lambda: isinstance(b.top, Form))
    await b.handled()
    b.top.query_one("#f-sae", Input).value = str(b.store.path.parent)
    await b.press("ctrl+s")
    await b.until(lambda: "No SAE there. Look elsewhere." in reports(b))
    await b.until(lambda: "● ready" in b.header())
    assert b.study.load == Load() and b.study.ranking() is not None
    await b.generated()


@on_app()
async def test_another_sae_begins_a_session_of_its_own(b):
    await b.ranked()
    await b.press("space", "p")
    await b.generated()
    before = b.study.id
    await b.press("M")
    await b.until(lambda: isinstance(b.top, Form))
    await b.handled()
    other = str(b.store.path.parent)
    b.top.query_one("#f-sae", Input).value = other
    b.top.query_one("#f-dtype").value = "bfloat16"
    await b.press("ctrl+s")
    await b.until(lambda: b.study.id != before)
    assert b.engine.of(Load)[-1] == Load(sae=other, dtype="bfloat16")
    assert b.study.edits.on() == () and b.study.ranking() is None and b.study.work.prompts == SMALL
    await b.shows("Which features tell your prompts apart?")
    text = b.screen_text()
    assert "2 Tokens ─" in text and "#100" not in text  # nothing of the other SAE's is shown
    assert "nurse is most likely" not in text
    found = b.store.load(before)  # it is where it was
    assert len(found.of(Ranking)) == len(found.of(Generated)) == 1 and found.workspace.edits[0].feature == 100


# ---- lost


@on_app()
async def test_a_lost_engine_loses_nothing(b):
    await b.ranked()
    await b.press("space")
    b.engine.stepping = True
    await b.press("g")
    await b.until(lambda: b.engine.streaming)
    b.engine.step(3)
    await b.until(lambda: "● token 3" in b.words("#figures"))
    before = b.study.work, b.study.results
    b.engine.kill("The engine was killed (SIGKILL).")
    await b.shows("✗ no engine · E restarts it")
    await b.until(lambda: not b.main.generation.running)
    assert reports(b).count("The engine was killed (SIGKILL).") == 1 and len(b.errors()) == 1
    assert (b.study.work, b.study.results) == before and b.rows()
    assert "The nurse is" in b.screen_text()  # what had come stays
    for key in ("g", "r", "v"):
        await b.press(key)
        await b.until(lambda: "The engine is not running. E restarts it" in b.errors()[-1])
    await b.press("1", "a")
    await b.type("Without engine.")
    await b.press("enter")
    await b.until(lambda: len(b.study.work.prompts.positive) == 3)
    await b.press("E")
    await b.until(lambda: b.main.context.tasks.ready)
    assert b.engine.starts == 2 and b.engine.of(Load) == [Load(), Load()]
    await b.shows("● ready")
    assert b.study.results == before[1] and b.study.edits.on() == (Edit(100),)
    b.engine.stepping = False
    await b.generated()
    await b.press("E")
    await b.hears("The engine is running; x stops what it does.")
    assert b.engine.starts == 2


@on_app()
async def test_a_text_that_the_engine_was_lost_with_says_what_to_do(b):
    b.engine.stepping = True
    await b.press("g")
    await b.until(lambda: b.engine.streaming)
    b.engine.kill()
    await b.until(lambda: not b.main.generation.running)
    await b.settle()
    assert "the engine was lost; E restarts it, then g" in b.words("#figures")


@on_engine(lambda: engine_with(held={Load}), ready=False)
async def test_an_engine_lost_while_it_loads(b):
    await b.until(lambda: b.engine.of(Load))
    await b.press("r")
    b.engine.kill("Out of memory.")
    await b.shows("✗ no engine · E restarts it")
    await b.until(lambda: b.errors())
    await b.settle()
    assert len(b.errors()) == 1 and "Out of memory." in reports(b)
    b.engine.held.clear()
    await b.press("E")
    await b.until(lambda: b.main.context.tasks.ready)
    await b.settle()
    assert not b.engine.of(Rank)  # what waited for the load that failed is over


# ---- verbs that fail


@on_app()
async def test_verbs_that_fail_are_reported_and_the_app_goes_on(b):
    await b.ranked()
    cases = (
        ("r", Rank, "UsageError"),
        ("f", Describe, "EngineFault"),
        ("v", RunProbes, "ModelError"),
        ("g", Generate, "EngineFault"),
        ("space", ScoreAnswers, "EngineFault"),
        ("down", Show, "EngineFault"),
    )
    for key, kind, error in cases:
        b.engine.failures = {kind: Failed(error, f"{kind.__name__} failed.", "Do this.")}
        await b.press(key)
        await b.until(lambda: f"{kind.__name__} failed. Do this." in reports(b))  # noqa: B023
        if key == "f":
            await b.shows("no answer: ! says why")
            await b.press("escape")
    await b.shows("Show failed.")
    assert not b.main.generation.running and b.top is b.main
    assert "broken off" in b.words("#figures")
    b.engine.failures = {}
    await b.generated()


@pytest.mark.parametrize("words", ["of [/INST]", "in [/tmp/x]", "[red]x", "[@click=app.quit]z[/]", "\\[y"])
def test_no_message_is_taken_for_markup(tmp_path, words):
    async def main():
        async with opened(tmp_path) as b:
            b.main.report(f"It failed {words}.", f"Do {words}.")
            b.main.notify(f"Saved to {words}!")
            await b.shows(f"It failed {words}.")
            await b.shows(f"Do {words}.")
            await b.shows(f"Saved to {words}!")

    asyncio.run(main())


@on_app()
async def test_an_answer_of_the_wrong_kind_is_reported(b):
    b.engine.instead[Rank] = lambda r: replace(b.study.loaded)
    await b.press("r")
    await b.until(lambda: "The engine answered Rank with no Ranking." in reports(b))


@on_app()
async def test_a_defect_in_showing_a_result_is_said(b):
    def broken(context, found):
        raise RuntimeError("odd one")

    with patch("tui.commands.texts.show_probes", broken):
        await b.press("v")
        await b.until(lambda: "odd one" in reports(b))
    await b.shows("odd one")
    await b.generated()


@on_app()
async def test_progress_of_long_work_is_shown(b):
    b.engine.held = {Rank}
    await b.press("r")
    await b.until(lambda: b.engine.of(Rank))
    b.engine.progress(Rank, Progress("encoding", 3, 12))
    await b.shows("● encoding ━━━━━━━━━━ 3/12 · x stops")
    await b.press("x")
    await b.shows("● ready")
    assert b.study.ranking() is None and b.errors() == []


# ---- loads that replace each other


def test_a_load_replaced_while_the_engine_starts_still_lets_requests_wait(tmp_path):
    class SlowToStop(FakeEngine):
        """An engine whose start, when it is given up, takes a while to end."""

        async def start(self, listener):
            if self.starts == 0:
                self.starts += 1
                try:
                    await asyncio.Event().wait()
                finally:
                    for _ in range(20):
                        await asyncio.sleep(0)
            await super().start(listener)

    async def main():
        engine = SlowToStop()
        engine.held = {Load}
        async with opened(tmp_path, small_study(), engine=engine, ready=False) as b:
            await b.until(lambda: engine.starts)
            pair.load(b.main.context, Load(model="m"))
            await b.until(lambda: engine.of(Load))
            await b.settle()
            await b.press("r")
            await b.settle()
            assert b.errors() == []
            engine.release(Load)
            await b.until(lambda: b.study.ranking())

    asyncio.run(main())


@on_engine(lambda: engine_with(held={Load}), ready=False)
async def test_what_waits_for_the_model_stays_with_its_session(b):
    await b.until(lambda: b.engine.of(Load))
    await b.press("r")
    other = small_study(replace(SMALL, name="other", positive=SMALL.negative, negative=SMALL.positive))
    sessions.exchange(b.main.context, other)
    b.engine.release(Load)
    await b.until(lambda: b.main.context.tasks.ready)
    await b.settle()
    assert other.ranking() is None

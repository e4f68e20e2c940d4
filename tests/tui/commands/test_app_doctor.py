"""The line that says whether the SAE is wired right, and the doctor in the app."""

import msgspec
import pytest
from fake_engine import HEALTHY, Doctor, FakeEngine, loaded_of, on_app, opened
from on_screen import SICK

from engine.records import Failed, Load, Progress
from tui.commands import pair
from tui.widgets.health import HealthLine, wordings_of_diagnosis, wordings_of_loaded
from tui.widgets.page import Report

replace = msgspec.structs.replace


LOW = "VE 0.12: wrong layer, model or normalisation?"


def line(b):
    """What the health line shows."""
    return str(b.main.query_one(HealthLine).render()).strip()


def engine_that_loads(folder, **fields):
    engine = FakeEngine(folder)
    engine.instead[Load] = lambda load: replace(loaded_of(load), **fields)
    return engine


async def examined(b):
    await b.press("H")
    await b.until(lambda: isinstance(b.top, Report))
    await b.settle()


@on_app(ready=False)
async def test_nothing_is_claimed_before_a_model_is_there(b):
    b.engine.held.add(Load)
    assert line(b) == ""


@on_app()
async def test_a_healthy_pair_is_called_wired_and_names_the_key(b):
    assert line(b) == "wired ✓  variance explained 0.81 · L0 37 on 1,000 tokens of neutral.txt · H: doctor"
    assert not b.main.health.has_class("-wrong")
    assert line(b) in b.screen_text().splitlines()[1]


@on_app(size=(80, 24))
async def test_at_eighty_columns_it_stands_beside_the_tabs(b):
    row = b.screen_text().splitlines()[1]
    assert "1 Prompts" in row and "4 Generation" in row and row.endswith("wired ✓ VE 0.81 · L0 37")
    await b.press("3")
    await b.until(lambda: "wired ✓" in b.screen_text().splitlines()[1])


@pytest.mark.parametrize("size", [(80, 24), (130, 40)], ids=str)
def test_what_is_wrong_is_red_and_says_what_to_press(tmp_path, size):
    import asyncio

    async def main():
        engine = engine_that_loads(tmp_path, variance_explained=0.12, doubts=(LOW,))
        async with opened(tmp_path, engine=engine, size=size) as b:
            assert b.main.health.has_class("-wrong")
            assert line(b).startswith("✗ VE 0.12")
            assert line(b).endswith("doctor" if size[0] == 80 else "H: the doctor finds out")
            assert line(b) in b.screen_text()

    asyncio.run(main())


@on_app()
async def test_the_doctor_runs_once_and_its_report_opens(b):
    await examined(b)
    shown = b.screen_text()
    assert "Nothing speaks against this wiring." in shown
    assert "✓ variance explained" in shown and "· hook" in shown
    await b.press("escape")
    await b.until(lambda: line(b) == "doctor ✓  3 checks passed · VE 0.81 · L0 37 · H shows them")
    await examined(b)  # nothing has changed: the same report
    assert len(b.engine.of(Doctor)) == 1
    await b.press("escape")
    pair.load(b.main.context, Load("other"))
    await b.until(lambda: line(b).startswith("wired ✓"))
    await examined(b)
    assert len(b.engine.of(Doctor)) == 2


@on_app()
async def test_what_the_doctor_finds_is_named_in_the_line_and_comes_first_in_the_report(b):
    b.engine.instead[Doctor] = lambda r: SICK
    await examined(b)
    shown = b.screen_text()
    assert "1 check failed: layer." in shown
    assert shown.index("✗ layer") < shown.index("✓ SAE's hook")
    assert "it explains [0.9]" in shown and "→ Try --hook blocks.2.hook_resid_pre." in shown
    assert "? model" in shown
    await b.press("escape")
    assert line(b) == "✗ the doctor found: layer · VE 0.81 · L0 37 · H shows why"
    assert b.main.health.has_class("-wrong")


@on_app()
async def test_it_shows_its_progress_and_x_stops_it(b):
    b.engine.held.add(Doctor)
    await b.press("H")
    await b.until(lambda: b.engine.of(Doctor))
    b.engine.progress(Doctor, Progress("trying other wirings", 3, 14))
    await b.until(lambda: "trying other wirings" in b.header())
    assert "3/14 · x stops" in b.header()
    await b.press("3", "x")
    await b.until(lambda: b.engine.cancelled)
    await b.settle()
    assert b.top is b.main and line(b).startswith("wired ✓") and not b.errors()


@on_app()
async def test_who_types_is_not_interrupted(b):
    b.engine.held.add(Doctor)
    await b.press("H", "4")
    b.main.generation.question.focus()
    await b.settle()
    b.engine.release(Doctor)
    await b.hears("The doctor is done")
    assert b.top is b.main
    await b.press("escape")
    await examined(b)


@on_app()
async def test_a_report_about_a_pair_that_is_gone_is_not_shown(b):
    b.engine.held.add(Doctor)
    await b.press("H")
    await b.until(lambda: b.engine.of(Doctor))
    pair.load(b.main.context, Load("other"))
    await b.settle()
    assert line(b).startswith("wired ✓") and b.top is b.main and b.main.health.diagnosis is None


@on_app()
async def test_a_doctor_that_fails_is_reported(b):
    b.engine.failures[Doctor] = Failed("EngineFault", "Out of memory.", "Use --device cpu.")
    await b.press("H")
    await b.hears("Out of memory.")
    assert b.main.health.diagnosis is None


@on_app()
async def test_a_click_on_the_line_asks_the_doctor(b):
    await b.pilot.click(HealthLine, offset=(5, 0))
    await b.until(lambda: isinstance(b.top, Report))


@on_app()
async def test_the_palette_and_the_help_name_it(b):
    titles = [command.title for command in b.app.get_system_commands(b.main)]
    assert "Doctor (H)" in titles


def test_published_numbers_and_notes_stand_beside_where_there_is_room():
    loaded = replace(loaded_of(Load()), published_l0=74.0, published_variance_explained=0.85, notes=("b_dec folded",))
    wordings = wordings_of_loaded(loaded)
    assert wordings[0].startswith("wired ✓  variance explained 0.81 (published 0.85) · L0 37 (published 74) on 1,000")
    assert "note: b_dec folded" in wordings[0]
    assert [len(w) for w in wordings] == sorted((len(w) for w in wordings), reverse=True)
    assert len(wordings[-2]) <= 26
    assert wordings_of_loaded(replace(loaded, l0=None)) == ["H: is this SAE wired right?"]


@pytest.mark.parametrize("found", [HEALTHY, SICK], ids=["healthy", "sick"])
def test_wordings_get_shorter(found):
    wordings = wordings_of_diagnosis(found)
    assert [len(w) for w in wordings] == sorted((len(w) for w in wordings), reverse=True)
    assert len(wordings[-1]) <= 26

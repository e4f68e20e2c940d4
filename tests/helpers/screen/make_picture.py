"""Draws the README's picture: the app on the packaged demo, driven by keys.

`python tests/helpers/screen/make_picture.py [COLSxLINES]`

Not collected by pytest: it needs the demo model and writes tui/app.svg.
"""

import asyncio
import re
import sys
import tempfile
from pathlib import Path

from engine.files.autosave import AutosaveStore
from engine.records import Generated, Load
from engine.serving.process import EngineProcess
from tui.app import SaescopeApp
from tui.services.context import Opening
from tui.start import first_study

PICTURE = Path(__file__).parents[3] / "tui" / "app.svg"

STUDY = (277, 2065, 2777, 838)
"""The first features of the packaged list @gender."""


async def until(condition, pilot, seconds=60):
    for _ in range(seconds * 20):
        await pilot.pause(0.05)
        if condition():
            return
    raise TimeoutError


async def draw(size):
    with tempfile.TemporaryDirectory() as folder:
        store, engine = AutosaveStore(Path(folder) / "s.sqlite3"), EngineProcess(Path(folder) / "engine.log")
        app = SaescopeApp(Opening(first_study(Load(), None, None), lambda: engine, lambda: store))
        async with app.run_test(size=size) as pilot:
            await until(lambda: app.main.study.loaded is not None, pilot)
            await pilot.press("r")
            await until(lambda: app.main.study.ranking() is not None, pilot)
            await pilot.press("3", "space")
            for feature in STUDY:
                app.main.study.edits.toggle(feature)
            await pilot.press("r", "g")
            await until(lambda: app.main.study.results.of(Generated), pilot)
            await pilot.press("2", "n")
            await pilot.pause(1)
            picture = app.export_screenshot(title="saescope")
            # the reader's own monospace font will do: nothing is to be fetched for a picture
            PICTURE.write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL), "utf-8")
            await app.action_quit()


if __name__ == "__main__":
    columns, lines = (sys.argv[1] if len(sys.argv) > 1 else "150x42").split("x")
    asyncio.run(draw((int(columns), int(lines))))

"""What tests of the app do and read on its screen."""

import asyncio

from fake_engine import HEALTHY, replace
from textual.widgets import Input

from engine.records import Check
from tui.widgets.dialogs import AskText

SICK = replace(
    HEALTHY,
    checks=(
        *HEALTHY.checks,
        Check("layer", False, "at blocks.2.hook_resid_pre it explains [0.9]", "Try --hook blocks.2.hook_resid_pre."),
        Check("model", None, "the SAE was trained on gemma-2-2b, this is gemma-2-2b-it", "Use the SAE's own model."),
    ),
)


def column(b, key):
    """A leaderboard's column, as shown."""
    table = b.main.features.table
    return [str(table.get_cell(row.key, key)).strip() for row in table.ordered_rows]


def headings(b):
    return [str(c.label).strip() for c in b.main.features.table.ordered_columns]


def sorted_by(b):
    """The heading with the mark."""
    return next((heading[:-1] for heading in headings(b) if heading.endswith("▾")), None)


async def asked(b, title, text, *, then="enter"):
    """Fills in a dialog of one line."""
    await b.until(lambda: isinstance(b.top, AskText) and title in b.top._title)
    await b.handled()
    b.top.query_one(Input).value = text
    await b.press(then)


def running(test):
    """Makes a test of an async function that opens apps itself."""

    def run(tmp_path):
        asyncio.run(test(tmp_path))

    return run


async def dialog(b, kind, words):
    await b.until(lambda: isinstance(b.top, kind) and words in b.top._title)
    await b.handled()


async def save_as(b, path):
    await b.press("S")
    await dialog(b, AskText, "Save the session")
    b.top.query_one(Input).value = str(path)
    await b.press("enter")
    await b.until(lambda: b.top is b.main)


async def stored(b):
    """Waits until the store has the study as it is."""
    await b.until(lambda: not b.main.context.autosave._unkept() and not b.main.context.autosave._keeping)

"""What may import what, seen from a fresh interpreter: import-linter cannot see the standard library's back doors."""

import graphlib
import os
import subprocess
import sys

import grimp
import pytest


def loaded_by(code):
    probe = f"{code}\nimport sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    out = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return set(out.stdout.split())


@pytest.mark.parametrize(
    "modules",
    [
        "engine.cli.options, engine.cli.run, saescope",
        "engine.records, engine.serving.client, engine.files.session, engine.files.export",
        "engine.serving.process, engine.serving.wire, engine.serving.scheduler, engine.serving.worker",
        "prompts",
        "tui",
    ],
)
def test_front_ends_start_without_torch(modules):
    assert not loaded_by(f"import {modules}") & {"torch", "transformers", "nnsight"}


FIRST_PAINT = """
import asyncio, tempfile
from pathlib import Path
from engine.files.autosave import AutosaveStore
from engine.records import Load
from tui.app import SaescopeApp
from tui.commands import keys
from tui.services.context import Opening
from tui.start import first_study


class Nothing:
    log_path = None

    async def start(self, listener):
        await asyncio.Event().wait()

    async def close(self):
        pass


async def main():
    with tempfile.TemporaryDirectory() as folder:
        store = AutosaveStore(Path(folder) / "s.sqlite3")
        app = SaescopeApp(Opening(first_study(Load(), None, None), Nothing, lambda: store, offer_last=True))
        async with app.run_test() as pilot:
            await pilot.press("question_mark", "escape", "d")
            await pilot.pause()
            keys.import_commands()
            await app.action_quit()


asyncio.run(main())
"""


def test_the_app_opens_and_works_without_torch_or_numpy():
    heavy = {"torch", "transformers", "nnsight", "numpy"}
    assert not loaded_by("import tui.start, tui.app, tui.main") & heavy
    assert not loaded_by(FIRST_PAINT) & heavy


def test_the_engine_never_imports_the_screen():
    assert not loaded_by("import engine.serving.local, engine.serving.worker, engine.serving.process") & {
        "textual",
        "tui",
    }


def test_records_errors_and_prompts_import_nothing_of_ours():
    assert "engine" not in loaded_by("import prompts")
    out = loaded_by("import engine.records")
    assert not out & {"prompts", "tui", "numpy", "rich"}


def test_usage_errors_come_before_any_heavy_import():
    code = "from engine.cli.run import main\nassert main(['rank', '--prompts', 'no-such-set']) == 1"
    assert not loaded_by(code) & {"torch", "transformers", "nnsight"}


@pytest.mark.parametrize(("given", "found"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")])
def test_threads_wait_passively_unless_the_user_says_otherwise(given, found):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | given
    code = "import engine, os; print(os.environ['OMP_WAIT_POLICY'])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert out.stdout.strip() == found


def test_no_module_of_the_screen_imports_itself_over_others():
    graph = grimp.build_graph("tui", cache_dir=None)  # imports inside functions and for type checking included
    imported = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert len(imported) > 50
    graphlib.TopologicalSorter(imported).prepare()  # raises CycleError

"""The app on a real engine process, by keys; and as a process on a terminal of its own."""

import asyncio
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from contextlib import contextmanager, suppress

import msgspec
import psutil
import pytest
from fake_engine import opened
from textual.widgets import Input

from engine.files import session as sessions
from engine.files.autosave import AutosaveStore
from engine.records import Generated, Load, Sampling
from engine.serving.process import EngineProcess
from tui.start import first_study
from tui.widgets.dialogs import AskText
from tui.widgets.forms import SummaryForm
from tui.widgets.page import Report

LONG = 90
"""Seconds that a busy machine may take for what takes two."""


def figures(b):
    return b.words("#figures")


def title(b):
    return str(b.main.query_one("#arm-edited .arm-title").render())


async def tokens_stream(b, least):
    """Waits for so many tokens of a running text."""
    await b.until(lambda: b.main.generation.arms.steps >= least and b.main.generation.running, LONG)


@contextmanager
def halted(engine):
    """The engine's process stands still, so that a text goes on running however long the keys take."""
    pid = engine._running.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_saved_visit_opens_and_replays_the_same(load, tmp_path):
    """A first visit, everything by keys; what it saves is opened by another app with another engine."""
    path = tmp_path / "visit.saescope.json"

    async def visit():
        engine, study = EngineProcess(tmp_path / "engine.log"), first_study(load, None, None)
        study.history.now = msgspec.structs.replace(study.work, sampling=Sampling(max_tokens=200))
        async with opened(tmp_path, study, engine=engine, size=(160, 48), ready=False) as b:
            await b.until(lambda: b.main.context.tasks.ready, LONG)
            await b.press("a")
            await b.type("Girls are told to be quiet, boys to speak up.")
            await b.press("enter")
            await b.until(lambda: len(b.study.work.prompts.positive) == 9)
            await b.press("r")
            await b.until(b.rows, LONG)
            assert len(b.rows()) > 20 and b.study.ranking().n_positive == 9
            await b.press("3", "down")
            chosen = b.main.features.feature()
            await b.until(lambda: f"#{chosen}" in str(b.main.tokens.border_title), LONG)
            await b.until(lambda: "Girls are told to be quiet" in b.screen_text().split("2 Tokens")[1], LONG)
            await b.press("space", "g")
            await tokens_stream(b, 3)
            with halted(engine):
                await b.press("down", "space")  # while it streams
            await b.until(lambda: b.study.results.of(Generated), LONG)
            result = b.study.results.of(Generated)[-1]
            assert [len(c.edits) for c in result.schedule] == [1, 2] and result.schedule[1].token_index >= 3
            await b.until(lambda: f"from token {result.schedule[1].token_index + 1}: " in title(b))
            assert "KL" in figures(b) and "tokens/s" in figures(b)
            await b.press("4", "ctrl+home", "right", "right", "w")
            await b.until(lambda: len(b.study.results.of(Generated)) == 2 and not b.main.generation.running, LONG)
            branch = b.study.results.of(Generated)[-1]
            assert branch.branched_at == 2 and branch.edited.token_ids[:2] == result.edited.token_ids[:2]
            assert [(c.token_index, len(c.edits)) for c in branch.schedule] == [(0, 1), (2, 2)]
            await b.press("T")
            await b.until(lambda: isinstance(b.top, SummaryForm))
            await b.handled()
            b.top.query_one(Input).value = "0.5, 1"
            await b.handled()
            await b.press("enter")
            await tokens_stream(b, 3)
            with halted(engine):
                await b.press("x")
            streamed = [len(tokens) for tokens in b.main.generation.arms._rows.tokens.values()]
            assert len(streamed) == 4 and min(streamed) >= 3
            await b.until(lambda: len(b.study.results.of(Generated)) == 3 and not b.main.generation.running, LONG)
            kept = b.study.results.of(Generated)[-1]
            assert (
                kept.stopped
                and len(kept.variants) == 2
                and kept.baseline.token_ids[:3] == result.baseline.token_ids[:3]
            )
            assert "stopped at token" in figures(b)
            await b.press("s")
            await b.until(lambda: isinstance(b.top, AskText))
            await b.handled()
            b.top.query_one(Input).value = str(path)
            await b.press("enter")
            await b.until(path.exists)
            work = b.study.work
            await b.press("q")
            await b.until(lambda: engine._running is None, LONG)
        assert sessions.read(path).workspace == work

    async def again():
        engine = EngineProcess(tmp_path / "engine.log")
        study = first_study(Load(), None, str(path))
        async with opened(tmp_path, study, engine=engine, size=(160, 48), ready=False) as b:
            await b.until(lambda: b.main.context.tasks.ready, LONG)
            assert b.rows() and len(b.study.edits.on()) == 2
            await b.press("R")
            await b.until(lambda: isinstance(b.top, Report))
            await b.until(lambda: b.screen_text().count("same     ") == 4 or "DIFFERS" in b.screen_text(), LONG)
            assert "DIFFERS" not in b.screen_text()

    asyncio.run(visit())
    asyncio.run(again())


def test_an_engine_killed_while_it_streams(load, tmp_path):
    async def main():
        engine = EngineProcess(tmp_path / "engine.log")
        async with opened(tmp_path, first_study(load, None, None), engine=engine, size=(160, 48), ready=False) as b:
            await b.until(lambda: b.main.context.tasks.ready, LONG)
            await b.press("g")
            await b.until(lambda: b.study.results.of(Generated), LONG)
            b.study.history.now = msgspec.structs.replace(b.study.work, sampling=Sampling(max_tokens=900))
            before = b.study.work, 1
            await b.press("g")
            await tokens_stream(b, 2)
            os.kill(engine._running.process.pid, signal.SIGKILL)
            await b.until(lambda: any("SIGKILL" in m for m in b.errors()), LONG)
            await b.shows("no engine · E restarts it")
            assert (b.study.work, len(b.study.results.of(Generated))) == before
            await b.press("E")
            await b.until(lambda: b.main.context.tasks.ready, LONG)
            b.study.history.now = msgspec.structs.replace(b.study.work, sampling=Sampling(max_tokens=9))
            await b.press("g")
            await b.until(lambda: len(b.study.results.of(Generated)) == before[1] + 1, LONG)

    asyncio.run(main())


# ---- a process on a terminal


class Terminal:
    """`saescope` on a pseudo terminal, with state, configuration and working folder of its own, on the tiny pair."""

    def __init__(self, folder, files, *argv, ahead=b""):
        self.folder, self.out, self.code = folder, b"", None
        environment = {
            **{name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")},
            "XDG_STATE_HOME": str(folder / "state"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
        }
        pair = ["--model", files.model, "--sae", files.sae, "--reference", files.reference]
        command = [sys.executable, "-P", "-c", "import sys, saescope; sys.exit(saescope.main())", *pair, *argv]
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 48, 160, 0, 0))
            os.chdir(folder)
            os.execve(sys.executable, command, environment)
        if ahead:
            os.write(self.handle, ahead)

    def read(self, seconds=0.05):
        """Takes in what the app draws."""
        if self.handle is not None and select.select([self.handle], [], [], seconds)[0]:
            with suppress(OSError):
                self.out += os.read(self.handle, 1 << 16)

    def until(self, condition):
        """Waits for something, reading all the while."""
        end = time.monotonic() + LONG
        while not condition():
            assert time.monotonic() < end, self.out[-2000:]
            self.read()

    def type(self, text):
        os.write(self.handle, text.encode())

    def types_into_a_line(self):
        """Whether a frame ends with the terminal's cursor below the header: in the line that has the focus."""
        found = re.search(rb"\x1b\[(\d+);\d+H$", self.out)
        return found is not None and int(found[1]) > 1

    def read_to_the_end(self):
        """Takes in what an app that has ended has drawn."""
        seen = None
        while seen != len(self.out):
            seen = len(self.out)
            self.read()

    def engines(self):
        """The engine processes it started."""
        with suppress(psutil.NoSuchProcess):
            return [p for p in psutil.Process(self.pid).children() if "engine.serving.worker" in p.cmdline()]
        return []

    def stored(self):
        """The newest session of its autosave."""
        path = self.folder / "state" / "saescope" / "sessions.sqlite3"
        return AutosaveStore(path).latest() if path.exists() else None

    def ended(self):
        """Whether it has ended; keeps its exit code."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def close(self):
        """The window goes: the terminal hangs up."""
        os.close(self.handle)
        self.handle = None

    def clean(self):
        if not self.ended():
            for process in self.engines():
                process.kill()
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        if self.handle is not None:
            self.close()


@pytest.fixture
def terminal(tmp_path, files):
    started = []

    def start(*argv, **more):
        started.append(Terminal(tmp_path, files, *argv, **more))
        return started[-1]

    yield start
    for one in started:
        one.clean()


def question_of(terminal):
    found = terminal.stored()
    return found.session.workspace.question if found else ""


@pytest.mark.parametrize("how", ["SIGTERM", "window closed"])  # which sends a SIGHUP
def test_a_signal_ends_it_with_everything_kept(terminal, how):
    app = terminal()
    app.until(lambda: b"positive" in app.out and app.engines())
    (engine,) = app.engines()
    app.type("4")
    app.until(lambda: b"Settings" in app.out)  # in the footer of the generation pane
    app.type("\r")
    app.until(app.types_into_a_line)
    app.type(" Before the signal")
    app.until(lambda: question_of(app).endswith(" Before the signal"))
    app.type("?")
    app.until(lambda: b"?" in app.out[-400:] or question_of(app).endswith("?"))
    if how == "window closed":
        app.close()
    else:
        os.kill(app.pid, getattr(signal, how))
    app.until(app.ended)
    assert question_of(app).endswith(" Before the signal?")
    psutil.wait_procs([engine], timeout=LONG)
    assert not engine.is_running()
    if how != "window closed":
        assert app.code == 0
        app.read_to_the_end()
        assert b"\x1b[?1049l" in app.out and b"\x1b[?25h" in app.out  # the screen and the cursor are back
        assert b"Traceback" not in app.out
    assert not list((app.folder / "state").rglob("crash.log"))


@pytest.mark.parametrize("seen", [b"\x1b[?1049h", b"positive"])
def test_a_signal_while_it_starts_ends_it_without_a_word(terminal, seen):
    """As soon as the terminal is the app's, and as soon as the prompts are there, while the other panes are not."""
    app = terminal()
    app.until(lambda: seen in app.out)
    os.kill(app.pid, signal.SIGTERM)
    app.until(app.ended)
    app.read_to_the_end()
    assert app.code == 0 and b"\x1b[?1049l" in app.out
    assert b"defect" not in app.out and not list((app.folder / "state").rglob("crash.log"))


def test_a_key_typed_ahead_of_the_first_paint(terminal):
    app = terminal(ahead=b"a")
    app.until(lambda: b"positive" in app.out or app.ended())
    app.until(lambda: (b"Drop" in app.out and app.engines()) or app.ended())  # in the footer of a prompt's editor
    app.type("Typed ahead\r")
    app.until(lambda: app.stored() or app.ended())
    assert not app.ended(), app.out[-1000:]
    assert app.stored().session.workspace.prompts.positive[-1].text.endswith("Typed ahead")


def test_quitting_by_key_leaves_a_clean_terminal(terminal):
    app = terminal("--prompts", "hedging")
    app.until(lambda: b"positive" in app.out and app.engines())
    (engine,) = app.engines()
    app.type("q")
    app.until(app.ended)
    app.read_to_the_end()
    assert app.code == 0 and b"\x1b[?1049l" in app.out and b"Traceback" not in app.out
    psutil.wait_procs([engine], timeout=LONG)
    assert not engine.is_running() and app.stored() is None

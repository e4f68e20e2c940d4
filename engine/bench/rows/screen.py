"""Row 11: what the screen costs. Processes of tui/bench measure it, because the engine never imports the screen.

repaint   4,000 coloured tokens painted anew by our widget, against Static.update of the same text, at 160 x 48,
          up to the terminal sequences of the frame; a second ratio is that of giving all of them other colours
updates   frames a second that show more text, while two arms stream at 200 tokens a second each beside 4,000
          coloured tokens and 4,000 tokens of text, in the real app on a terminal of its own (a pty), with a stand-in
          engine that sends what an engine process would
lateness  how much longer than asked a task of the app's loop sleeps, which is how late a key is answered: while
          those arms stream, and while the real engine process loads the demo
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import struct
import subprocess
import sys
import tempfile
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.bench.rows.start import end, environment, read_some
from engine.bench.timing import Row, Times, as_raw, in_child, spread, summary
from engine.loading.demo import model as demo_model
from engine.records.errors import ModelError, SaescopeError

LINES_COLUMNS = (48, 160)

REPAINT, UPDATES = "Static.update ÷ repaint of the same tokens", "updates a second while text streams"

STREAMS, LOADS = "lateness p99 while text streams", "lateness p99 while the engine loads"

PATIENCE = 180.0
"""Seconds after which a process that has written no result is ended."""


@dataclass(frozen=True)
class Shape:
    """Number of rounds of painting, of tokens on the screen, and of seconds of streaming."""

    rounds: int
    tokens: int
    seconds: float


def shape(quick: bool) -> Shape:
    """Return the shape that the goals are for, or a smaller one."""
    return Shape(2, 3000, 1.0) if quick else Shape(15, 4000, 8.0)


def repaint(sizes: Shape) -> list[Row]:
    """Measure the rows of painting."""
    painted = in_child("tui.bench.repaint", {"rounds": sizes.rounds, "tokens": sizes.tokens})
    times = {name: summary(seconds) for name, seconds in painted["seconds"].items()}
    raw = {"seconds": as_raw(times), "sent": painted["sent"], "tokens": sizes.tokens}
    static = times["Static.update"]

    def row(what: str, name: str, goal: float | None) -> Row:
        mine, other = f"{in_ms(times[name])}, {sizes.tokens:,} tokens", in_ms(static)
        return Row(11, what, mine, other, static.median / times[name].median, goal, raw=raw)

    other = "Static.update ÷ repaint in other colours"
    return [row(REPAINT, "repainted", 50.0), row(other, "recoloured", None)]


def in_ms(times: Times) -> str:
    """Say median and spread, such as "0.93 ms (0.9–1.1)"."""
    return spread(times, 1e-3, "ms")


def streaming(sizes: Shape) -> list[Row]:
    """Measure updates and lateness while two arms stream."""
    if not has_terminals():
        return [no_terminal(UPDATES, 30.0, True, "/s"), no_terminal(STREAMS, 10.0, False, "ms")]
    measured = on_terminal({"what": "stream", "tokens": sizes.tokens, "seconds": sizes.seconds})
    rate = measured["updates"] / measured["seconds"]
    speed = f"{measured['tokens'] / measured['seconds']:.0f} tokens/s in each of two arms"
    late = f"{in_words(measured['late'])}; {1e3 * measured['late_at_end']:.0f} ms once, when the text ends"
    return [
        Row(11, UPDATES, speed, "", rate, 30.0, unit="/s", raw=measured),
        lateness(STREAMS, late, measured),
    ]


def loading() -> list[Row]:
    """Measure lateness while the engine process loads the demo."""
    if not has_terminals():
        return [no_terminal(LOADS, 10.0, False, "ms")]
    try:
        demo_model.packaged_weights()
    except ModelError as error:
        return [Row(11, LOADS, "", "", None, 10.0, at_least=False, unit="ms", note=error.message)]
    measured = on_terminal({"what": "load"})
    return [lateness(LOADS, f"{in_words(measured['late'])}, a load of {measured['seconds']:.1f} s", measured)]


def lateness(what: str, description: str, measured: dict[str, Any]) -> Row:
    """Return the row of the 99th percentile of lateness, beside that of a loop that has nothing to do."""
    late, bare = (felt(measured[name], measured["nap"]) for name in ("late", "bare"))
    other = f"an idle loop {1e3 * percentile(bare, 0.99):.1f} ms"
    return Row(11, what, description, other, 1e3 * percentile(late, 0.99), 10.0, False, "ms", raw=measured)


def felt(late: list[float], nap: float) -> list[float]:
    """Return the waits of keys pressed every `nap` seconds: one that falls within a delay waits for the rest of it."""
    return [value - nap * n for value in late for n in range(1 + int(value / nap))]


def percentile(values: list[float], share: float) -> float:
    """Return the smallest value that at least this share of the values does not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def in_words(late: list[float]) -> str:
    """Say median and worst lateness."""
    return f"median {1e3 * percentile(late, 0.5):.1f}, worst {1e3 * max(late):.0f} ms"


def has_terminals() -> bool:
    """Whether this system has ptys."""
    return sys.platform.startswith(("linux", "darwin"))


def no_terminal(what: str, goal: float, at_least: bool, unit: str) -> Row:
    """Return a row that cannot be measured on a system without ptys."""
    return Row(11, what, "", "", None, goal, at_least, unit, note="needs a pty")


def on_terminal(options: dict[str, Any]) -> dict[str, Any]:
    """Run the app on a pty until it has written its result, and return that. Raises SaescopeError if it writes none."""
    with tempfile.TemporaryDirectory(prefix="saescope-bench-") as folder:
        result = Path(folder) / "result.json"
        ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *LINES_COLUMNS, 0, 0))
        command = [sys.executable, "-P", "-m", "tui.bench.lateness", json.dumps({**options, "result": str(result)})]
        app = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(Path(folder)), start_new_session=True
        )
        os.close(theirs)
        begin, sent, last = time.perf_counter(), 0, b""
        try:
            while app.poll() is None and time.perf_counter() - begin < PATIENCE:
                chunk = read_some(ours)
                sent += len(chunk)
                last = (last + chunk)[-2000:]
        finally:
            end(app, ours)
        if not result.exists():
            words = last.decode("utf-8", "replace").strip().splitlines() or ["nothing"]
            raise SaescopeError(f"The bench's app measured nothing; its last words: {words[-1][:200]}")
        measured: dict[str, Any] = json.loads(result.read_text("utf-8"))
        return {**measured, "bytes": sent}

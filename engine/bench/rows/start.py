"""Row 10, first part: how soon the app has painted its first pane.

The app is started on a terminal of its own (a pty) with state and configuration folders of its own; the clock stops
when the first pane's title arrives. A bare `import textual.app` is timed in turn with it: no app can be faster.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

from engine.bench.timing import Row, Times, as_raw, spread, summary

FIRST_PANE = b"1 Prompts"

SIZE = (40, 120)
"""Lines and columns of the terminal."""

PATIENCE = 30.0
"""Seconds after which an app that has painted no pane is ended."""


def runs(quick: bool) -> int:
    """Return how often the app is started."""
    return 3 if quick else 11


def measure(count: int) -> list[Row]:
    """Measure the seconds until the first pane is painted, the median of `count` starts."""
    what = "first paint"
    if not sys.platform.startswith(("linux", "darwin")):
        return [Row(10, what, "", "", None, 0.30, at_least=False, unit="s", note="needs a pty")]
    paints, imports = [], []
    with tempfile.TemporaryDirectory(prefix="saescope-bench-") as folder:
        first_paint(Path(folder))  # not counted: it compiles modules and fills the file cache for later starts
        for _ in range(count):
            paints.append(first_paint(Path(folder)))
            imports.append(seconds_of([sys.executable, "-P", "-c", "import textual.app"], environment(Path(folder))))
    times: dict[str, Times] = {"first paint": summary(paints), "import": summary(imports)}
    raw = {"seconds": as_raw(times), "runs": count}
    ours = f"{spread(times['first paint'])}, {count} starts"
    other = f"`import textual.app` {spread(times['import'])}"
    return [Row(10, what, ours, other, times["first paint"].median, 0.30, at_least=False, unit="s", raw=raw)]


def seconds_of(command: list[str], env: dict[str, str]) -> float:
    """Return the wall time of a command, in seconds."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=env)
    return time.perf_counter() - start


def environment(folder: Path) -> dict[str, str]:
    """Return an environment that keeps state, configuration and compiled modules in `folder`.

    PYTHONDONTWRITEBYTECODE is left out: an installed app has compiled modules, but with it a checkout would be
    compiled anew at every start.
    """
    places = {name: str(folder) for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "PYTHONPYCACHEPREFIX")}
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **places, "TERM": "xterm-256color", "OMP_NUM_THREADS": "1"}


def first_paint(folder: Path) -> float:
    """Start the app, wait for its first pane, end the app; return the seconds until the pane. Raises TimeoutError."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *SIZE, 0, 0))
    start = time.perf_counter()
    # -P: a folder named engine in the working directory must not be imported
    command = [sys.executable, "-P", "-m", "saescope"]
    app = subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(folder), start_new_session=True
    )
    os.close(theirs)
    try:
        seen = b""
        while FIRST_PANE not in seen:
            if app.poll() is not None or time.perf_counter() - start > PATIENCE:
                raise TimeoutError(f"The app painted no pane; its last words: {seen[-200:]!r}")
            seen += read_some(ours)
        return time.perf_counter() - start
    finally:
        end(app, ours)


def read_some(terminal: int) -> bytes:
    """Read what the app sends to the terminal within a tenth of a second; b"" if nothing, or if it has closed it."""
    if not select.select([terminal], [], [], 0.1)[0]:
        return b""
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        return b""


def end(app: subprocess.Popen[bytes], terminal: int) -> None:
    """Ask the app to end, reading its output so that it can write on; kill it after five seconds."""
    with contextlib.suppress(ProcessLookupError):
        app.send_signal(signal.SIGTERM)
    until = time.perf_counter() + 5
    while app.poll() is None and time.perf_counter() < until:
        read_some(terminal)
    app.kill()
    app.wait()
    os.close(terminal)

"""The rows that the bench reports, and how it times contenders in turn and measures memory. No torch."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import psutil

from engine.records.errors import SaescopeError


@dataclass(frozen=True)
class Times:
    """Seconds of one contender over all rounds, of CPU time or wall time: the function that takes them says which."""

    median: float
    smallest: float
    largest: float
    wall_median: float
    """The median of wall time, which is what a user waits for and includes other processes' share."""


@dataclass(frozen=True)
class Row:
    """One ratio. `goal` is its bound, a lower one where `at_least`; without a ratio, `note` says why.

    A row whose goal is None is for information.
    """

    number: int
    what: str
    ours: str
    contender: str
    ratio: float | None
    goal: float | None
    at_least: bool = True
    unit: str = "×"
    note: str = ""
    raw: dict[str, Any] = field(default_factory=dict)
    """Every number from which the ratio was computed, in seconds and bytes."""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None where nothing was measured or there is no goal."""
        if self.ratio is None or self.goal is None:
            return None
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


def in_turn(
    contenders: Mapping[str, Callable[[], object]], rounds: int, settle: Callable[[], object] | None = None
) -> dict[str, Times]:
    """Time contenders in turn, A B C A B C …, after one round that does not count.

    Times are this process's CPU time, which other processes disturb least; wall time where `settle`, which waits for
    a device, is given.
    """
    clock = time.process_time if settle is None else time.perf_counter
    settle = settle or (lambda: None)
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            settle()
            start, start_wall = clock(), time.perf_counter()
            work()
            settle()
            if turn > 0:
                taken[name].append(clock() - start)
                wall[name].append(time.perf_counter() - start_wall)
    return {name: summary(taken[name], wall[name]) for name in contenders}


def summary(taken: list[float], wall: list[float] | None = None) -> Times:
    """Return median and spread of the times taken, which are wall times if `wall` is not given."""
    return Times(statistics.median(taken), min(taken), max(taken), statistics.median(wall or taken))


def as_raw(times: Mapping[str, Times]) -> dict[str, Any]:
    """Return the times in the form that Row.raw holds."""
    return {name: asdict(t) for name, t in times.items()}


def spread(times: Times, per: float = 1.0, unit: str = "s") -> str:
    """Say median and spread, such as "2.88 ms/token (2.85–2.97)"; times are divided by `per`."""
    return f"{times.median / per:.3g} {unit} ({times.smallest / per:.3g}–{times.largest / per:.3g})"


def in_child(module: str, argument: dict[str, Any]) -> dict[str, Any]:
    """Run `python -m module` in a process of its own, so that its memory is its own; its last line is the answer, JSON.

    Raises SaescopeError if the process fails.
    """
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, json.dumps(argument)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise SaescopeError(f"The bench's process {module} failed: {last}")
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def reset_peak() -> int:
    """Restart the measurement of peak_bytes(), where the system can (Linux), and return the resident bytes now."""
    try:
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
    except OSError:
        pass  # the peak is then that of the whole process; the bench's processes reach it while measuring
    return int(psutil.Process().memory_info().rss)


def resident_bytes() -> int:
    """Return the resident size of this process, mapped file pages included."""
    return int(psutil.Process().memory_info().rss)


def peak_bytes() -> int:
    """Return the largest resident size since reset_peak, mapped file pages included."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024

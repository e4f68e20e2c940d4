"""How late the app's event loop is, and how often it paints, while text streams or a model loads.

Run by the engine's bench on a terminal of its own (a pty), with the real driver: python -P -m tui.bench.lateness JSON.
What it finds goes into the file that the argument names, since standard output is the terminal.
"""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from engine.records import Edit, Load, Prompt, PromptSet, Sampling
from engine.serving.client import LiveEngine
from engine.serving.process import EngineProcess
from tui.app import SaescopeApp
from tui.bench.stand_in import StandIn, tokens_at
from tui.services.opening import Opening
from tui.start import autosave_store
from tui.state.study import Study, start_workspace
from tui.widgets.token_text import TokenText

NAP = 0.005
"""Seconds that the probe sleeps; what it oversleeps is the lateness."""

PROMPT_TOKENS = 100

IDLE = 1.0
"""Seconds for which a loop that does nothing else is watched first: whatever it is late, the machine is."""

PATIENCE = 120.0


@dataclass(frozen=True)
class Options:
    """What is to happen while the loop is watched."""

    what: str
    """`stream` or `load`."""
    result: str
    """The file that the answer goes into."""
    tokens: int = 4000
    """Coloured in the tokens pane, and as many in both arms together before the clock starts."""
    rate: float = 200.0
    """Tokens of each arm a second."""
    seconds: float = 8.0


class Watched(SaescopeApp):
    """The app, counting the frames that show more text than the frame before."""

    CSS_PATH = str(Path(__file__).parent.parent / "app.tcss")  # else looked for beside this file

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening)
        self.updates = 0
        self._seen = 0

    def _display(self, screen: Any, renderable: Any) -> None:
        super()._display(screen, renderable)
        shown = self.num_streamed()
        self.updates += shown > self._seen
        self._seen = shown

    @property
    def furnished(self) -> bool:
        """Whether all panes are there."""
        return bool(self._screen_stack) and self.main.furnished.is_set()

    def num_streamed(self) -> int:
        """Tokens that the arms have."""
        if not self.furnished:
            return 0
        return sum(len(p.tokens) for text in self.main.generation.query(TokenText) for p in text._passages)


class Probe:
    """Sleeps again and again and notes how late it wakes."""

    def __init__(self) -> None:
        self.late: list[float] = []
        self._task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + NAP
            await asyncio.sleep(NAP)
            self.late.append(max(0.0, loop.time() - due))

    def take(self) -> list[float]:
        """Seconds of lateness since the last time it was asked."""
        found, self.late = self.late, []
        return found

    def stop(self) -> list[float]:
        """The same, and it is the last time."""
        self._task.cancel()
        return self.take()


async def streaming(app: Watched, options: Options) -> dict[str, Any]:
    """Two arms stream while the tokens pane is full."""
    await until(lambda: app.furnished)
    main, loop = app.main, asyncio.get_running_loop()
    await until(lambda: main.context.tasks.ready)
    main.read(1)
    await until(lambda: sum(len(p.tokens) for p in main.tokens.query_one(TokenText)._passages) >= options.tokens)
    main.context.text.generate()
    await until(lambda: app.num_streamed() >= options.tokens)
    await asyncio.sleep(0.5)
    probe, begin, before, tokens = Probe(), loop.time(), app.updates, app.num_streamed()
    await asyncio.sleep(options.seconds)
    late, updates, seconds = probe.take(), app.updates - before, loop.time() - begin
    streamed = (app.num_streamed() - tokens) // 2
    await until(lambda: not main.generation.running)
    await asyncio.sleep(0.3)
    return {"late": late, "updates": updates, "seconds": seconds, "tokens": streamed, "late_at_end": max(probe.stop())}


async def loading(app: Watched, options: Options) -> dict[str, Any]:
    """The engine's process starts and loads the demo."""
    await until(lambda: app.furnished)
    loop = asyncio.get_running_loop()
    probe, begin = Probe(), loop.time()
    await until(lambda: app.main.context.tasks.ready or bool(app.main.messages))
    return {"late": probe.stop(), "seconds": loop.time() - begin, "problem": " ".join(app.main.messages)}


async def until(true: Any) -> None:
    """Waits for something to become true."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.02)


def study_of(options: Options) -> Study:
    """Prompts of so many words, a question, an edit."""
    words = [tokens_at(index)[0].strip() for index in range(options.tokens)]
    starts = range(0, options.tokens, PROMPT_TOKENS)
    prompts = tuple(Prompt(" ".join(words[at : at + PROMPT_TOKENS])) for at in starts)
    half = len(prompts) // 2
    work = start_workspace(PromptSet("bench", prompts[:half], prompts[half:]), (Edit(1),))
    total = options.tokens // 2 + int(options.rate * (options.seconds + 2))
    return Study(Load(), msgspec.structs.replace(work, question="Who?", sampling=Sampling(total)))


def engine_for(options: Options) -> LiveEngine:
    """The stand-in, or the real process."""
    return StandIn(options.tokens // 2, options.rate) if options.what == "stream" else EngineProcess()


async def measure(options: Options) -> None:
    """Runs the app to the end of the measurement, and writes what it found. Raises RuntimeError where the app ends."""
    idle = Probe()
    await asyncio.sleep(IDLE)
    bare = idle.stop()
    app = Watched(Opening(study_of(options), lambda: engine_for(options), autosave_store))
    running = asyncio.create_task(app.run_async())
    measuring = asyncio.create_task((streaming if options.what == "stream" else loading)(app, options))
    await asyncio.wait({running, measuring}, return_when=asyncio.FIRST_COMPLETED)
    if running.done():
        measuring.cancel()
        raise RuntimeError("The app ended before the measurement did.")
    await app.action_quit()
    await running
    Path(options.result).write_text(json.dumps({**measuring.result(), "bare": bare, "nap": NAP}), "utf-8")


def main(argument: str) -> None:
    """The process of its own."""
    asyncio.run(measure(Options(**json.loads(argument))))


if __name__ == "__main__":
    main(sys.argv[1])

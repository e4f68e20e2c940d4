"""Measures how late the app's event loop is, and how often it paints, while text streams or a model loads.

Run by the engine's bench on a terminal of its own (a pty), with the real driver: python -P -m tui.bench.lateness JSON.
The result goes into the file that the argument names, because standard output is the terminal.
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
from tui.services.context import Opening
from tui.start import autosave_store
from tui.state.study import Study, start_workspace
from tui.widgets.token_text import TokenText

NAP = 0.005
"""Seconds for which the probe sleeps; the time by which it oversleeps is the lateness."""

PROMPT_TOKENS = 100
"""Tokens of each prompt in the prompt set."""

IDLE = 1.0
"""Seconds for which an idle loop is probed first: its lateness is the machine's, not the app's."""

PATIENCE = 120.0
"""Seconds after which `until` stops waiting."""


@dataclass(frozen=True)
class Options:
    """What happens while the loop is probed."""

    what: str
    """`stream` or `load`."""
    result: str
    """Path of the file to which the result is written."""
    tokens: int = 4000
    """Coloured tokens in the tokens pane; both arms together also have that many before the measurement starts."""
    rate: float = 200.0
    """Tokens per second in each arm."""
    seconds: float = 8.0


class Watched(SaescopeApp):
    """The app, which counts the frames that show more text than the frame before."""

    CSS_PATH = str(Path(__file__).parent.parent / "app.tcss")  # by default it would be looked for beside this file

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
        """Whether all panes have been mounted."""
        return bool(self._screen_stack) and self.main.furnished.is_set()

    def num_streamed(self) -> int:
        """Return how many tokens both arms show."""
        if not self.furnished:
            return 0
        return sum(len(p.tokens) for text in self.main.generation.query(TokenText) for p in text._passages)


class Probe:
    """Measures the loop's lateness: sleeps for NAP again and again and notes how late it wakes."""

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
        """Return the latenesses, in seconds, noted since the last call."""
        late, self.late = self.late, []
        return late

    def stop(self) -> list[float]:
        """Stop probing, and return the latenesses noted since the last `take`."""
        self._task.cancel()
        return self.take()


async def streaming(app: Watched, options: Options) -> dict[str, Any]:
    """Measure lateness and updates while two arms stream and the tokens pane is full."""
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
    """Measure lateness while the engine process starts and loads the demo."""
    await until(lambda: app.furnished)
    loop = asyncio.get_running_loop()
    probe, begin = Probe(), loop.time()
    await until(lambda: app.main.context.tasks.ready or bool(app.main.messages))
    return {"late": probe.stop(), "seconds": loop.time() - begin, "problem": " ".join(app.main.messages)}


async def until(condition: Any) -> None:
    """Wait until `condition()` is true. Raises TimeoutError after PATIENCE seconds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.02)


def study_of(options: Options) -> Study:
    """Return a study with prompts of `options.tokens` words in all, a question and an edit."""
    words = [tokens_at(index)[0].strip() for index in range(options.tokens)]
    starts = range(0, options.tokens, PROMPT_TOKENS)
    prompts = tuple(Prompt(" ".join(words[at : at + PROMPT_TOKENS])) for at in starts)
    half = len(prompts) // 2
    work = start_workspace(PromptSet("bench", prompts[:half], prompts[half:]), (Edit(1),))
    total = options.tokens // 2 + int(options.rate * (options.seconds + 2))
    return Study(Load(), msgspec.structs.replace(work, question="Who?", sampling=Sampling(total)))


def engine_for(options: Options) -> LiveEngine:
    """Return the stand-in for streaming, or the real engine process for loading."""
    return StandIn(options.tokens // 2, options.rate) if options.what == "stream" else EngineProcess()


async def measure(options: Options) -> None:
    """Run the app until the measurement ends, and write the result. Raises RuntimeError if the app ends before that."""
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
    """Run the measurement that the argument, Options as JSON, describes."""
    asyncio.run(measure(Options(**json.loads(argument))))


if __name__ == "__main__":
    main(sys.argv[1])

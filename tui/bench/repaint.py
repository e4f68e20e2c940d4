"""Times TokenText against Static.update of the same rich Text. Run: python -P -m tui.bench.repaint JSON

Both paint the same tokens at 160x48, up to the terminal sequences of a frame; contenders alternate.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
from collections.abc import Callable
from functools import partial
from time import process_time
from typing import Any

from rich.text import Text
from textual._compositor import CompositorUpdate
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.messages import Layout
from textual.widget import Widget
from textual.widgets import Static

from engine.records.words.shades import STEPS
from tui.widgets.token_layout import Passage
from tui.widgets.token_text import TokenText

SIZE = (160, 48)

TOKENS = 4000

WORDS = [" the", " of", " sparse", " feature", "ization", ",", ".", " nurse", " doctor", " she", " 世界", " a"] * 8 + [
    "\n"
]


class One(App[None]):
    """An app of one widget that renders its frames to terminal sequences, without a terminal."""

    def __init__(self, widget: Widget, root: Widget | None = None) -> None:
        super().__init__()
        self.widget, self.root, self.sent = widget, root or widget, ""

    def compose(self) -> ComposeResult:
        """Yield the widget, or the container that holds it."""
        yield self.root

    def _display(self, screen: Any, renderable: Any) -> None:
        if isinstance(renderable, CompositorUpdate):
            self.sent += renderable.render_segments(self.console)

    async def frame(self) -> None:
        """Lay out and paint what has changed, as the screen's next frame would."""
        layout = self.widget._layout_required
        self.widget._check_refresh()
        if layout:
            await self.screen._on_layout(Layout(self.widget))
            self.screen._on_timer_update()
        self.screen._dirty_widgets.add(self.widget)
        self.screen._on_timer_update()


class Clock:
    """Keeps, for every contender, this process's CPU seconds and the number of characters that its last frame sent."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}
        self.sent: dict[str, int] = {}

    async def time(self, name: str, app: One, action: Callable[[], object]) -> None:
        """Time one action with the frame that paints it."""
        with app._context():
            app.sent = ""
            gc.collect()  # or the timing would include collecting another contender's garbage
            begin = process_time()
            action()
            await app.frame()
            self.seconds.setdefault(name, []).append(process_time() - begin)
            assert app.sent
            self.sent[name] = len(app.sent)


async def compare(rounds: int, num_tokens: int = TOKENS) -> dict[str, Any]:
    """Return the seconds of every contender in every round, and the number of characters its last frame sent."""
    rng = random.Random(0)
    tokens = tuple(rng.choice(WORDS) for _ in range(num_tokens))
    shadings = [tuple(rng.choice([0, 0, 0, rng.randint(1, STEPS)]) for _ in tokens) for _ in range(rounds + 1)]
    ours, static, clock = TokenText(), Static(), Clock()
    app, other = One(ours), One(static, VerticalScroll(static))
    async with app.run_test(size=SIZE) as pilot, other.run_test(size=SIZE) as static_pilot:
        ours.show([Passage(tokens, shadings[0])])
        await pilot.pause()
        styles = [ours._style(step) for step in range(STEPS + 1)]
        for shades in shadings[1:]:
            text = Text.assemble(*((token, styles[shade]) for token, shade in zip(tokens, shades, strict=True)))
            passages = [Passage(tokens, shades)]
            await clock.time("Static.update", other, partial(static.update, text))
            await clock.time("recoloured", app, partial(ours.show, passages))
            await clock.time("repainted", app, ours.refresh)
            await clock.time("scrolled by a line", app, partial(ours.scroll_to, y=1, animate=False))
            ours.move_to(0, 300)
            await app.frame()
            await clock.time("cursor moved", app, partial(ours.action_step, 1))
            ours.clear()
            await clock.time("other tokens", app, partial(ours.show, passages))
            ours.scroll_to(y=ours.max_scroll_y, animate=False)
            await app.frame()
            await clock.time("4 tokens appended", app, partial(ours.append, [" and"] * 4, [0, 3, 3, 0]))
            ours.show(passages)  # so that the next round recolours it
            await pilot.pause()
            await static_pilot.pause()
    return {"seconds": clock.seconds, "sent": clock.sent}


def main(argument: str) -> None:
    """Print the result of `compare` as one line of JSON."""
    options = json.loads(argument)
    print(json.dumps(asyncio.run(compare(options["rounds"], options["tokens"]))))


if __name__ == "__main__":
    main(sys.argv[1])

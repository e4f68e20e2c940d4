"""Times of TokenText against Static.update of the same rich Text. Run: python tests/bench_token_text.py

Each paints the same 4,000 tokens at 160x48 up to the terminal sequences of a frame; contenders alternate.
"""

import asyncio
import gc
import random
import statistics
import sys
from functools import partial
from pathlib import Path
from time import perf_counter

sys.path.insert(0, str(Path(__file__).parent.parent))

from rich.text import Text
from textual._compositor import CompositorUpdate
from textual.app import App
from textual.containers import VerticalScroll
from textual.messages import Layout
from textual.widgets import Static

from tui.token_text import STEPS, Passage, TokenText

SIZE = (160, 48)
TOKENS = 4000
ROUNDS = 15
WORDS = [" the", " of", " sparse", " feature", "ization", ",", ".", " nurse", " doctor", " she", " 世界", " a"] * 8 + [
    "\n"
]


class One(App):
    """One widget, its frames made into terminal sequences though there is no terminal."""

    def __init__(self, widget, root=None):
        super().__init__()
        self.widget, self.root, self.sent = widget, root or widget, ""

    def compose(self):
        yield self.root

    def _display(self, screen, renderable):
        if isinstance(renderable, CompositorUpdate):
            self.sent += renderable.render_segments(self.console)

    async def frame(self):
        """Lays out and paints what has changed, as the screen's next frame would."""
        layout = self.widget._layout_required
        self.widget._check_refresh()
        if layout:
            await self.screen._on_layout(Layout(self.widget))
            self.screen._on_timer_update()
        self.screen._dirty_widgets.add(self.widget)
        self.screen._on_timer_update()


async def main():
    rng = random.Random(0)
    tokens = tuple(rng.choice(WORDS) for _ in range(TOKENS))
    shadings = [tuple(rng.choice([0, 0, 0, rng.randint(1, STEPS)]) for _ in tokens) for _ in range(ROUNDS)]
    ours, static = TokenText(), Static()
    times, sent = {}, {}
    app, other = One(ours), One(static, VerticalScroll(static))
    async with app.run_test(size=SIZE) as pilot, other.run_test(size=SIZE) as static_pilot:

        async def timed(name, in_app, action):
            with in_app._context():
                in_app.sent = ""
                gc.collect()  # or one contender pays for the other's rubbish
                begin = perf_counter()
                action()
                await in_app.frame()
                times.setdefault(name, []).append((perf_counter() - begin) * 1e3)
                assert in_app.sent
                sent[name] = len(in_app.sent)

        ours.show([Passage(tokens, shadings[0])])
        await pilot.pause()
        styles = [ours._style(step) for step in range(STEPS + 1)]
        for shades in shadings:
            text = Text.assemble(*((token, styles[shade]) for token, shade in zip(tokens, shades, strict=True)))
            passages = [Passage(tokens, shades)]
            await timed("Static.update", other, partial(static.update, text))
            await timed("recoloured", app, partial(ours.show, passages))
            await timed("repainted", app, ours.refresh)
            await timed("scrolled by a line", app, partial(ours.scroll_to, y=1, animate=False))
            ours.move_to(0, 300)
            await app.frame()
            await timed("cursor moved", app, partial(ours.action_step, 1))
            ours.clear()
            await timed("other tokens", app, partial(ours.show, passages))
            ours.scroll_to(y=ours.max_scroll_y, animate=False)
            await app.frame()
            await timed("4 tokens appended", app, partial(ours.append, [" and"] * 4, [0, 3, 3, 0]))
            ours.show(passages)  # for the next round to recolour
            await pilot.pause()
            await static_pilot.pause()

    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        ratio = medians["Static.update"] / value
        print(f"{name:20}{value:9.2f} ms   Static.update is {ratio:7.1f} times that   {sent[name]:8,} bytes")


if __name__ == "__main__":
    asyncio.run(main())

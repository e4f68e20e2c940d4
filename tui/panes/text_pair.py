"""Two texts side by side: a baseline, or a kept text, and the edited one; of several samples or variants one pair."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal

from engine.records import AnswersScored, Edit, EditsFrom, Generate, Generated, TokenStep
from engine.records.words.edits import asked
from tui.panes.text_view import ArmView
from tui.state.edits import change_in_words, edits_in_words, schedule_in_words
from tui.state.texts import (
    FIRST,
    Pair,
    Rows,
    differing,
    first_difference,
    name_of,
    prompt_of,
    schedule_of,
    unlike,
    without_end,
)
from tui.widgets.token_text import DIFFERS, MASKED, TURNED, TURNED_DIFFERS, Passage

LEFT, RIGHT = 0, 1


class Arms(Horizontal):
    """`start` begins a text, `add` brings its tokens, `show` the finished one."""

    DEFAULT_CSS = """
    Arms { height: 1fr; & #arm-baseline { border-right: solid $panel; } }
    """

    def __init__(self) -> None:
        super().__init__(id="arms")
        self._rows, self._at = Rows(), 0
        self._result: Generated | None = None
        self._edits: tuple[Edit, ...] = ()
        self._variants: tuple[tuple[Edit, ...], ...] = ()
        self._head: tuple[str, ...] = ()
        self._scored: AnswersScored | None = None
        self._dimmed = False
        self.beside: Generated | None = None
        """The kept text in the baseline's place."""
        self.changes: list[EditsFrom] = []
        """Which edits the edited arm is under, and from which token on."""
        self.steps = 0
        """Tokens so far."""
        self.apart: int | None = None
        """The first token in which the two texts differ."""

    def compose(self) -> ComposeResult:
        """Both texts."""
        yield ArmView("baseline", "g generates: the model as it is …", cursor=False, id="arm-baseline")
        yield ArmView("edited", "… and with the edits that are switched on.", cursor=True, id="arm-edited")

    @property
    def views(self) -> tuple[ArmView, ArmView]:
        """Left and right."""
        return self.query_one("#arm-baseline", ArmView), self.query_one("#arm-edited", ArmView)

    @property
    def pair(self) -> Pair:
        """Which rows are looked at."""
        return self._rows.pairs[self._at]

    @property
    def num_pairs(self) -> int:
        """How many pages there are."""
        return len(self._rows.pairs)

    @property
    def page(self) -> int:
        """Which one is open, counted from 0."""
        return self._at

    @property
    def result(self) -> Generated | None:
        """The finished text that is shown; None while one streams, or where there is none."""
        return self._result

    def cursor(self) -> int | None:
        """The generated token under the cursor of the edited text; None where there is no text."""
        place = self.views[RIGHT].text.cursor
        if place is None or not self._texts()[RIGHT]:
            return None
        return max(0, place[1] - len(self._head))

    # ---- what is shown

    def clear(self) -> None:
        """No text at all."""
        self._rows, self._at, self._result, self.beside = Rows(), 0, None, None
        self.changes, self.steps, self._head = [], 0, ()
        self._draw()
        for view, title in zip(self.views, ("baseline", "edited"), strict=True):
            view.show_title(title)

    def start(self, request: Generate, kept: Generated | None) -> None:
        """A new text begins; a branch with what it keeps of a text, in the pair that is looked at."""
        pair = self.pair if kept is not None else FIRST
        self._rows = Rows.asked(request, kept, pair)
        self._edits, self._variants = request.edits, request.variants
        self._open(Pair(pair.sample) if kept is not None else pair)
        self._result = None
        self._head = (request.prefill,) if request.prefill else ()
        self.changes = [EditsFrom(0, request.edits), *request.schedule]
        self.steps = (request.branched_at or 0) if kept is not None else 0
        if self.beside is not None and prompt_of(self.beside) != request.prompt:
            self.beside = None
        self._draw()
        if self.steps:
            self._go(self.steps)

    def change_edits(self, edits: tuple[Edit, ...]) -> None:
        """Other edits rule from the next token on."""
        before = [change for change in self.changes if change.token_index < self.steps]
        if not before or asked(before[-1].edits) != asked(edits):
            before.append(EditsFrom(self.steps, edits))
        self.changes = before
        self._show_titles()

    def add(self, steps: Sequence[TokenStep]) -> None:
        """Tokens that have come."""
        before = [len(text) for text in self._texts()]
        for step in steps:
            self._rows.add(step)
            self.steps = step.index + 1
        texts = self._texts()
        for side, view in enumerate(self.views):
            new, other = texts[side][before[side] :], texts[1 - side]
            differs = [at >= len(other) or other[at] != token for at, token in enumerate(new, before[side])]
            if new:
                view.text.append(new, self._shades(side, differs, before[side]))
        if texts[RIGHT] and not before[RIGHT]:
            self._go(len(texts[RIGHT]))  # at the end, where it stays while tokens come
        if self.apart is None:
            self.apart = first_difference(*texts, min(before))

    def show(self, found: Generated, pair: Pair | None = None) -> None:
        """A finished text, differing tokens aligned and marked; the cursor stays where it was, or where it parts."""
        at, was = self.cursor(), self._result
        streamed = was is None and at is not None
        self._rows, self._result = Rows.of(found), found
        self._edits, self._variants = found.edits, found.variants
        self._open(self.pair if pair is None else pair)
        self._head = (found.prompt.prefill,) if found.prompt.prefill else ()
        self.changes = list(schedule_of(found))
        self.steps = max(len(found.baseline.token_ids), len(found.edited.token_ids))
        self._draw()
        self._go(at if streamed and at is not None else found.branched_at or 0)

    def turn(self, step: int) -> None:
        """The next sample or variant, or the one before."""
        at = self.cursor()
        self._at = (self._at + step) % self.num_pairs
        self._draw()
        self._go(at or 0)

    def put_beside(self, found: Generated | None) -> None:
        """A kept text in the baseline's place; None brings the baseline back."""
        at = self.cursor()
        self.beside = found
        self._draw()
        self._go(at or 0)

    def show_answers(self, scored: AnswersScored | None, dimmed: bool = False) -> None:
        """The tracked answers' bars, where they belong to the text above; `dimmed` where other edits are in force."""
        self._scored, self._dimmed = scored, dimmed
        left = scored is not None and self.beside is None
        right = scored is not None and self.pair.variant is None
        rows = scored.answers if scored is not None else ()
        self.views[LEFT].show_answers([(a.name, a.baseline) for a in rows] if left else ())
        self.views[RIGHT].show_answers([(a.name, a.edited) for a in rows] if right else (), stale=dimmed)

    def dim_answers(self) -> None:
        """The edited arm's bars belong to edits that are no longer in force."""
        self.show_answers(self._scored, dimmed=True)

    # ---- how

    def _open(self, pair: Pair) -> None:
        """Looks at a pair, or at the first where it is not there."""
        self._at = self._rows.pairs.index(pair) if pair in self._rows.pairs else 0

    def _texts(self) -> tuple[list[str], list[str]]:
        """The tokens on the left and on the right."""
        left = self._rows.tokens[self.pair.baseline]
        if self.beside is not None:
            left = list(without_end(self.beside.edited))
        return left, self._rows.tokens[self.pair.edited]

    def _go(self, at: int) -> None:
        """The cursor to a generated token, or the last."""
        last = len(self._texts()[RIGHT]) - 1
        if last >= 0:
            self.views[RIGHT].text.move_to(0, max(0, min(at, last)) + len(self._head))

    def _draw(self) -> None:
        """Both texts anew, and their headings."""
        texts = self._texts()
        marks = differing(*texts) if self._result is not None else unlike(*texts)
        self.apart = first_difference(*texts)
        if self.apart is None and self._result is not None and len(texts[LEFT]) != len(texts[RIGHT]):
            self.apart = min(map(len, texts))
        for side, view in enumerate(self.views):
            tokens = (*self._head, *texts[side])
            shades = (*[MASKED] * len(self._head), *self._shades(side, marks[side], 0))
            view.text.show([Passage(tokens, shades)] if tokens else [])
        self._show_titles()
        self.show_answers(self._scored, self._dimmed)

    def _shades(self, side: int, differs: Sequence[bool], start: int) -> list[int]:
        """Per token from `start` on: whether it differs, and whether it came under other edits than those before."""
        changes: Sequence[EditsFrom] = ()
        if side == RIGHT and self.pair.variant is None:
            changes = self.changes
        elif side == LEFT and self.beside is not None:
            changes = schedule_of(self.beside)
        borders = [change.token_index for change in changes[1:]]
        turned = [bisect_right(borders, at) % 2 == 1 for at in range(start, start + len(differs))]
        return [SHADES[mark] for mark in zip(differs, turned, strict=True)]

    def _show_titles(self) -> None:
        pair = self.pair
        sample = f"sample {pair.sample + 1} of {self._rows.samples} · " if self._rows.samples > 1 else ""
        left = "baseline" if self.beside is None else f"beside: {name_of(self.beside)}"
        self.views[LEFT].show_title(left if self.beside else sample + left)
        if pair.variant is not None:
            others = asked(self._edits)
            of_its_own = tuple(e for e in self._variants[pair.variant] if asked((e,))[0] not in others)
            right = f"variant: {edits_in_words(of_its_own or self._variants[pair.variant])}"
        else:
            right = f"edited: {schedule_in_words(self.changes)}" if self.changes else "edited"
        titles = [sample + right]
        if pair.variant is None and len(self.changes) > 1:
            titles.append(f"{sample}edited: … → {change_in_words(self.changes[-1])}")
        self.views[RIGHT].show_title(*titles)


SHADES = {(False, False): 0, (True, False): DIFFERS, (False, True): TURNED, (True, True): TURNED_DIFFERS}
"""By whether a token differs, and whether other edits were in force."""

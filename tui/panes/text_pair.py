"""Two texts side by side: the baseline or a kept text, and the edited text; one pair of all samples and variants."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Horizontal

from engine.records import AnswersScored, Edit, EditsFrom, Generate, Generated, TokenStep
from engine.records.texts import first_unlike
from engine.records.words.edits import edits_in_short, without_amounts
from tui.panes.text_view import ArmView
from tui.state.edits import change_in_words, schedule_in_words
from tui.state.texts import FIRST, Pair, Rows, differing, name_of, prompt_of, schedule_of, unlike, without_end
from tui.widgets.colours import DIFFERS, MASKED, TURNED, TURNED_DIFFERS
from tui.widgets.token_layout import Passage

LEFT, RIGHT = 0, 1


class Arms(Horizontal):
    """The two columns of text: `start` begins a text, `add` appends tokens, `show` shows a finished text."""

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
        """The kept text that is shown in the baseline's place, if any."""
        self.changes: list[EditsFrom] = []
        """The edits of the edited arm, and from which token on each applies."""
        self.steps = 0
        """The count of generated tokens so far."""
        self.apart: int | None = None
        """The index of the first token in which the two texts differ."""

    def compose(self) -> ComposeResult:
        yield ArmView("baseline", "g generates: the model as it is …", cursor=False, id="arm-baseline")
        yield ArmView("edited", "… and with the edits that are switched on.", cursor=True, id="arm-edited")

    @property
    def views(self) -> tuple[ArmView, ArmView]:
        """The left and the right column."""
        return self.query_one("#arm-baseline", ArmView), self.query_one("#arm-edited", ArmView)

    @property
    def pair(self) -> Pair:
        """The rows that are shown."""
        return self._rows.pairs[self._at]

    @property
    def num_pairs(self) -> int:
        """The count of pairs, one page each."""
        return len(self._rows.pairs)

    @property
    def page(self) -> int:
        """The index of the pair that is shown, from 0."""
        return self._at

    @property
    def result(self) -> Generated | None:
        """The finished text that is shown; None while a text streams, or if there is none."""
        return self._result

    def cursor(self) -> int | None:
        """Return the index of the generated token under the edited text's cursor; None if there is no text."""
        place = self.views[RIGHT].text.cursor
        if place is None or not self._texts()[RIGHT]:
            return None
        return max(0, place[1] - len(self._head))

    # ---- what is shown

    def clear(self) -> None:
        """Show no text at all."""
        self._rows, self._at, self._result, self.beside = Rows(), 0, None, None
        self.changes, self.steps, self._head = [], 0, ()
        self._draw()
        for view, title in zip(self.views, ("baseline", "edited"), strict=True):
            view.show_title(title)

    def start(self, request: Generate, kept: Generated | None) -> None:
        """Start to show a new text; a branch starts with the tokens it keeps of `kept`, of the pair that is shown."""
        pair = self.pair if kept is not None else FIRST
        self._rows = Rows.at_start(request, kept, pair)
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
        """Show that other edits apply from the next token on."""
        before = [change for change in self.changes if change.token_index < self.steps]
        if not before or without_amounts(before[-1].edits) != without_amounts(edits):
            before.append(EditsFrom(self.steps, edits))
        self.changes = before
        self._show_titles()

    def add(self, steps: Sequence[TokenStep]) -> None:
        """Append tokens that have arrived."""
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
            self._go(len(texts[RIGHT]))  # to the end, where the cursor stays while tokens arrive
        if self.apart is None:
            self.apart = first_unlike(*texts, min(before))

    def show(self, result: Generated, pair: Pair | None = None) -> None:
        """Show a finished text, aligned, with differing tokens marked.

        The cursor of a text that streamed stays where it was; else it goes to where the text branches off.
        """
        at, result_before = self.cursor(), self._result
        streamed = result_before is None and at is not None
        self._rows, self._result = Rows.of(result), result
        self._edits, self._variants = result.edits, result.variants
        self._open(self.pair if pair is None else pair)
        self._head = (result.prompt.prefill,) if result.prompt.prefill else ()
        self.changes = list(schedule_of(result))
        self.steps = max(len(result.baseline.token_ids), len(result.edited.token_ids))
        self._draw()
        self._go(at if streamed and at is not None else result.branched_at or 0)

    def turn(self, step: int) -> None:
        """Show the next sample or variant, or the previous one if `step` is -1."""
        at = self.cursor()
        self._at = (self._at + step) % self.num_pairs
        self._draw()
        self._go(at or 0)

    def put_beside(self, text: Generated | None) -> None:
        """Show a kept text in the baseline's place; None shows the baseline again."""
        at = self.cursor()
        self.beside = text
        self._draw()
        self._go(at or 0)

    def show_answers(self, scored: AnswersScored | None, dimmed: bool = False) -> None:
        """Show the tracked answers' bars under the texts they belong to; `dimmed` if the edits have changed since."""
        self._scored, self._dimmed = scored, dimmed
        left = scored is not None and self.beside is None
        right = scored is not None and self.pair.variant is None
        rows = scored.answers if scored is not None else ()
        self.views[LEFT].show_answers([(a.name, a.baseline) for a in rows] if left else ())
        self.views[RIGHT].show_answers([(a.name, a.edited) for a in rows] if right else (), stale=dimmed)

    def dim_answers(self) -> None:
        """Dim the edited arm's bars: its edits have changed since."""
        self.show_answers(self._scored, dimmed=True)

    # ---- drawing

    def _open(self, pair: Pair) -> None:
        """Select a pair, or the first one if it does not exist."""
        self._at = self._rows.pairs.index(pair) if pair in self._rows.pairs else 0

    def _texts(self) -> tuple[list[str], list[str]]:
        """Return the tokens of the left and of the right column."""
        left = self._rows.tokens[self.pair.baseline]
        if self.beside is not None:
            left = list(without_end(self.beside.edited))
        return left, self._rows.tokens[self.pair.edited]

    def _go(self, at: int) -> None:
        """Move the cursor to a generated token, at most to the last."""
        last = len(self._texts()[RIGHT]) - 1
        if last >= 0:
            self.views[RIGHT].text.move_to(0, max(0, min(at, last)) + len(self._head))

    def _draw(self) -> None:
        """Redraw both texts and their headings."""
        texts = self._texts()
        marks = differing(*texts) if self._result is not None else unlike(*texts)
        self.apart = first_unlike(*texts)
        if self.apart is None and self._result is not None and len(texts[LEFT]) != len(texts[RIGHT]):
            self.apart = min(map(len, texts))
        for side, view in enumerate(self.views):
            tokens = (*self._head, *texts[side])
            shades = (*[MASKED] * len(self._head), *self._shades(side, marks[side], 0))
            view.text.show([Passage(tokens, shades)] if tokens else [])
        self._show_titles()
        self.show_answers(self._scored, self._dimmed)

    def _shades(self, side: int, differs: Sequence[bool], start: int) -> list[int]:
        """Return the shade of each token from `start` on: whether it differs, and whether the edits had changed then.

        The edits' changes alternate between two shades.
        """
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
            others = without_amounts(self._edits)
            of_its_own = tuple(e for e in self._variants[pair.variant] if without_amounts((e,))[0] not in others)
            right = f"variant: {edits_in_short(of_its_own or self._variants[pair.variant])}"
        else:
            right = f"edited: {schedule_in_words(self.changes)}" if self.changes else "edited"
        titles = [sample + right]
        if pair.variant is None and len(self.changes) > 1:
            titles.append(f"{sample}edited: … → {change_in_words(self.changes[-1])}")
        self.views[RIGHT].show_title(*titles)


SHADES = {(False, False): 0, (True, False): DIFFERS, (False, True): TURNED, (True, True): TURNED_DIFFERS}
"""The shade of a token, by whether it differs and whether it is after an odd number of changes of edits."""

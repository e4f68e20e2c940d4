"""One arm of a generation: its text as it streams, and the tracked answers' bars below."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from engine.records.words.rich_text import Text
from tui.widgets.token_text import TokenText

BAR_WIDTH = 12

EIGHTHS = " ▏▎▍▌▋▊▉"


class ArmText(TokenText):
    """The text of an arm, which leaves enter to the pane around it."""

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable choosing a token, which would do nothing here."""
        return action != "choose" and super().check_action(action, parameters)


class ArmView(Vertical):
    """A heading, the text, and a bar for every tracked answer."""

    DEFAULT_CSS = """
    ArmView {
        width: 1fr; height: 1fr; padding: 0 1;
        & .arm-title { height: 1; text-style: bold; color: $text-muted; text-wrap: nowrap; text-overflow: ellipsis; }
        & TokenText { height: 1fr; }
        & TokenText:blur > .token-text--cursor { text-style: none; }
        & .arm-answers { height: auto; max-height: 5; text-wrap: nowrap; }
    }
    """

    def __init__(self, title: str, empty_text: str, cursor: bool, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._titles: tuple[str, ...] = (title,)
        self._empty, self._cursor = empty_text, cursor

    def compose(self) -> ComposeResult:
        yield Static(self._titles[0], classes="arm-title", markup=False)
        yield ArmText(show_cursor=self._cursor, empty_text=self._empty)
        yield Static(classes="arm-answers", markup=False)

    @property
    def text(self) -> ArmText:
        return self.query_one(ArmText)

    def show_title(self, *titles: str) -> None:
        """Show the first of these headings that fits, else the last."""
        self._titles = titles
        self.on_resize()

    def on_resize(self) -> None:
        """Show the heading that fits the new width."""
        line = self.query_one(".arm-title", Static)
        fitting = (title for title in self._titles if cell_len(title) <= line.size.width)
        line.update(Text(next(fitting, self._titles[-1])))

    def show_answers(self, answers: Sequence[tuple[str, float]], stale: bool = False) -> None:
        """Show a bar per tracked answer with its probability; dimmed if `stale`, under other edits than now."""
        width = max((len(name) for name, _ in answers), default=0)
        text = Text(no_wrap=True, overflow="ellipsis")
        for index, (name, probability) in enumerate(answers):
            text.append("\n" if index else "").append(f"{name:{width}} ")
            text.append(bar(probability)).append(f" {probability:.3f}")
        if stale:
            text.stylize("dim")
        self.query_one(".arm-answers", Static).update(text)


def bar(share: float) -> Text:
    """Return a bar for a share of 1, drawn in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * BAR_WIDTH * 8)
    full, rest = divmod(eighths, 8)
    drawn = "█" * full + (EIGHTHS[rest] if rest else "")
    return Text(drawn).append("·" * (BAR_WIDTH - len(drawn)), "dim")

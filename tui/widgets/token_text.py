"""Passages of tokens coloured by activation, painted line by line, so that thousands of tokens scroll and stream.

Its colours are those of colours.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from rich.cells import cell_len
from rich.style import Style
from textual import events
from textual.actions import SkipAction
from textual.binding import Binding, BindingType
from textual.color import BLACK, WHITE, Color
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from engine.records.words.rich_text import Text
from engine.records.words.safe_text import safe
from engine.records.words.shades import STEPS
from tui.widgets.colours import MASKED, token_styles
from tui.widgets.token_layout import Layout, Passage
from tui.widgets.token_painting import LineStyles, painted

ADORNMENTS = ("outline_top", "outline_right", "outline_bottom", "outline_left", "hatch", "tint")
"""Style rules by which Textual draws over the lines of a widget."""


class TokenText(ScrollView, can_focus=True):
    """Passages of tokens. With a cursor, the keys move from token to token and choose one; without, they scroll."""

    DEFAULT_CSS = """
    TokenText {
        background: $surface;
        color: $foreground;
        overflow-x: hidden;
        overflow-y: auto;
        scrollbar-gutter: stable;
        scrollbar-size: 0 1;
        & > .token-text--masked { text-style: dim; }
        & > .token-text--differs { color: $text-warning; text-style: bold underline; }
        & > .token-text--positive { color: $text-success; text-style: bold; }
        & > .token-text--negative { color: $text-error; text-style: bold; }
        & > .token-text--cursor { text-style: bold underline; }
        &:focus > .token-text--cursor { text-style: bold reverse; }
    }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "token-text--masked",
        "token-text--differs",
        "token-text--positive",
        "token-text--negative",
        "token-text--cursor",
    }
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(key, action, label, show=False, id=f"tokens.{name}", tooltip=tooltip)
        for key, action, label, name, tooltip in (
            ("left", "step(-1)", "Token left", "left", "The token before"),
            ("right", "step(1)", "Token right", "right", "The token after"),
            ("up", "lines(-1)", "Line up", "up", "The token above"),
            ("down", "lines(1)", "Line down", "down", "The token below"),
            ("home", "edge(-1)", "Start of line", "home", "The first token of the line"),
            ("end", "edge(1)", "End of line", "end", "The last token of the line"),
            ("pageup", "pages(-1)", "Page up", "pageup", "A screenful up"),
            ("pagedown", "pages(1)", "Page down", "pagedown", "A screenful down"),
            ("ctrl+home", "whole(-1)", "First token", "first", "The first token of all"),
            ("ctrl+end", "whole(1)", "Last token", "last", "The last token of all"),
            ("enter", "choose", "Choose", "choose", "What this token is about"),
        )
    ]
    ALLOW_SELECT = False  # a double click chooses a token instead

    visible_whitespace = reactive(False)
    """Whether spaces, tabs and line breaks are drawn."""
    empty_text = reactive("")
    """The text that is shown while there are no passages."""

    @dataclass
    class CursorMoved(Message):
        """The user or `move_to` moved the cursor to another token; `show` and `clear` do not post this."""

        widget: TokenText
        passage: int
        token: int

        @property
        def control(self) -> TokenText:
            """The widget, which Textual's `on` decorator matches."""
            return self.widget

    @dataclass
    class TokenChosen(Message):
        """The user pressed enter on a token or double-clicked it."""

        widget: TokenText
        passage: int
        token: int

        @property
        def control(self) -> TokenText:
            """The widget, which Textual's `on` decorator matches."""
            return self.widget

    def __init__(
        self,
        *,
        show_cursor: bool = True,
        spaced: bool = False,
        empty_text: str = "",
        name: str | None = None,
        id: str | None = None,
        classes: str | None = None,
        disabled: bool = False,
    ) -> None:
        super().__init__(name=name, id=id, classes=classes, disabled=disabled)
        self.show_cursor = show_cursor
        self.spaced = spaced
        self.set_reactive(TokenText.empty_text, empty_text)
        self._passages: list[Passage] = []
        self._placed = Layout(0)
        self._text_width = 0  # the width that the lines are broken for; 0 before the first resize
        self._cursor: tuple[int, int] | None = None
        self._column = 0  # the column that up and down aim at
        self._following = True  # whether the end is in view, and is kept there when tokens arrive
        self._strips: dict[int, Strip] = {}
        self._styles: LineStyles | None = None

    # ---- what is shown

    def show(self, passages: Sequence[Passage]) -> None:
        """Replace all passages. If the tokens are the same as before, lines, scroll position and cursor stay."""
        before, self._passages = self._passages, list(passages)
        if [(p.tokens, p.prefix) for p in before] == [(p.tokens, p.prefix) for p in passages]:
            self._strips.clear()
            self.refresh()
            return
        if self._cursor is not None:
            old, new = ([p.tokens for p in texts[self._cursor[0] :][:1]] for texts in (before, self._passages))
            if old != new:
                self._cursor = None
        self._place()
        self._scroll(0)
        self._following = self.max_scroll_y == 0
        self._keep_cursor_in_view()

    def append(self, tokens: Sequence[str], shades: Sequence[int]) -> None:
        """Append tokens to the last passage. The end stays in view if it was, and a cursor there stays at the end."""
        if not self._passages:
            self.show([Passage(tuple(tokens), tuple(shades))])
            return
        last = self._passages[-1]
        self._passages[-1] = replace(last, tokens=(*last.tokens, *tokens), shades=(*last.shades, *shades))
        if not self._text_width:
            return
        follow = self._following and self.scroll_target_y >= self.scroll_y  # not while the user scrolls up
        cursor_at_end = self._cursor if follow and self._cursor == self._placed.last else None
        changed = self._placed.extend(tokens)
        if self.show_cursor and self._cursor is None:
            self._cursor = self._placed.first
        elif cursor_at_end is not None:
            changed = min(changed, self._placed.row(*cursor_at_end))  # the cursor leaves that line
            self._cursor = self._placed.last
        self._grow()
        self._repaint(range(changed, len(self._placed.lines)))
        if follow:
            self._scroll(self.max_scroll_y)
        self._following = follow

    def _grow(self) -> None:
        """Update the virtual size to the current number of lines.

        Unless the widget's height depends on it, bypass the reactive: it would lay out and paint the whole screen.
        """
        size = Size(self._text_width, len(self._placed.lines))
        if size == self.virtual_size:
            return
        if self.styles.is_auto_height:
            self.virtual_size = size
        else:
            self.set_reactive(TokenText.virtual_size, size)
            self._scroll_update(size)

    def clear(self) -> None:
        """Remove all passages."""
        self.show(())

    def legend(self, maximum: float) -> Text:
        """Return the colours from 0 to `maximum` in a line; ask again when the theme changes, for they depend on it."""
        text = Text("0 ", no_wrap=True, end="")
        for step in range(1, STEPS + 1):
            text.append("█", Style(color=self._style(step).bgcolor))
        return text.append(f" {maximum:.1f}" if maximum >= 1 else f" {maximum:.2g}")

    # ---- the cursor

    @property
    def cursor(self) -> tuple[int, int] | None:
        """The (passage, token) under the cursor; None if there is no cursor."""
        return self._cursor

    def move_to(self, passage: int, token: int) -> None:
        """Move the cursor and scroll it into view. If nothing of the token is drawn, go to the next drawn one."""
        if self._text_width:
            self._go(self._placed.close_to(passage, token))
        elif self.show_cursor:
            self._cursor = (passage, token)

    def _go(self, to: tuple[int, int] | None, keep_column: bool = False) -> None:
        if to is None or not (self.show_cursor and self._passages):
            return
        if to != self._cursor:
            old, self._cursor = self._cursor, to
            for place in (old, to):
                if place is not None:
                    self._repaint(self._placed.rows(*place))
            self.post_message(self.CursorMoved(self, *to))
        if not keep_column:
            self._column = self._placed.x(*to)
        self._keep_cursor_in_view()

    def _repaint(self, rows: range) -> None:
        for row in rows:
            self._strips.pop(row, None)
        self.refresh_lines(rows.start, len(rows))

    def _scroll(self, y: float) -> None:
        self.scroll_to(y=y, animate=False, force=True)

    def _keep_cursor_in_view(self) -> None:
        height = self.scrollable_content_region.height
        if self._cursor is None or not (self._text_width and height):
            return
        row, top = self._placed.row(*self._cursor), round(self.scroll_target_y)
        if not top <= row < top + height:
            self._scroll(row if row < top else row - height + 1)

    # ---- keys and mouse

    def action_step(self, step: int) -> None:
        """Go to the previous or next token."""
        if self._cursor is not None:
            self._go(self._placed.neighbour(*self._cursor, step))

    def action_lines(self, step: int) -> None:
        """Go to the nearest token of the next line that holds another token, up or down."""
        if not self.show_cursor:
            self._scroll(self.scroll_target_y + step)
        elif self._cursor is not None:
            row = self._placed.row(*self._cursor) + step
            self._go(self._placed.from_row(row, step, self._column, self._cursor), keep_column=True)

    def action_edge(self, step: int) -> None:
        """Go to the first or last token of the line."""
        if not self.show_cursor:
            self.action_whole(step)
        elif self._cursor is not None:
            row = self._placed.row(*self._cursor)
            self._go(self._placed.nearest(row, -1 if step < 0 else self._text_width))

    def action_pages(self, step: int) -> None:
        """Go up or down by a screenful."""
        page = max(1, self.scrollable_content_region.height - 1)
        if not self.show_cursor:
            self._scroll(self.scroll_target_y + step * page)
        elif self._cursor is not None:
            row = min(max(0, self._placed.row(*self._cursor) + step * page), len(self._placed.lines) - 1)
            self._go(self._placed.from_row(row, step, self._column, None), keep_column=True)

    def action_whole(self, step: int) -> None:
        """Go to the first or last token of all."""
        if self.show_cursor:
            self._go(self._placed.first if step < 0 else self._placed.last)
        else:
            self._scroll(0 if step < 0 else self.max_scroll_y)

    def action_choose(self) -> None:
        """Post TokenChosen for the token under the cursor."""
        if self._cursor is None:
            raise SkipAction
        self.post_message(self.TokenChosen(self, *self._cursor))

    def on_click(self, event: events.Click) -> None:
        """Move the cursor; the second click of a double click chooses the token."""
        offset = event.get_content_offset(self)
        if offset is None or not (self.show_cursor and self._passages):
            return
        row = offset.y + self.scroll_offset.y
        place = self._placed.nearest(row, offset.x) if row < len(self._placed.lines) else None
        if place is not None:
            self._go(place)
            if event.chain == 2:
                self.action_choose()

    # ---- places

    def on_resize(self) -> None:
        """Break the lines again if the width has changed."""
        width = self.scrollable_content_region.width
        if width and not self._text_width:
            self._place()
            self._following = self.max_scroll_y == 0
        elif width and width != self._text_width:
            self._place_again()
            return
        if self._following and not self.show_cursor:
            self._scroll(self.max_scroll_y)
        self._keep_cursor_in_view()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Remember whether the end is in view."""
        super().watch_scroll_y(old_value, new_value)
        self._following = round(new_value) >= self.max_scroll_y

    def watch_visible_whitespace(self) -> None:
        """Break the lines again, since visible line breaks take room."""
        self._place_again()

    def watch_empty_text(self) -> None:
        """Show the new text if there are no passages."""
        if not self._passages:
            self._place()

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Return the number of lines, for a height of auto."""
        width -= self.scrollbar_size_vertical
        return max(1, len(self._placed.lines if width == self._text_width else self._broken_into(width).lines))

    @property
    def _shown(self) -> list[Passage]:
        return self._passages or [Passage((self.empty_text,), (MASKED,))]

    def _broken_into(self, width: int) -> Layout:
        placed = Layout(width, self.visible_whitespace and bool(self._passages), self.spaced)
        for passage in self._shown:
            placed.add(passage.tokens, cell_len(safe(passage.prefix)))
        return placed

    def _place(self) -> None:
        # a hidden widget has no width: keep the last one until it is resized
        self._text_width = self.scrollable_content_region.width or self._text_width
        if not self._text_width:
            return
        self._strips.clear()
        self._placed = self._broken_into(self._text_width)
        if self.show_cursor and self._passages:
            self._cursor = self._placed.close_to(*(self._cursor or (0, 0)))
        self._column = self._placed.x(*self._cursor) if self._cursor else 0
        self.virtual_size = Size(self._text_width, len(self._placed.lines))
        self.refresh()

    def _place_again(self) -> None:
        """Break the same tokens into lines again; keep the end in view if it was, else the token at the top."""
        top = self._placed.from_row(round(self.scroll_y), 1, -1, None)
        following = self._following and not self.show_cursor
        self._place()
        if following:
            self._scroll(self.max_scroll_y)
        elif top is not None:
            self._scroll(self._placed.row(*top))
        self._keep_cursor_in_view()

    # ---- painting

    def notify_style_update(self) -> None:
        """Forget the painted lines and colours, since the theme or the focus has changed."""
        super().notify_style_update()
        self._strips.clear()
        self._styles = None

    def render_lines(self, crop: Region) -> list[Strip]:
        """Return the lines of a region.

        Without borders and the like, bypass Textual's styles cache, which copies every line in every frame. A strip
        caches how it was filtered, cropped and rendered, so that painting it again is cheap.
        """
        styles = self.styles
        if styles.gutter or styles.has_any_rules(*ADORNMENTS) or self.opacity < 1:
            return super().render_lines(crop)
        strips = [self.render_line(y) for y in crop.line_range]
        background = self.background_colors[1]
        for line_filter in self.get_line_filters():
            strips = [strip.apply_filter(line_filter, background) for strip in strips]
        return [strip.crop_extend(*crop.column_span, self._style(0)) for strip in strips]

    def render_line(self, y: int) -> Strip:
        """Return a line of the widget, `y` counted from its top."""
        row = y + self.scroll_offset.y
        strip = self._strips.get(row)
        if strip is None:
            if row >= len(self._placed.lines):
                return Strip.blank(self._text_width, self._style(0))
            strip = self._strips[row] = self._paint(row)
        return strip

    def _style(self, shade: int) -> Style:
        return self._line_styles.of_shades[shade]

    @property
    def _line_styles(self) -> LineStyles:
        if self._styles is None:
            background, accent = self.background_colors[1], Color.parse(self.app.theme_variables["accent"])
            if background.ansi is not None:  # the terminal's own background, which is unknown
                background = BLACK if self.app.current_theme.dark else WHITE
            masked, differs, cursor, positive, negative = (
                self.get_component_rich_style(f"token-text--{name}", partial=True)
                for name in ("masked", "differs", "cursor", "positive", "negative")
            )
            self._styles = LineStyles(
                self.rich_style,
                token_styles(self.rich_style, masked, differs, background, accent),
                cursor,
                self.has_focus,
                {"positive": positive, "negative": negative},
            )
        return self._styles

    def _paint(self, row: int) -> Strip:
        line = self._placed.lines[row]
        passage = self._shown[line.passage] if line.passage >= 0 else None
        return painted(line, passage, self._cursor, self._line_styles, self._text_width)

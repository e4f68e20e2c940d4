"""Rich's text and console, safe by construction: what the command line prints and the app draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.text
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import StyleType

from engine.records.words.tokens import safe


class Text(rich.text.Text):
    """A text with styles. Whatever is put into it goes through `safe` before it is measured; none of it is markup."""

    def __init__(self, text: str = "", style: StyleType = "", **options: Any) -> None:
        super().__init__(safe(text), style, **options)

    @classmethod
    def assemble(cls, *parts: str | rich.text.Text | tuple[str, StyleType], **options: Any) -> Text:
        """A text of several parts, each with a style where it is a pair."""
        text = cls(**options)
        for part in parts:
            text.append(*part if isinstance(part, tuple) else (part,))
        return text

    def append(self, text: rich.text.Text | str, style: StyleType | None = None) -> Text:
        """Adds a text at the end."""
        super().append(safe(text) if isinstance(text, str) else text, style)
        return self

    def copy(self) -> Text:
        """A text of its own that is as safe: rich's own copy is no longer one of these."""
        look = {name: getattr(self, name) for name in ("justify", "overflow", "no_wrap", "end", "tab_size")}
        copied = Text(self.plain, self.style, **look)
        copied.spans = self.spans.copy()
        return copied


class Terminal(Console):
    """A console that lets nothing through but safe text and rich's own control codes; no string is markup.

    A `Text` is safe before it is measured; this is what holds whatever else is printed, now or later.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of something printed."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=safe(segment.text))

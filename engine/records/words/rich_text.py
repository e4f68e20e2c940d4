"""Rich's text and console made safe by construction, for what the command line prints and the app draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import rich.text
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.style import StyleType

from engine.records.words.safe_text import safe


class Text(rich.text.Text):
    """A text with styles. Everything put into it goes through `safe` before it is measured; none of it is markup."""

    def __init__(self, text: str = "", style: StyleType = "", **options: Any) -> None:
        super().__init__(safe(text), style, **options)

    @classmethod
    def assemble(cls, *parts: str | rich.text.Text | tuple[str, StyleType], **options: Any) -> Text:
        """Return a text made of several parts, each either plain or a pair of text and style."""
        text = cls(**options)
        for part in parts:
            text.append(*part if isinstance(part, tuple) else (part,))
        return text

    def append(self, text: rich.text.Text | str, style: StyleType | None = None) -> Text:
        """Append a text at the end."""
        super().append(safe(text) if isinstance(text, str) else text, style)
        return self

    def copy(self) -> Text:
        """Return a copy that is as safe; the copy that rich's own method makes is a plain rich text."""
        look = {name: getattr(self, name) for name in ("justify", "overflow", "no_wrap", "end", "tab_size")}
        copied = Text(self.plain, self.style, **look)
        copied.spans = self.spans.copy()
        return copied


class Terminal(Console):
    """A console that prints nothing but safe text and rich's own control codes; no string is markup.

    A `Text` is safe before it is measured. The console makes safe anything else that is printed, now or later.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the segments of a renderable, with their text made safe."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=safe(segment.text))

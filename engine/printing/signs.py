"""Tokens, texts and activations as they look on a terminal.

The activation colour is one hue from the background up, lightness carrying the value; the number stands beside it
wherever it matters, so nothing is lost without colour.
"""

from __future__ import annotations

from collections.abc import Sequence

from engine.safe_rich import Text
from engine.safe_text import visible

STEPS = 16
BLOCKS = " ▏▎▍▌▋▊▉█"
LOW, HIGH = (38, 38, 38), (255, 176, 0)


def shade(value: float, maximum: float) -> str:
    """The background for an activation, in STEPS steps; "" where the feature is silent."""
    if value <= 0 or maximum <= 0:
        return ""
    share = max(1, round(min(1.0, value / maximum) * STEPS)) / STEPS
    rgb = [round(low + (high - low) * share) for low, high in zip(LOW, HIGH, strict=True)]
    return f"{'black' if share > 0.55 else 'white'} on rgb({rgb[0]},{rgb[1]},{rgb[2]})"


def tokens_in_words(tokens: Sequence[str]) -> Text:
    """Such as "gender · sex"."""
    return Text(" · ".join(visible(token).strip() or visible(token) for token in tokens))


def short(text: str, limit: int = 60) -> str:
    """Text cut to a length."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def bar(value: float, most: float, width: int) -> str:
    """A bar of block characters, eighths of a cell long; whatever is above 0 can be seen."""
    if value <= 0 or most <= 0:
        return ""
    eighths = max(1, round(value / most * width * 8))
    return "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()

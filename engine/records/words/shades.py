"""The colours of activations: one hue from the background to the accent, in steps; lightness shows the value.

The app's themes, and the colours of its tokens made from them, are in tui/widgets/colours.py.
"""

from __future__ import annotations

STEPS = 16

ACCENT = "#ffb000"
"""The colour of the last step on a dark background."""

FIRST = "#262626"
"""The colour from which a terminal's steps start."""


def step_of(value: float, maximum: float) -> int:
    """Return an activation as a step: 0 if the feature is silent, else 1 to STEPS, the maximum being STEPS."""
    if not (value > 0 and maximum > 0):  # written so that NaN counts as silent
        return 0
    return max(1, round(min(1.0, value / maximum) * STEPS))


def shade(value: float, maximum: float) -> str:
    """Return an activation's style on a terminal; "" if the feature is silent."""
    share = step_of(value, maximum) / STEPS
    if not share:
        return ""
    low, high = (bytes.fromhex(colour[1:]) for colour in (FIRST, ACCENT))
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(low, high, strict=True))
    return f"{'black' if share > 0.55 else 'white'} on rgb({red},{green},{blue})"

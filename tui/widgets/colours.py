"""The app's colours: its themes, and the colours of tokens, which go from the background to the theme's accent."""

from __future__ import annotations

from rich.style import Style
from textual.color import BLACK, WHITE, Color, Lab, lab_to_rgb, rgb_to_lab
from textual.theme import Theme

from engine.records.words.shades import ACCENT, STEPS

DARK = Theme(
    name="saescope-dark", dark=True,
    primary="#7aa2f7", secondary="#9ece6a", accent=ACCENT, warning="#ff8c42", error="#f7768e", success="#73c991",
    foreground="#d8dce4", background="#14161b", surface="#1a1d23", panel="#272b34", boost="#22262e",
)  # fmt: skip

LIGHT = Theme(
    name="saescope-light", dark=False,
    primary="#1f5fbf", secondary="#3a7d2c", accent="#b45309", warning="#a84300", error="#b3261e", success="#1c7c3c",
    foreground="#1d2129", background="#f4f5f7", surface="#ffffff", panel="#dfe3ea", boost="#eceff4",
)  # fmt: skip

# ---- tokens

MASKED, DIFFERS, TURNED, TURNED_DIFFERS = -1, -2, -3, -4
"""Shades of tokens that show no activation: masked, other than in the other arm, under other edits, both of these."""

FAINTEST = 0.12
"""How far the first step's colour is from the background, as a share of the way to the accent: it must be visible."""

TURNED_TINT = 0.16
"""How far the background of tokens under other edits is from the plain one, as a share of the way to white or black."""

LIGHTNESS_RANGE = 55
"""The least difference in lightness, of 100, of last step and background: the accent may be as light as the latter."""


def gradient(background: Color, accent: Color) -> list[Color]:
    """Return the colours of the steps 1 to STEPS."""
    low, high = rgb_to_lab(background), rgb_to_lab(accent)
    away = LIGHTNESS_RANGE if low.L < 50 else -LIGHTNESS_RANGE
    top = max(high.L, low.L + away) if away > 0 else min(high.L, low.L + away)
    colours = []
    for step in range(STEPS):
        share = FAINTEST + (1 - FAINTEST) * step / (STEPS - 1)
        a, b = (start + (end - start) * share for start, end in ((low.a, high.a), (low.b, high.b)))
        colours.append(lab_to_rgb(Lab(low.L + (top - low.L) * share, a, b)).clamped)
    return colours


def token_styles(plain: Style, masked: Style, differs: Style, background: Color, accent: Color) -> dict[int, Style]:
    """Return the style of every shade: 0 for a plain token, the steps 1 to STEPS, MASKED and so on."""
    tint = Style(bgcolor=background.blend(BLACK if background.brightness > 0.5 else WHITE, TURNED_TINT).rich_color)
    styles = {
        0: plain,
        MASKED: plain + masked,
        DIFFERS: plain + differs,
        TURNED: plain + tint,
        TURNED_DIFFERS: plain + differs + tint,
    }
    for step, colour in enumerate(gradient(background, accent), 1):
        text = WHITE if rgb_to_lab(colour).L < 50 else BLACK
        styles[step] = plain + Style.from_color(text.rich_color, colour.rich_color)
    return styles

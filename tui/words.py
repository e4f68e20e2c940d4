"""How the app words what several panes show: features, strengths, tokens, numbers."""

from __future__ import annotations

from collections.abc import Sequence

from tui.token_layout import safe


def token_in_words(token: str) -> str:
    """A token safe to show on one line, its line breaks and tabs visible."""
    return safe(token).replace("\n", "⏎").replace("\t", "⇥")


def tokens_in_words(tokens: Sequence[str]) -> str:
    """Such as "gender · sex"."""
    return " · ".join(token_in_words(t).strip() or repr(t) for t in tokens)


def feature_in_words(feature: int, label: str, tokens: Sequence[str]) -> str:
    """Such as "#4133 gender · sex"; the user's own label takes the tokens' place."""
    words = label or tokens_in_words(tokens)
    return f"#{feature} {words}" if words else f"#{feature}"


def count_in_words(count: int, noun: str) -> str:
    """Such as "1 ranking" or "3 rankings"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def strength_in_words(scale: float) -> str:
    """What an edit does: "ablate" or a factor."""
    return "ablate" if scale == 0 else f"× {scale:g}"


def size_in_words(size: int) -> str:
    """Bytes as "3.2 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

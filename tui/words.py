"""How the app words what several panes show: features, tokens, numbers."""

from __future__ import annotations

from collections.abc import Sequence

from engine.records import EditsFrom
from engine.records.words.edits import edits_in_short
from engine.records.words.tokens import visible

MOST_DIGITS = 20


def in_a_field(text: str) -> str:
    """A text for a field of one line, its line breaks visible."""
    return text.replace("\n", "⏎")


def from_a_field(text: str) -> str:
    """The reverse of `in_a_field`."""
    return text.replace("⏎", "\n")


def tokens_in_words(tokens: Sequence[str]) -> str:
    """Such as "gender · sex"."""
    return " · ".join(visible(t).strip() or repr(t) for t in tokens)


def feature_in_words(feature: int, label: str, tokens: Sequence[str]) -> str:
    """Such as "#4133 gender · sex"; the user's own label takes the tokens' place."""
    words = label or tokens_in_words(tokens)
    return f"#{feature} {words}" if words else f"#{feature}"


def count_in_words(count: int, noun: str) -> str:
    """Such as "1 ranking" or "3 rankings"."""
    return f"{count} {noun}" + ("" if count == 1 else "s")


def schedule_in_words(schedule: Sequence[EditsFrom]) -> str:
    """Such as "no edits → from token 12: 4133 ablate"."""
    return " → ".join(map(change_in_words, schedule))


def change_in_words(change: EditsFrom) -> str:
    """Such as "from token 12: 4133 ablate"; the edits alone where they are those from the start."""
    start = f"from token {change.token_index + 1}: " if change.token_index else ""
    return start + edits_in_short(change.edits)


def size_in_words(size: int) -> str:
    """Bytes as "3.2 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def is_whole(text: str, least: int, most: int) -> bool:
    """Whether a field holds a whole number in this range; Python reads no number of thousands of digits."""
    digits = text.strip()
    return digits.isdecimal() and len(digits) <= MOST_DIGITS and least <= int(digits) <= most

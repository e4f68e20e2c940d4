"""Features in words: their tokens, and their names."""

from __future__ import annotations

from collections.abc import Sequence

from engine.records.words.safe_text import visible

NO_LENS = "No logit lens: no straight way is known from the hook point to the logits of this model."


def tokens_in_words(tokens: Sequence[str]) -> str:
    """Return tokens as "gender · sex"."""
    return " · ".join(visible(t).strip() or repr(t) for t in tokens)


def feature_in_words(feature: int, label: str, tokens: Sequence[str]) -> str:
    """Return a feature as "#4133 gender · sex"; the user's own label takes the place of the tokens."""
    words = label or tokens_in_words(tokens)
    return f"#{feature} {words}" if words else f"#{feature}"

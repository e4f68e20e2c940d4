"""How the app words what several panes show: features, edits, tokens, numbers."""

from __future__ import annotations

from collections.abc import Sequence

from engine import words
from engine.records import Edit, EditsFrom, Positions
from tui.token_layout import safe

PLACES: dict[Positions, str] = {
    "all": "all tokens",
    "prompt": "prompt",
    "generated": "generated",
    "last": "last of prompt",
    "first-step": "first step",
}
RECONSTRUCTS = "reconstruct"


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


def strength_in_words(edit: Edit) -> str:
    """What an edit does, in few letters: "ablate", "×0.125", "= 2 max", "steer +2", "project out"."""
    match edit.kind:
        case "scale":
            return "ablate" if edit.strength == 0 else f"×{edit.strength:g}"
        case "set":
            return f"= {edit.strength:g} max"
        case "steer":
            return f"steer {edit.strength:+g}"
        case "project":
            return "project out" if edit.strength == 0 else f"project ×{edit.strength:g}"
        case "reconstruct":
            return RECONSTRUCTS


def edit_in_words(edit: Edit) -> str:
    """Such as "4133 ×0.125 (prompt)"; a reconstruction, which is about all features, is called lossy."""
    what = f"{RECONSTRUCTS}, lossy" if edit.kind == "reconstruct" else f"{edit.feature} {strength_in_words(edit)}"
    return what if edit.at == "all" else f"{what} ({PLACES[edit.at]})"


def edits_in_words(edits: Sequence[Edit]) -> str:
    """All of them; many are counted."""
    if len(edits) > words.EDITS_SPELLED_OUT:
        return words.edits_in_words(edits)
    return ", ".join(map(edit_in_words, edits)) or "no edits"


def schedule_in_words(schedule: Sequence[EditsFrom]) -> str:
    """Such as "no edits → from token 12: 4133 ablate"."""
    first, *later = schedule
    changes = [f" → from token {c.token_index + 1}: {edits_in_words(c.edits)}" for c in later]
    return edits_in_words(first.edits) + "".join(changes)


def size_in_words(size: int) -> str:
    """Bytes as "3.2 GB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"

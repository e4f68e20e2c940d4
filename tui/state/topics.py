"""The parts of a study: a study names the part that has changed, and the main screen shows it again."""

from __future__ import annotations

from enum import Enum, auto


class Topic(Enum):
    """A part of a study that has changed."""

    ALL = auto()
    """All parts, also when another study is opened."""
    PROMPTS = auto()
    QUESTION = auto()
    """The question and its settings; not told while the user types, for the field shows that already."""
    EDITS = auto()
    RANKING = auto()
    """The ranking or the attribution, or which features are pinned."""
    NAMES = auto()
    """The names of features."""
    SESSION = auto()
    """The session's file, and whether it is up to date."""

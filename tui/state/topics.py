"""What of a study has changed: the study tells it, whoever shows that part looks again."""

from __future__ import annotations

from enum import Enum, auto


class Topic(Enum):
    """A part of a study."""

    ALL = auto()
    """It is another study."""
    PROMPTS = auto()
    QUESTION = auto()
    """The question, and how it is asked. What is typed into it is not told: the field shows it already."""
    EDITS = auto()
    RANKING = auto()
    """The ranking or the attribution, or which features are pinned."""
    NAMES = auto()
    """What features are called."""
    SESSION = auto()
    """Which file holds it, and how much of it."""

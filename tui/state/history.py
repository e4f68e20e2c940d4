"""A workspace as it is now, how often it was changed, and what undo brings back.

Every change raises `version`, which is how the autosave knows that there is something to save, and is told.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.files.session import Workspace
from tui.state.topics import Topic

UNDO_STEPS = 100


class History:
    """The workspace, changed one field at a time."""

    def __init__(self, workspace: Workspace) -> None:
        self.now = workspace
        self.version = 0
        self.tell: Callable[[Topic], None] = lambda topic: None
        """Hears of every change: the screen."""
        self._undo: list[dict[str, object]] = []
        """What each change replaced: the prompts, or the list of edits."""

    def set(self, **changes: object) -> None:
        """Changes fields of the workspace."""
        self.now = msgspec.structs.replace(self.now, **changes)
        self.version += 1

    def remember(self, field: str) -> None:
        """Makes the change of a field that comes next a step of undo."""
        self._undo = [*self._undo[-UNDO_STEPS:], {field: getattr(self.now, field)}]

    def undo(self) -> bool:
        """Takes back the last change of prompts, or of which edits are in the list; False where there is none."""
        if not self._undo:
            return False
        self.set(**self._undo.pop())
        self.tell(Topic.PROMPTS)
        self.tell(Topic.EDITS)
        return True

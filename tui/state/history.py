"""The current workspace, the count of its changes, and the steps of undo.

Every change raises `version`, from which the autosave knows that there is something to save.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from engine.files.session import Workspace
from tui.state.topics import Topic

UNDO_STEPS = 100


class History:
    """The workspace, its version and its undo steps."""

    def __init__(self, workspace: Workspace) -> None:
        self.now = workspace
        self.version = 0
        self.tell: Callable[[Topic], None] = lambda topic: None
        """Called with the part that has changed; the main screen shows it."""
        self._undo: list[dict[str, object]] = []
        """The fields that each change replaced: the prompts, or the list of edits."""

    def set(self, **changes: object) -> None:
        """Change fields of the workspace."""
        self.now = msgspec.structs.replace(self.now, **changes)
        self.version += 1

    def remember(self, field: str) -> None:
        """Store the field's value, so that its next change can be undone."""
        self._undo = [*self._undo[-UNDO_STEPS:], {field: getattr(self.now, field)}]

    def undo(self) -> bool:
        """Undo the last change of the prompts or of which edits are in the list; return False if there is none."""
        if not self._undo:
            return False
        self.set(**self._undo.pop())
        self.tell(Topic.PROMPTS)
        self.tell(Topic.EDITS)
        return True

"""What the app starts with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tui.state.study import Study

if TYPE_CHECKING:
    from engine.files.autosave import AutosaveStore
    from engine.serving.client import LiveEngine


@dataclass(frozen=True)
class Opening:
    """The first study, and functions that import and make the engine and the store, called after the first paint."""

    study: Study
    make_engine: Callable[[], LiveEngine]
    make_store: Callable[[], AutosaveStore]
    offer_last: bool = False
    """Whether to offer the last session, since the command line names nothing to open."""

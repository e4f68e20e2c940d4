"""What the app is opened with."""

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
    """The engine and the store are made, and imported, only once there is something to see."""

    study: Study
    make_engine: Callable[[], LiveEngine]
    make_store: Callable[[], AutosaveStore]
    offer_last: bool = False
    """Whether the last session is offered, because nothing was asked for."""

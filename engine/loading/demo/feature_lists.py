"""Packaged feature lists of the demo SAE, written `@name` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from engine.records.errors import EditError

LISTS = {"gender": Path(__file__).with_name("features.json")}


def read(name: str) -> list[int]:
    """Return the features of a list. Raises EditError for an unknown name."""
    if name not in LISTS:
        known = ", ".join(f"@{known}" for known in LISTS)
        raise EditError(f"There is no feature list @{name}.", f"Packaged lists: {known}.")
    return [int(f) for f in json.loads(LISTS[name].read_text("utf-8"))["features"]]

"""What the app remembers between sessions, apart from work: the theme."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs


def _file() -> Path:
    return Path(platformdirs.user_state_dir("saescope")) / "preferences.json"


def theme() -> str | None:
    """The theme chosen last; None where none was, or the file cannot be read."""
    try:
        found = json.loads(_file().read_text("utf-8"))
    except (OSError, ValueError):
        return None
    name = found.get("theme") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def remember_theme(name: str) -> None:
    """Keeps the theme. A folder that cannot be written costs the memory, no more."""
    try:
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _file().write_text(json.dumps({"theme": name}) + "\n", "utf-8")
    except OSError:
        return

"""What the app remembers between sessions, apart from work: the theme."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs

from engine.files.paths import contents, set_aside


def _file() -> Path:
    return Path(platformdirs.user_state_dir("saescope")) / "preferences.json"


def theme() -> tuple[str | None, str]:
    """The theme chosen last, None where none is known; and what is wrong with the file, "" if nothing is.

    A damaged file is set aside: the next theme that is chosen would be written over it.
    """
    path = _file()
    try:
        found = json.loads(contents(path))
        name = found.get("theme") if isinstance(found, dict) else found
        if not isinstance(name, str | None):
            raise ValueError("it names no theme")
        return name, ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path} cannot be read: {error.strerror}."
    except (ValueError, RecursionError) as error:
        return None, f"{path} is damaged: {error}. {set_aside(path)}"


def remember_theme(name: str) -> None:
    """Keeps the theme. A folder that cannot be written costs the memory, no more."""
    try:
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _file().write_text(json.dumps({"theme": name}) + "\n", "utf-8")
    except OSError:
        return

"""The user's preferences, kept between sessions: the theme."""

from __future__ import annotations

import json
from pathlib import Path

import platformdirs

from engine.files.paths import contents, set_aside


def _file() -> Path:
    return Path(platformdirs.user_state_dir("saescope")) / "preferences.json"


def theme() -> tuple[str | None, str]:
    """Return the theme chosen last, None if none is known, and what is wrong with the file, "" if nothing is.

    Set a damaged file aside, for the next choice of a theme would overwrite it.
    """
    path = _file()
    try:
        data = json.loads(contents(path))
        name = data.get("theme") if isinstance(data, dict) else data
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
    """Keep the theme; where the folder cannot be written, do nothing."""
    try:
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _file().write_text(json.dumps({"theme": name}) + "\n", "utf-8")
    except OSError:
        return

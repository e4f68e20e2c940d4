"""The files that the app itself keeps in the user's state folder: the theme chosen last, and the log of defects.

The log is there so that the user reads a sentence and never a traceback.
"""

from __future__ import annotations

import json
import os
import traceback
from pathlib import Path

import platformdirs

from engine.files.paths import contents, set_aside
from engine.records.words.safe_text import safe

CRASH_FILE = "crash.log"

PREFERENCES_FILE = "preferences.json"


def _file(name: str) -> Path:
    return Path(platformdirs.user_state_dir("saescope")) / name


# ---- the log of defects


def keep_details() -> str:
    """Append the traceback of the exception being handled to the crash log; return a sentence on where that is."""
    log = _file(CRASH_FILE)
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
            file.write(safe(traceback.format_exc()) + "\n")
    except OSError as error:
        return f"The details could not be written to {log}: {error.strerror}."
    return f"The details are in {log}."


# ---- preferences


def theme() -> tuple[str | None, str]:
    """Return the theme chosen last, None if none is known, and what is wrong with the file, "" if nothing is.

    Set a damaged file aside, for the next choice of a theme would overwrite it.
    """
    path = _file(PREFERENCES_FILE)
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
        _file(PREFERENCES_FILE).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _file(PREFERENCES_FILE).write_text(json.dumps({"theme": name}) + "\n", "utf-8")
    except OSError:
        return

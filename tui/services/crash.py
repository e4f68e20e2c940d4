"""The log file of defects, so that the user reads a sentence and never a traceback."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import platformdirs

from engine.records.words.safe_text import safe

CRASH_FILE = "crash.log"


def keep_details() -> str:
    """Append the traceback of the exception being handled to the crash log; return a sentence on where that is."""
    log = Path(platformdirs.user_state_dir("saescope")) / CRASH_FILE
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
            file.write(safe(traceback.format_exc()) + "\n")
    except OSError as error:
        return f"The details could not be written to {log}: {error.strerror}."
    return f"The details are in {log}."

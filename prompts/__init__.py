"""Prompt sets as TOML files, and the neutral text. `load("gender_bias")` or `load("my.toml")`.

A set holds `[[positive]]` prompts that show a behaviour, `[[negative]]` ones that do not, and `[[probe]]` questions
that measure it. `importer.read_prompts` reads prompts from other files, `writer.write` saves a set. Imports nothing
else of saescope.
"""

from prompts.loader import (
    NEUTRAL_TEXT,
    Entry,
    ProbeEntry,
    PromptSetError,
    PromptSetFile,
    Settings,
    find,
    load,
    packaged,
)

__all__ = [
    "NEUTRAL_TEXT",
    "Entry",
    "ProbeEntry",
    "PromptSetError",
    "PromptSetFile",
    "Settings",
    "find",
    "load",
    "packaged",
]

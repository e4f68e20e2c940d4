"""The command line that reproduces a recorded text."""

from __future__ import annotations

from typing import Any

from engine.files.export.nnsight_script import _quoted
from engine.records import Generate, Load, Sampling
from engine.records.edits import edit_forms
from engine.records.texts import SAMPLING
from engine.records.words.edits import spelled, spelled_list


def command_line(load: Load, request: Generate) -> str:
    """Return the `saescope generate` command that reproduces the request, quoted for a shell, without default options.

    A command cannot express a schedule: of a branched text it generates only the beginning again.
    """
    at, edits = spelled(request.edits)
    options = [
        (name, getattr(load, name)) for name in Load.__struct_fields__ if getattr(load, name) != getattr(Load(), name)
    ]
    options += edits
    options += [("at", at)] if at != "all" else []
    options += _sampling(request.sampling)
    options += [("prefill", request.prefill)] if request.prefill else []
    options += [("samples", request.samples)] if request.samples > 1 else []
    options += [("variant", spelled_list(variant, at)) for variant in request.variants]
    raw, question = request.prompt.format == "raw", request.prompt.text
    words = ["--raw"] * raw + ["--compare"] * bool(request.edits)
    words += [word for name, value in options if value is not None for word in _option(name, str(value))]
    # after "--" no word is taken for an option
    words += ["--", question] if question.startswith("-") else [question]
    return " ".join(map(_quoted, ["saescope", "generate", *words]))


def _sampling(sampling: Sampling) -> list[tuple[str, Any]]:
    usual, options = Sampling(), []
    for setting in SAMPLING:
        value = getattr(sampling, setting.field)
        if value != getattr(usual, setting.field):
            options += [(setting.field, one) for one in (value if setting.repeats else (value,))]
    return options


def _option(name: str, value: str) -> list[str]:
    """Return one option as words; a value that looks like an option itself is joined to its name by =."""
    flag = f"--{name.replace('_', '-')}"
    if name in edit_forms() and not edit_forms()[name][1].takes:
        return [flag]
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]

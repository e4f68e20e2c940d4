"""The command line that does the same as a recorded text."""

from __future__ import annotations

from typing import Any

from engine.files.export.nnsight_script import _quoted
from engine.records import Generate, Load, Sampling
from engine.records.words.edits import spelled, spelled_list


def command_line(load: Load, request: Generate) -> str:
    """The `saescope generate` command that does the same, quoted for a shell. What is as by default is left out.

    A schedule cannot be said in a command: of a branch it is the beginning that is generated again.
    """
    at, edits = spelled(request.edits)
    options = [(name, getattr(load, name)) for name in Load.__struct_fields__]
    options += edits
    options += [("at", at)] if at != "all" else []
    options += _sampling(request.sampling)
    options += [("prefill", request.prefill)] if request.prefill else []
    options += [("samples", request.samples)] if request.samples > 1 else []
    options += [("variant", spelled_list(variant, at)) for variant in request.variants]
    raw, question = request.prompt.format == "raw", request.prompt.text
    words = ["--raw"] * raw + ["--compare"] * bool(request.edits)
    words += [word for name, value in options if value is not None for word in _option(name, str(value))]
    # behind "--" nothing is taken for an option
    words += ["--", question] if question.startswith("-") else [question]
    return " ".join(map(_quoted, ["saescope", "generate", *words]))


def _sampling(sampling: Sampling) -> list[tuple[str, Any]]:
    usual = Sampling()
    names = [name for name in Sampling.__struct_fields__ if name != "stop"]
    numbers = [(name, value) for name in names if (value := getattr(sampling, name)) != getattr(usual, name)]
    return numbers + [("stop", string) for string in sampling.stop]


def _option(name: str, value: str) -> list[str]:
    """One option as words; a value that looks like an option itself is tied to its name."""
    flag = f"--{name.replace('_', '-')}"
    if name == "reconstruct":
        return [flag]
    return [f"{flag}={value}"] if value.startswith("-") else [flag, value]

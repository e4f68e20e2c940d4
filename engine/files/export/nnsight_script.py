"""A script on nnsight alone that reproduces what the app shows without saescope, and quoting for shells.

Writes text; knows nothing about torch.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from engine.files.export import script_parts as parts
from engine.records import Edit, Generate, Load, Loaded
from engine.records.edits import DEFAULT_KIND, EDIT_KINDS, EditKind, Linear, amount_of, has_no_amount
from engine.records.words.edits import edit_in_words, edit_notes
from engine.records.words.safe_text import UNKNOWN, safe

WIDTH = 110

WITH_LINES_OF_THEIR_OWN: tuple[EditKind, ...] = ("project", "reconstruct")
"""The kinds without a slot that a script can do."""


def _quoted(word: str) -> str:
    """Return a word quoted for a shell.

    A word with characters that a terminal would obey is written in bash's and zsh's $'…', with these characters as
    bytes.
    """
    if safe(word, UNKNOWN) == word:
        return shlex.quote(word)
    return f"$'{''.join(map(_in_bytes, word))}'"


def _in_bytes(letter: str) -> str:
    if safe(letter, UNKNOWN) == letter and letter not in "'\\":
        return letter
    # surrogates are the odd bytes of a file name, as argv has them
    errors = "surrogateescape" if "\udc80" <= letter <= "\udcff" else "replace"
    return "".join(f"\\{byte:03o}" for byte in letter.encode("utf-8", errors))


def is_plain(loaded: Loaded, load: Load, edits: Sequence[Edit]) -> bool:
    """Return whether a few lines of torch suffice: a local SAELens folder, relu or jumprelu, and edits of features."""
    local = load.sae is None or load.sae.startswith(("/", "~", ".")) or not load.sae.count("/")
    simple = loaded.encoder in ("standard", "jumprelu") and loaded.normalisation in parts.INPUTS
    files = local and loaded.sae_format in ("SAELens", "") and not (loaded.centered or loaded.rescaled)
    return files and simple and all(EDIT_KINDS[edit.kind].slot for edit in edits)


def nnsight_snippet(loaded: Loaded, load: Load, request: Generate, sink_norm: float | None = None) -> str:
    """Return a Python script that reproduces the edited text, greedily, with transformers, nnsight and safetensors.

    If the SAE or an edit needs more than a few lines, the script imports that part from saescope. An edit
    that needs its absolute strength and does not have it, or is of a kind that the script cannot do, is left out, and
    the script says so. `sink_norm`, in
    the model's units, is the norm above which a vector counts as an attention sink; None leaves that mask out of the
    script.
    """
    edits = [edit for edit in request.edits if not _left_out(edit)]
    side, _, path = loaded.hook_module.partition(" of ")
    # a local version such as 2.13.0+cu129 is not on the package index
    versions = {name: version.partition("+")[0] for name, version in loaded.versions.items()}
    plain = is_plain(loaded, load, edits)
    packages = parts.PACKAGES if plain else ("saescope", *parts.PACKAGES)
    demo = "" if load.model and load.sae else parts.DEMO
    inputs = parts.INPUTS.get(loaded.normalisation, "")
    return parts.SCRIPT.format(
        hook=loaded.hook_module,  # a module's path: no character in it can end a comment
        notes=_notes(request.edits),
        packages=" ".join(f"{name}=={versions[name]}" if name in versions else name for name in packages),
        imports=(parts.IMPORTS if plain else parts.LIBRARY_IMPORTS).format(demo=demo),
        sae_weights=(parts.WEIGHTS if plain else parts.LIBRARY_WEIGHTS).format(device=loaded.device),
        activations=parts.ACTIVATIONS.format(inputs=inputs) if plain else parts.LIBRARY_ACTIVATIONS,
        # an input is changed in place: the block also uses the vector itself, past the hooked module
        put=f"node.{side}[:] = edited(node.{side}, step)"
        if side == "input"
        else f"node.{side} = edited(node.{side}, step)",
        model=f"demo_model(torch.{loaded.dtype})" if load.model is None else repr(load.model),
        sae=_sae_path(load, plain),
        question=repr(request.prompt.text),
        dtype=loaded.dtype,
        puts_bos=loaded.raw_bos if request.prompt.format == "raw" else loaded.chat_bos,
        device=loaded.device,
        other_outputs=parts.OTHER_OUTPUTS if side == "output" else "",
        sinks=parts.SINKS_UNKNOWN if sink_norm is None else parts.SINKS.format(norm=sink_norm),
        path=path,
        max_tokens=request.sampling.max_tokens,
        stop=f"STOP = {request.sampling.stop!r}\n" if request.sampling.stop else "",
        stopped=parts.STOPPED if request.sampling.stop else "",
        unless=" and not stopped(new)" if request.sampling.stop else "",
        **_prompt(request),
        **_edits(edits, loaded.device),
    )


def _left_out(edit: Edit) -> str:
    """Say why the script cannot do an edit; "" if it can."""
    if has_no_amount(edit):
        return "generate with it first, then its amount is known"
    if EDIT_KINDS[edit.kind].slot is None and edit.kind not in WITH_LINES_OF_THEIR_OWN:
        return "this script has no lines for it; `saescope generate` does it"
    return ""


def _notes(edits: Sequence[Edit]) -> str:
    """Return what a reader of the script has to know about the edits, as comments."""
    notes = edit_notes(edits)
    for edit in edits:
        if reason := _left_out(edit):
            notes.append(f"left out: {edit_in_words(edit)}; {reason}")
    return "".join(textwrap.fill(note, WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n" for note in notes)


def _prompt(request: Generate) -> dict[str, str]:
    """Return the script's parts about the prompt."""
    raw, prefill = request.prompt.format == "raw", request.prefill
    text = request.prompt.text
    # raw text continues without a break, but a prefill starts a new word
    gap = " " if raw and prefill and text and not text[-1].isspace() and not prefill[0].isspace() else ""
    prompt = "text = QUESTION" if raw else parts.CHAT
    if not prefill:
        return {"prompt": prompt, "prefill": ""}
    return {"prompt": prompt + " + PREFILL", "prefill": f"PREFILL = {gap + prefill!r}\n"}


def _sae_path(load: Load, plain: bool) -> str:
    """Return the SAE's location as an expression."""
    if load.sae is None:
        return parts.DEMO_SAE if plain else f"str({parts.DEMO_SAE})"
    return f"Path({load.sae!r}).expanduser()" if plain else repr(load.sae)


def _edits(edits: Sequence[Edit], device: str) -> dict[str, str]:
    """Return the script's parts about the edits: which they are, their amounts, where they act, what they do."""
    features = [edit for edit in edits if EDIT_KINDS[edit.kind].slot]
    projected = [edit for edit in edits if edit.kind == "project"]
    whole = [edit for edit in edits if edit.kind == "reconstruct"]
    kinds: dict[int, EditKind] = {edit.feature: edit.kind for edit in features if edit.kind != DEFAULT_KIND}
    places = {edit.feature: edit.at for edit in features if edit.at != "all"}
    lines = [_dict("EDITS", {e.feature: amount_of(e) for e in features}, "feature: factor, 0 ablates")]
    lines += [_dict("KIND", kinds, _amounts_explained(kinds.values()))] * bool(kinds)
    lines += [_dict("AT", places, "where it is not everywhere")] * bool(places)
    if projected:
        amounts = {edit.feature: edit.strength for edit in projected}
        lines.append(_dict("PROJECT", amounts, "what is left of the vectors along these directions"))
    acts = "acts" if places else parts.ACTS_EVERYWHERE
    change = [parts.ACTS] if places else []
    change += [parts.RECONSTRUCT.format(place=parts.place(edit.at)) for edit in whole]
    change.append((parts.CHANGED if kinds else parts.SCALED).format(acts=acts))
    change += [parts.PROJECT.format(place=parts.place(projected[0].at))] if projected else []
    numbers = parts.GAIN_OFFSET_PUSH if kinds else parts.GAIN
    return {
        "edits": "\n".join(lines),
        "amounts": numbers.format(device=device, default=DEFAULT_KIND, **_maths(kinds.values())),
        "units": parts.UNITS.format(device=device) if projected else "",
        "where": parts.WHERE if any(edit.at != "all" for edit in edits) else "",
        "change": "".join(change),
    }


def _amounts_explained(kinds: Iterable[EditKind]) -> str:
    """Return what an edit's amount does, such as "set: f becomes the amount"."""
    slots = {kind: EDIT_KINDS[kind].slot for kind in kinds}
    return "; ".join(f"{kind}: {slot.amount_is}" for kind, slot in slots.items() if slot)


def _maths(kinds: Iterable[EditKind]) -> dict[str, str]:
    """Return gain, offset and push, each as a dict of expressions in the amount x by kind."""
    slots = {kind: slot for kind in (DEFAULT_KIND, *kinds) if (slot := EDIT_KINDS[kind].slot)}
    maths = {}
    for name in ("gain", "offset", "push"):
        expressions = [f"{kind!r}: {_expression(getattr(slot, name))}" for kind, slot in slots.items()]
        maths[name] = f"{{{', '.join(expressions)}}}"
    return maths


def _expression(number: Linear) -> str:
    """Return a number as a Python expression in the amount x, such as "x - 1"."""
    if not number.factor:
        return repr(number.constant)
    term = "x" if number.factor == 1 else f"{number.factor!r} * x"
    if not number.constant:
        return term
    return f"{term} {'-' if number.constant < 0 else '+'} {abs(number.constant):g}"


def _dict(name: str, items: Mapping[int, float | str], comment: str) -> str:
    """Return an assignment of a dict with its comment, wrapped if it does not fit on one line."""
    texts = [f"{key}: {value!r}" for key, value in items.items()]
    line = f"{name} = {{{', '.join(texts)}}}  # {comment}"
    if len(line) <= WIDTH:
        return line
    body = textwrap.fill(", ".join(texts) + ",", WIDTH, initial_indent="    ", subsequent_indent="    ")
    return f"{name} = {{  # {comment}\n{body}\n}}"

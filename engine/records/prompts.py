"""Prompts, probes, prompt sets, and prompts as they are fed to the model."""

from __future__ import annotations

import msgspec

from engine.records.base import Format, Record


class Prompt(Record, frozen=True):
    """One prompt; `chat` puts it through the model's chat template."""

    text: str
    format: Format = "raw"
    breaks: str = ""
    """For a negative prompt: the confound it rules out, such as "women without bias"."""


class Answer(Record, frozen=True):
    """An answer to track: a name, and the strings that count as it, leading space included."""

    name: str
    strings: tuple[str, ...]


class Probe(Record, frozen=True):
    """A question whose answer shows whether the model has the behaviour."""

    text: str
    format: Format = "chat"
    prefill: str = ""
    """Text put at the start of the model's reply before the answers are scored; the free answer does not use it."""
    answers: tuple[Answer, ...] = ()
    covariate: float | None = None
    """What the measure over the probes is regressed on, such as the logit of an occupation's share of women."""
    right: str = ""
    """For a question of fact: the name of the right answer, which an edit should leave alone."""


class PromptSet(Record, frozen=True):
    """Positive prompts show a behaviour, negative ones do not; probes measure it."""

    name: str
    positive: tuple[Prompt, ...] = ()
    negative: tuple[Prompt, ...] = ()
    probes: tuple[Probe, ...] = ()
    description: str = ""
    settings: dict[str, bool | float | str] = msgspec.field(default_factory=dict)
    """How a published study edited its feature; see prompts.Settings."""


class FedPrompt(Record, frozen=True):
    """The exact token ids that a prompt was fed as. Masks are True where the token counts."""

    text: str
    format: Format
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    rank_mask: tuple[bool, ...]
    edit_mask: tuple[bool, ...]
    prefill: str = ""
    """Text put at the start of the model's reply, after the prompt."""

"""Prompts, probes and sets of them, and prompts as they are fed."""

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
    """An answer to track: a name and the strings that count as it, leading space included."""

    name: str
    strings: tuple[str, ...]


class Probe(Record, frozen=True):
    """A question whose answer shows whether the behaviour is there."""

    text: str
    format: Format = "chat"
    prefill: str = ""
    """Text put into the model's mouth before the answers are scored; not used for the free answer."""
    answers: tuple[Answer, ...] = ()
    covariate: float | None = None
    """What the probes' measure is regressed on, such as the logit of an occupation's share of women."""
    right: str = ""
    """Of a question of fact: the name of the right answer. It is what an edit has to leave alone."""


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
    """The exact token ids a prompt was fed as. Masks are True where the token counts."""

    text: str
    format: Format
    token_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    rank_mask: tuple[bool, ...]
    edit_mask: tuple[bool, ...]
    prefill: str = ""
    """What was put into the model's mouth behind the prompt."""

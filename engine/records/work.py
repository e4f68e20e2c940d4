"""What the user works with, and prompts as they are fed."""

from __future__ import annotations

from typing import Literal

import msgspec

Format = Literal["raw", "chat"]
EditKind = Literal["scale", "set", "steer", "project", "reconstruct"]
Positions = Literal["all", "prompt", "generated", "last", "first-step"]
"""Where an edit acts: `last` is the prompt's last token. `first-step` is the prompt with its BOS and sinks, which no
other choice includes; what it did stays in the prompt's keys and values, so later tokens see it."""

NO_FEATURE = -1
"""Stands in an edit of kind `reconstruct`, which is about all features."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every record."""


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


class Edit(Record, frozen=True):
    """One feature's edit. f is its activation, D its decoder row, h the hooked vector, u the vector's scale.

    scale        f becomes strength * f; 0 ablates
    set          f becomes strength * M, M the feature's maximum on the reference text
    steer        h becomes h + strength * M * r * D, r the median of u on the reference text
    project      the part of h along D is multiplied by strength; 0 removes it
    reconstruct  h becomes its reconstruction from the edited activations: the SAE's error is lost
    """

    feature: int = NO_FEATURE
    strength: float = 0.0
    kind: EditKind = "scale"
    at: Positions = "all"
    absolute: float | None = None
    """What the strength of `set` (in units of f) or `steer` (as a multiple of D) comes to, so that another reference
    text changes no recorded edit. The engine fills it in; where it is given, it rules."""


class Sampling(Record, frozen=True):
    """How tokens are chosen. Temperature 0 is greedy; all that follows but `stop` only matters above 0."""

    max_tokens: int = 64
    temperature: float = 0.0
    seed: int = 0
    top_k: int = 0
    """Only the so many likeliest tokens; 0: all."""
    top_p: float = 1.0
    """Only the likeliest tokens that together have this probability."""
    min_p: float = 0.0
    """Only tokens at least this probable in units of the likeliest one's probability."""
    stop: tuple[str, ...] = ()
    """A text ends once it contains one of these; the string stays in it."""


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

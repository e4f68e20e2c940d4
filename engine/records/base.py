"""The base class of all records."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

Format = Literal["raw", "chat"]

Bos = Literal["auto", "always", "never"]
"""Whether a BOS is put before prompts: as SAE and chat template want it, always, or never."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of every record: frozen, and strict about unknown fields."""


class VerbRequest(Record, frozen=True):
    """Base class of every request."""

    waited_for: ClassVar[str] = ""
    """What others wait for while it runs, such as "the ranking", if it is long: long requests run one after another. ""
    if it is quick and runs between two events of a long one."""

"""The base class of all records."""

from __future__ import annotations

from typing import Literal

import msgspec

Format = Literal["raw", "chat"]

Bos = Literal["auto", "always", "never"]
"""Whether a BOS is put before prompts: as SAE and chat template want it, always, or never."""


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of every record: frozen, and strict about unknown fields."""

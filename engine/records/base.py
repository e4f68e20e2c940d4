"""The base class of all records."""

from __future__ import annotations

from typing import Literal

import msgspec

Format = Literal["raw", "chat"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base class of every record: frozen, and strict about unknown fields."""

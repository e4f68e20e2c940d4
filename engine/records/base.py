"""What every record is made of."""

from __future__ import annotations

from typing import Literal

import msgspec

Format = Literal["raw", "chat"]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every record."""

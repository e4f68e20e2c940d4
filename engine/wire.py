"""What travels between the app and the engine process: length-prefixed msgpack frames of tagged records.

A frame is four bytes of length, most significant first, then that many bytes of msgpack. Knows nothing about sockets.
"""

from __future__ import annotations

import struct

import msgspec

from engine.errors import EngineFault
from engine.records import Edit, Event, Record, Request

HEADER = struct.Struct(">I")
MAX_FRAME = 256 << 20
"""A longer frame is no message of ours."""


class Ask(Record, frozen=True, tag=True):
    """Runs a request; its events come back under its id. Ids grow, and are never used twice."""

    id: int
    request: Request


class Cancel(Record, frozen=True, tag=True):
    """Stops a request within one token or one batch; harmless when it has ended."""

    id: int


class SetEdits(Record, frozen=True, tag=True):
    """From the next token on, the running generation `id` goes under these edits."""

    id: int
    edits: tuple[Edit, ...]


class Hello(Record, frozen=True, tag=True):
    """The engine's first message: whose code it runs."""

    version: str
    package: str
    """Folder of the engine package that answered."""
    pid: int


class Answer(Record, frozen=True, tag=True):
    """One event of request `id`; id 0 belongs to no request."""

    id: int
    event: Event


ToEngine = Ask | Cancel | SetEdits
FromEngine = Hello | Answer

"""The messages between the app and the engine process: length-prefixed msgpack frames of tagged records.

A frame is four bytes of length, most significant first, then that many bytes of msgpack. Knows nothing about sockets.
"""

from __future__ import annotations

import os
import struct
from importlib import metadata
from pathlib import Path

import msgspec

import engine
from engine.records import Edit, Event, Record, Request
from engine.records.errors import EngineFault

HEADER = struct.Struct(">I")

MAX_FRAME = 256 << 20
"""Most bytes in a frame; a longer one is not a message of saescope."""


class Ask(Record, frozen=True, tag=True):
    """Asks the engine to run a request; its events come back under its id. Ids grow, and are never used twice."""

    id: int
    request: Request


class Cancel(Record, frozen=True, tag=True):
    """Stops a request within one token or one batch; harmless when it has ended."""

    id: int


class SetEdits(Record, frozen=True, tag=True):
    """Applies these edits to the running generation `id` from its next token on, in place of the earlier ones."""

    id: int
    edits: tuple[Edit, ...]


class Stop(Record, frozen=True, tag=True):
    """Ends the running generation `id` at its next token; the text so far is its result."""

    id: int


class Hello(Record, frozen=True, tag=True):
    """The engine's first message: which code it runs."""

    version: str
    package: str
    """Folder of the engine package that answered."""
    pid: int


class Answer(Record, frozen=True, tag=True):
    """One event of request `id`; id 0 belongs to no request."""

    id: int
    event: Event


ToEngine = Ask | Cancel | SetEdits | Stop

FromEngine = Hello | Answer


def frame(message: ToEngine | FromEngine) -> bytes:
    """Encode a message as a frame. Raises EngineFault if it is longer than MAX_FRAME or its text is not UTF-8."""
    try:
        body = msgspec.msgpack.encode(message)
    except UnicodeEncodeError as error:
        raise EngineFault(f"A text for the engine is not UTF-8: {error.object!r}.", "Retype it.") from error
    if len(body) > MAX_FRAME:
        raise EngineFault(f"A message of {len(body) >> 20} MiB is too long for the engine.", "Use fewer prompts.")
    return HEADER.pack(len(body)) + body


def body_length(header: bytes | bytearray) -> int:
    """Return how many bytes follow this header. Raises EngineFault if they are more than MAX_FRAME."""
    length: int = HEADER.unpack(header)[0]
    if length > MAX_FRAME:
        raise EngineFault(f"A frame of {length} bytes is no message of saescope's.", "Restart it.")
    return length


def own_hello() -> Hello:
    """Return the hello of this process: version and folder of the code it runs."""
    try:
        version = metadata.version("saescope")
    except metadata.PackageNotFoundError:  # run from a checkout that was never installed
        version = "unknown"
    # not this file's folder: with an editable install, another package named engine can import our modules
    return Hello(version, str(Path(next(iter(engine.__path__))).resolve()), os.getpid())

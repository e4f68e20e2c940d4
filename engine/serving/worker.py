"""The engine process: `python -P -m engine.serving.worker FD`, where FD is its end of a socket pair.

A reader thread takes messages off the socket; the main thread runs the requests and sends every reply. When the
other end closes, the process ends at once, even in the middle of a computation, which frees the device's memory. Stdout
and stderr go to the log file. Torch is not imported before the first request. No maths here.
"""

from __future__ import annotations

import faulthandler
import io
import logging
import os
import socket
import sys
import threading
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING

import msgspec
import psutil

from engine.records import Event, Failed, Finished, MemoryLeft, Progress, Request
from engine.records.errors import EngineFault
from engine.records.events import fault
from engine.serving.scheduler import Scheduler, Work
from engine.serving.wire import HEADER, Answer, Ask, ToEngine, body_length, frame, own_hello

if TYPE_CHECKING:
    from engine.serving.local import Engine

log = logging.getLogger("saescope")


@dataclass(frozen=True)
class Refused:
    """The answer to a malformed message."""

    id: int
    failed: Failed
    fatal: bool = False
    """No later message can be understood, so the engine ends."""


Inbox = SimpleQueue[ToEngine | Refused]


class Reader:
    """The reader thread: puts messages into the inbox, and ends the process when the socket ends."""

    def __init__(self, sock: socket.socket, inbox: Inbox) -> None:
        self._sock, self._inbox = sock, inbox
        self._decoder = msgspec.msgpack.Decoder(ToEngine)

    def run(self) -> None:
        """Read until the socket ends, then end the process; never returns."""
        try:
            while True:
                length = body_length(self._exactly(HEADER.size))
                self._inbox.put(self._message(self._exactly(length)))
        except EngineFault as fault:  # not a frame of saescope, so it is unknown where the next one starts
            self._inbox.put(Refused(0, Failed("EngineFault", fault.message, fault.remedy), fatal=True))
            self._drain()
        except OSError:
            pass  # the other end has closed
        except BaseException:
            log.exception("the reader thread failed")
            os._exit(1)
        os._exit(0)

    def _exactly(self, count: int) -> bytearray:
        """Read the next `count` bytes. Raises OSError at the end of the socket."""
        data = bytearray(count)
        view = memoryview(data)
        while view:
            read = self._sock.recv_into(view)
            if not read:
                raise ConnectionError("end of file")
            view = view[read:]
        return data

    def _drain(self) -> None:
        while self._sock.recv(1 << 16):
            pass

    def _message(self, body: bytearray) -> ToEngine | Refused:
        try:
            message: ToEngine = self._decoder.decode(body)
            return message
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            log.error("a message makes no sense: %s", error)
            return Refused(asked_id(body), fault(f"The engine cannot read this message: {error}"))


def asked_id(body: bytearray) -> int:
    """Return the id of the request that a malformed message was meant to be; 0 if it was meant to be anything else."""
    try:
        content = msgspec.msgpack.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return 0
    if not isinstance(content, dict) or content.get("type") != Ask.__name__:
        return 0
    request_id = content.get("id")
    return request_id if type(request_id) is int and request_id > 0 else 0


class Worker:
    """The main thread: runs what the inbox asks for and sends the replies."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._engine: Engine | None = None

    def serve(self) -> None:
        """Send the hello, then run requests until the process ends. Returns only after a fatal message."""
        self._send(frame(own_hello()))
        inbox: Inbox = SimpleQueue()
        scheduler = Scheduler(self._run, self._emit, self._memory)
        threading.Thread(target=Reader(self._sock, inbox).run, name="reader", daemon=True).start()
        while True:
            while scheduler.idle or not inbox.empty():
                message = inbox.get()
                if not isinstance(message, Refused):
                    scheduler.receive(message)
                    continue
                scheduler.refuse(message.id, message.failed)
                if message.fatal:
                    return
            scheduler.step()

    def _run(self, request: Request) -> Work:
        if self._engine is None:
            yield Progress("importing torch")
            from engine.serving.local import Engine

            self._engine = Engine()
        log.info("%s", type(request).__name__)
        yield from self._engine.run(request)

    def _emit(self, request_id: int, event: Event) -> None:
        try:
            data = frame(Answer(request_id, event))
        except Exception as error:
            log.exception("an event of request %d cannot be sent", request_id)
            if not isinstance(event, Finished):
                return
            message = error.message if isinstance(error, EngineFault) else f"The result cannot be sent: {error}"
            data = frame(Answer(request_id, fault(message)))
        self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError:
            os._exit(0)  # the app is gone

    def _memory(self) -> MemoryLeft | None:
        """Return free and total memory of the model's device; None while no model is loaded."""
        if self._engine is None or self._engine.pair is None:
            return None
        device = self._engine.pair.model.device
        if device.type != "cuda":
            memory = psutil.virtual_memory()
            return MemoryLeft(memory.available, memory.total)
        import torch

        try:
            return MemoryLeft(*torch.cuda.mem_get_info(device))
        except RuntimeError:  # the GPU has failed, which the next request will report
            log.exception("the GPU does not tell its memory")
            return None


def main(fd: int) -> None:
    """Serve the socket `fd` until it ends, then end the process."""
    faulthandler.enable()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # os._exit flushes nothing
    sock = socket.socket(fileno=fd)
    sock.set_inheritable(False)  # or a child process could keep the socket open after this process ends
    Worker(sock).serve()
    logging.shutdown()
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))

"""The engine in a process of its own: the app's carrier. Runs in the event loop, never imports torch.

Why a socket pair and a session of its own: a stray print of a library must not land in the protocol, and the
terminal's signals (SIGWINCH, SIGHUP, SIGINT) must not reach the engine.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import platformdirs

from engine.records import Edit, Failed, Request
from engine.records.errors import EngineFault
from engine.serving.client import Listener, LiveEngine
from engine.serving.wire import (
    HEADER,
    Answer,
    Ask,
    Cancel,
    Hello,
    SetEdits,
    Stop,
    ToEngine,
    body_length,
    frame,
    own_hello,
)

log = logging.getLogger("saescope")

HELLO_SECONDS = 20.0

CLOSE_SECONDS = 2.0

TAIL_BYTES = 4096

RESTART = "Prompts, edits and results are kept. Restart it."

MISSING = "Install saescope into this Python; start it without PYTHONPATH if that leads to another engine."

SHADOWED = "Start saescope without PYTHONPATH, or rename your own folder or file called engine."


@dataclass
class Running:
    """One engine process and what belongs to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: BinaryIO
    listener: Listener
    task: asyncio.Task[None] | None = None
    """Hands events on; None until the engine has said hello."""
    last_words: str = ""
    """The log's last line, once the process has ended."""


class EngineProcess(LiveEngine):
    """A LiveEngine in a child process, whose stdout and stderr go to a log file; the last run's log is kept as .1.

    `ask`, `cancel`, `set_edits` and `stop` never wait and never raise: what is sent to an engine that is gone is lost.
    """

    def __init__(self, log_path: Path | None = None) -> None:
        self._log_path = log_path or Path(platformdirs.user_state_dir("saescope")) / "engine.log"
        self._own = own_hello()
        self._running: Running | None = None
        self._last_id = 0  # goes on after a restart, so that nobody takes one run's events for another's

    @property
    def log_path(self) -> Path:
        """Where the engine's own output is."""
        return self._log_path

    async def start(self, listener: Listener) -> None:
        """Starts the engine, ending one that still runs, and waits for its hello; it has not imported torch by then.

        Raises EngineFault where it dies, says nothing for 20 s, or is another version's or another package's.
        """
        await self.close()
        running = self._running = await self._spawn(listener)
        try:
            await self._greet(running)
        except BaseException:  # CancelledError too: the app may go while the engine comes
            if self._running is running:
                self._running = None
            raise
        running.task = asyncio.create_task(self._listen(running), name="engine")

    def ask(self, request: Request) -> int:
        """Sends a request and returns its id. A newer request of a kind cancels the older ones of that kind."""
        self._last_id += 1
        self._send(Ask(self._last_id, request))
        return self._last_id

    def cancel(self, request_id: int) -> None:
        """Stops a request within one token or one batch; harmless when it has ended."""
        self._send(Cancel(request_id))

    def set_edits(self, request_id: int, edits: tuple[Edit, ...]) -> None:
        """Puts the running generation under these edits from its next token on."""
        self._send(SetEdits(request_id, edits))

    def stop(self, request_id: int) -> None:
        """Ends the running generation at its next token; what there is of it becomes its result."""
        self._send(Stop(request_id))

    async def close(self) -> None:
        """Ends the engine: the end of its socket tells it to go; after 2 s it is killed. Nothing is heard of it."""
        running, self._running = self._running, None
        if running is None:
            return
        if running.task is not None:
            running.task.cancel()
            await asyncio.wait([running.task])
        await end(running)

    def _send(self, message: ToEngine) -> None:
        running = self._running
        if running is None or running.writer.is_closing():
            return
        try:
            running.writer.write(frame(message))
        except EngineFault as fault:  # too long, or not UTF-8
            failed = Failed("EngineFault", fault.message, fault.remedy)
            asyncio.get_running_loop().call_soon(running.listener.on_event, message.id, failed)

    async def _spawn(self, listener: Listener) -> Running:
        output = self._open_log()
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "engine.serving.worker", str(theirs.fileno())),
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours)
        except BaseException as error:
            ours.close()  # an engine that did start goes with it
            output.close()
            if isinstance(error, OSError):
                raise EngineFault(f"The engine cannot be started: {error}.", "Is the memory full?") from error
            raise
        return Running(process, reader, writer, output, listener)

    def _open_log(self) -> BinaryIO:
        """An empty log. It is read through this handle: another app's start may move the file meanwhile."""
        path = self._log_path
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                path.replace(path.with_name(f"{path.name}.1"))
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
            return os.fdopen(handle, "r+b", buffering=0)
        except OSError as error:
            log.warning("the engine's log cannot be written: %s", error)
            return tempfile.TemporaryFile(buffering=0)

    async def _greet(self, running: Running) -> None:
        """Waits for the hello; unless it is the right one, ends the process and raises EngineFault."""
        see_log = f"The log has the details: {self._log_path}"
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                hello = msgspec.msgpack.decode(await read_frame(running.reader), type=Hello)
            check_hello(self._own, hello)
        except TimeoutError:
            await kill(running)
            raise EngineFault(f"The engine said nothing for {HELLO_SECONDS:.0f} s.", see_log) from None
        except (OSError, EOFError):
            await end(running)
            words = running.last_words
            not_ours = "engine" in words and any(sign in words for sign in ("No module named", "Error while finding"))
            not_ours |= "ImportError" in words
            message = f"The engine did not start: {words or how_it_ended(running)}"
            raise EngineFault(message, MISSING if not_ours else see_log) from None
        except msgspec.MsgspecError as error:
            await kill(running)
            raise EngineFault(f"The engine's first message makes no sense: {error}", see_log) from None
        except BaseException:
            await kill(running)
            raise

    async def _listen(self, running: Running) -> None:
        """Hands events to the listener until the engine is gone, and tells it so."""
        decoder = msgspec.msgpack.Decoder(Answer)
        message = ""
        try:
            while True:
                answer = decoder.decode(await read_frame(running.reader))
                try:
                    running.listener.on_event(answer.id, answer.event)
                except Exception:
                    log.exception("an event was not handled")
        except (OSError, EOFError):
            await end(running)
        except (EngineFault, msgspec.MsgspecError) as error:
            log.error("the engine's message makes no sense: %s", error)
            message = "The engine sent a message that makes no sense, and was ended."
            await kill(running)
        self._running = None
        running.listener.on_lost(EngineFault(message or how_it_ended(running), RESTART))


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """The next frame's body. Raises EOFError or OSError at the end, EngineFault for what is no frame."""
    return await reader.readexactly(body_length(await reader.readexactly(HEADER.size)))


def check_hello(own: Hello, theirs: Hello) -> None:
    """Raises EngineFault unless the engine runs this very code."""
    if theirs.package != own.package:
        raise EngineFault(
            f"The engine process found another package called engine: {theirs.package}, not {own.package}.", SHADOWED
        )
    if theirs.version != own.version:
        raise EngineFault(
            f"The engine is of version {theirs.version}, the app of version {own.version}.",
            "saescope was changed while it ran: leave it and start it again.",
        )


async def kill(running: Running) -> None:
    """Ends the process without asking."""
    if running.process.returncode is None:
        with suppress(ProcessLookupError):
            running.process.kill()
    await end(running)


async def end(running: Running) -> None:
    """Closes the socket, waits for the process to end by itself, kills it after 2 s; leaves no zombie."""
    running.writer.transport.abort()  # close() would first wait for what a stuck engine does not read
    process = running.process
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await process.wait()
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        if not running.log.closed:
            running.last_words = last_line(running.log)
            running.log.close()
    await process.wait()


def last_line(file: BinaryIO) -> str:
    """The last line that is not blank, shortened; "" if there is none."""
    size = os.fstat(file.fileno()).st_size
    tail = os.pread(file.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode("utf-8", "replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def how_it_ended(running: Running) -> str:
    """The end of a process in plain words."""
    code = running.process.returncode or 0
    if code == -signal.SIGKILL:
        return (
            "The engine was killed (SIGKILL): if not by you, then by the kernel's out-of-memory killer, "
            "because the machine's memory was full."
        )
    if code < 0:
        names = {s.value: s.name for s in signal.Signals}
        return f"The engine crashed ({names.get(-code, f'signal {-code}')})."
    last = f" Its last words: {running.last_words}" if running.last_words else ""
    return f"The engine ended with exit code {code}.{last}"

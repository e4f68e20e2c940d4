"""The engine in a process of its own: the app's carrier. Runs in the event loop and never imports torch.

Why a socket pair and a session of its own: a stray print of a library must not end up in the protocol, and the
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
from engine.records.events import naming_log
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
"""How long `start` waits for the engine's hello."""

CLOSE_SECONDS = 2.0
"""How long the engine has to end by itself before it is killed."""

TAIL_BYTES = 4096
"""How much of the log's end is searched for its last line."""

RESTART = "Prompts, edits and results are kept. Restart it."

MISSING = "Install saescope into this Python; start it without PYTHONPATH if that leads to another engine."

SHADOWED = "Start saescope without PYTHONPATH, or rename your own folder or file called engine."


@dataclass
class Running:
    """One engine process with its socket, its log and its listener."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: BinaryIO
    listener: Listener
    task: asyncio.Task[None] | None = None
    """Hands events to the listener; None until the engine has said hello."""
    last_words: str = ""
    """The log's last line, once the process has ended."""


class EngineProcess(LiveEngine):
    """A LiveEngine in a child process whose stdout and stderr go to a log file; the last run's log is kept as .1.

    `ask`, `cancel`, `set_edits` and `stop` never wait and never raise: messages to a lost engine are dropped.
    """

    def __init__(self, log_path: Path | None = None) -> None:
        self._log_path = log_path or Path(platformdirs.user_state_dir("saescope")) / "engine.log"
        self._own = own_hello()
        self._running: Running | None = None
        self._last_id = 0  # not reset by a restart, so that events of two runs cannot be confused

    @property
    def log_path(self) -> Path:
        """Path of the engine's log, its stdout and stderr."""
        return self._log_path

    async def start(self, listener: Listener) -> None:
        """Start the engine, after ending one that still runs, and wait for its hello, sent before it imports torch.

        Raises EngineFault if it dies, says nothing for 20 s, or is of another version or another package.
        """
        await self.close()
        running = self._running = await self._spawn(listener)
        try:
            await self._greet(running)
        except BaseException:  # CancelledError too: the app may close while the engine starts
            if self._running is running:
                self._running = None
            raise
        running.task = asyncio.create_task(self._listen(running), name="engine")

    def ask(self, request: Request) -> int:
        """Send a request and return its id. A newer request of a kind cancels the older ones of that kind."""
        self._last_id += 1
        self._send(Ask(self._last_id, request))
        return self._last_id

    def cancel(self, request_id: int) -> None:
        """Stop a request within one token or one batch; harmless when it has ended."""
        self._send(Cancel(request_id))

    def set_edits(self, request_id: int, edits: tuple[Edit, ...]) -> None:
        """Apply these edits to the running generation from its next token on, in place of the earlier ones."""
        self._send(SetEdits(request_id, edits))

    def stop(self, request_id: int) -> None:
        """End the running generation at its next token; the text so far becomes its result."""
        self._send(Stop(request_id))

    async def close(self) -> None:
        """End the engine by closing its socket, and kill it if it runs after 2 s. The listener gets no more events."""
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
            ours.close()  # this also ends an engine that has started
            output.close()
            if isinstance(error, OSError):
                raise EngineFault(f"The engine cannot be started: {error}.", "Is the memory full?") from error
            raise
        return Running(process, reader, writer, output, listener)

    def _open_log(self) -> BinaryIO:
        """Open an empty log, also for reading: another app may move the file when it starts.

        A temporary file where the log cannot be written.
        """
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

    def _see_log(self) -> str:
        return f"The log has the details: {self._log_path}"

    async def _greet(self, running: Running) -> None:
        """Wait for the engine's hello. Ends the process and raises EngineFault unless the right hello comes."""
        see_log = self._see_log()
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
        """Hand events to the listener until the engine ends, then report the loss to it."""
        decoder = msgspec.msgpack.Decoder(Answer)
        message = ""
        try:
            while True:
                answer = decoder.decode(await read_frame(running.reader))
                try:
                    running.listener.on_event(answer.id, naming_log(answer.event, self._see_log()))
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
    """Read the next frame's body. Raises EOFError or OSError at the end, EngineFault for what is not a frame."""
    return await reader.readexactly(body_length(await reader.readexactly(HEADER.size)))


def check_hello(own: Hello, theirs: Hello) -> None:
    """Compare package and version of the engine with the app's. Raises EngineFault where they differ."""
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
    """Kill the process, then clean up after it."""
    if running.process.returncode is None:
        with suppress(ProcessLookupError):
            running.process.kill()
    await end(running)


async def end(running: Running) -> None:
    """Close the socket, wait for the process to end by itself, kill it after 2 s; leave no zombie."""
    running.writer.transport.abort()  # close() would first wait until all is sent, and a stuck engine does not read
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
    """Return the file's last line that is not blank, shortened; "" if there is none."""
    size = os.fstat(file.fileno()).st_size
    tail = os.pread(file.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode("utf-8", "replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def how_it_ended(running: Running) -> str:
    """Say in plain words how the process ended."""
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

"""The bash tool: runs one command in the workspace and leaves nothing of it running; knows nothing of approval."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

from continualcode.errors import ConfigError, ToolError
from continualcode.tools.registry import FunctionTool, tool
from continualcode.tools.text import shown
from continualcode.tools.workspace import Workspace
from continualcode.types import ToolResult

KEPT_BYTES = 15_000
"""Of longer output this much is kept at the beginning, and as much at the end."""
_PROC = Path("/proc")
_GRACE = 1.0
_TICK = 0.02
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSW", "CREDENTIAL")
_QUIET = {"TERM": "dumb", "NO_COLOR": "1", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}


def bash_tool(workspace: Workspace, *, timeout: float = 120.0) -> FunctionTool:
    """bash, in the root of the workspace, for at most `timeout` seconds.

    The command has no input and no terminal, and gets no environment variable whose name looks like a secret's.
    Its process group is killed at the end, at the timeout and on cancellation; what starts a session of its own
    (setsid) escapes that. Raises ConfigError when there is no bash or the timeout is not positive.
    """
    program = shutil.which("bash")
    if program is None:
        raise ConfigError("the bash tool needs bash, and there is none on PATH")
    if not timeout > 0:
        raise ConfigError(f"the timeout of bash must be positive, not {timeout}")

    @tool
    async def bash(cmd: str) -> ToolResult:
        """Run a bash command."""
        command = _Command([program, "-c", cmd], workspace, timeout)
        finished = asyncio.ensure_future(asyncio.to_thread(command.finish))
        try:
            return await asyncio.shield(finished)
        except asyncio.CancelledError:
            command.cancelled.set()
            await finished
            raise

    return bash


class _Command:
    """One running command. `finish` blocks until it is over and its whole process group is gone."""

    def __init__(self, argv: list[str], workspace: Workspace, timeout: float) -> None:
        self.cancelled = threading.Event()
        self._timeout = timeout
        self._deadline = time.monotonic() + timeout
        self._output = _Kept()
        self._ended = False  # no more output will come
        try:
            self._process = subprocess.Popen(
                argv,
                cwd=workspace.root,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ToolError(f"bash could not be started: {error}") from error

    def finish(self) -> ToolResult:
        notes = []
        try:
            while self._process.poll() is None and not self._overdue:
                self._take(_TICK)
            timed_out = self._process.returncode is None
            self._drain(0.0)
            if self._kill() and not timed_out:
                notes.append("[background processes were stopped at the end of this call]")
            self._drain(_TICK)
        finally:
            self._kill()
            if self._process.stdout is not None:
                self._process.stdout.close()
        if timed_out:
            notes.append(f"[stopped after {self._timeout:g} seconds, with all that it had started]")
        elif self._process.returncode != 0:
            notes.append(_said_of(self._process.returncode))
        text = self._output.text() or "(no output)"
        return ToolResult("\n".join([text, *notes]), ok=self._process.returncode == 0 and not timed_out)

    @property
    def _overdue(self) -> bool:
        return self.cancelled.is_set() or time.monotonic() > self._deadline

    def _take(self, seconds: float) -> bool:
        """Waits so long for output and takes what there is; False when there was none."""
        if self._ended or self._process.stdout is None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
            return False
        descriptor = self._process.stdout.fileno()
        if not _readable(descriptor, seconds):
            return False
        chunk = os.read(descriptor, 65536)
        self._ended = not chunk
        self._output.add(chunk)
        return bool(chunk)

    def _drain(self, seconds: float) -> None:
        """Takes what is in the pipe already; a process that goes on writing cannot keep it from ending."""
        until = time.monotonic() + _GRACE
        while time.monotonic() < until and self._take(seconds):
            pass

    def _kill(self) -> bool:
        """Ends the process group, gently and then not; whether there was anything to end."""
        if not self._running:
            return False
        self._signal(signal.SIGTERM)
        until = time.monotonic() + _GRACE
        while time.monotonic() < until:
            self._take(_TICK)
            self._process.poll()
            if not self._running:
                return True
        self._signal(signal.SIGKILL)
        self._process.wait()
        return True

    def _signal(self, number: int) -> None:
        # The id of the group stays taken until its last process is gone, so this cannot hit a stranger.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    @property
    def _running(self) -> bool:
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # somebody else's by now, as under sudo; or on macOS: only the dead are left
            return False
        return not _only_dead(self._process.pid)


class _Kept:
    """The beginning and the end of what is added, in bounded memory."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._tail = bytearray()
        self._dropped = 0

    def add(self, chunk: bytes) -> None:
        room = KEPT_BYTES - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        self._trim(2 * KEPT_BYTES)

    def text(self) -> str:
        """All of it, or both ends in whole lines and between them how much is missing."""
        self._trim(KEPT_BYTES)
        head, tail, dropped = bytes(self._head), bytes(self._tail), self._dropped
        if dropped:
            cut = head.rfind(b"\n") + 1 or len(head)
            skip = tail.find(b"\n", 0, -1) + 1
            dropped += len(head) - cut + skip
            gap = f"[... {dropped:,} bytes not shown ...]\n".encode()
            head, tail = head[:cut] + (b"" if head[:cut].endswith(b"\n") else b"\n") + gap, tail[skip:]
        return shown((head + tail).decode("utf-8", "replace")).removesuffix("\n")

    def _trim(self, limit: int) -> None:
        if len(self._tail) > limit:
            excess = len(self._tail) - KEPT_BYTES
            del self._tail[:excess]
            self._dropped += excess


def _only_dead(group: int) -> bool:
    """Whether all that is left of the group is dead and waits to be reaped; in a container that can take for ever."""
    if not (_PROC / "self/stat").exists():
        return False
    states = []
    for entry in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):  # gone since it was listed
            state, _, member_of, *_ = entry.read_bytes().rpartition(b")")[2].split()
            if int(member_of) == group:
                states.append(state)
    return all(state in (b"Z", b"X") for state in states)


def _readable(descriptor: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _said_of(code: int) -> str:
    if code > 0:
        return f"[exit code {code}]"
    try:
        return f"[ended by {signal.Signals(-code).name}]"
    except ValueError:
        return f"[ended by signal {-code}]"


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not any(word in name.upper() for word in _SECRET)}
    return kept | _QUIET

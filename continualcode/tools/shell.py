"""The bash tool: runs one command in the workspace, confined, and leaves nothing of it running; knows nothing of approval."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import weakref
from collections.abc import Collection
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from continualcode.errors import ConfigError, ToolError
from continualcode.tools.redact import Redactor, environment
from continualcode.tools.registry import FunctionTool, tool
from continualcode.tools.sandbox import Sandbox, find_sandbox
from continualcode.tools.text import shown
from continualcode.tools.workspace import Workspace
from continualcode.types import ToolResult

KEPT_BYTES = 15_000
"""Of longer output this much is kept at the beginning, and as much at the end."""
_END_SECONDS = 8.0
_TICK = 0.02
_QUIET = {"TERM": "dumb", "NO_COLOR": "1", "PAGER": "cat", "GIT_PAGER": "cat", "GIT_TERMINAL_PROMPT": "0"}
_STOPPED = "[background processes were stopped at the end of this call]"
_REFUSALS = ("Read-only file system", "Permission denied", "Temporary failure in name resolution", "is unreachable")


def bash_tool(
    workspace: Workspace, *, timeout: float = 120.0, sandbox: Sandbox | None = None, pass_on: Collection[str] = ()
) -> FunctionTool:
    """bash, in the root of the workspace, for at most `timeout` seconds, in this sandbox or the best that is found.

    The command has no input and no terminal, and gets no environment variable that looks like a secret's, but for
    those named in `pass_on`. At its end, at the timeout, on cancellation and when this process dies, everything that
    it has started is ended. Raises ConfigError when there is no bash or the timeout is not positive.
    """
    program = shutil.which("bash")
    if program is None:
        raise ConfigError("the bash tool needs bash, and there is none on PATH")
    if not timeout > 0:
        raise ConfigError(f"the timeout of bash must be positive, not {timeout}")
    shell = _Shell(program, workspace, sandbox or find_sandbox(), timeout, frozenset(pass_on))

    @tool
    async def bash(cmd: str) -> ToolResult:
        """Run a bash command."""
        command = _Command(shell, cmd)
        finished = asyncio.ensure_future(asyncio.to_thread(command.finish))
        try:
            return await asyncio.shield(finished)
        except asyncio.CancelledError:
            command.cancelled.set()
            await finished
            raise

    return bash


class _Shell:
    """What all commands of one tool have in common: among it a /tmp of their own, removed with the tool."""

    def __init__(
        self, program: str, workspace: Workspace, sandbox: Sandbox, timeout: float, pass_on: frozenset[str]
    ) -> None:
        self.program, self.workspace, self.sandbox, self.timeout = program, workspace, sandbox, timeout
        self._pass_on, self.redact = pass_on, Redactor(os.environ)

    @cached_property
    def temporary(self) -> Path:
        made = Path(tempfile.mkdtemp(prefix="continualcode-"))
        weakref.finalize(self, shutil.rmtree, made, ignore_errors=True)
        return made

    def environment(self) -> dict[str, str]:
        kept = environment(self._pass_on) | _QUIET
        match self.sandbox.kind:
            case "bubblewrap":
                return kept | {"TMPDIR": "/tmp", "XDG_CACHE_HOME": "/tmp/.cache"}
            case "landlock":
                return kept | {"TMPDIR": str(self.temporary), "XDG_CACHE_HOME": str(self.temporary / ".cache")}
            case "none":
                return kept


class _Command:
    """One running command. `finish` blocks until it is over and all that it has started is gone."""

    def __init__(self, shell: _Shell, cmd: str) -> None:
        self.cancelled = threading.Event()
        self._shell = shell
        self._deadline = time.monotonic() + shell.timeout
        self._output = _Kept()
        self._ended = False  # no more output will come
        self._own = shell.workspace.own.keep(read_only=shell.sandbox.kind == "bubblewrap")
        self._report, report = os.pipe()
        try:
            self._process = subprocess.Popen(
                shell.sandbox.argv([shell.program, "-c", cmd], shell.workspace, shell.temporary, report),
                cwd=shell.workspace.root,
                env=shell.environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(report,),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            os.close(self._report)
            raise ToolError(f"bash could not be started: {error}") from error
        finally:
            os.close(report)

    def finish(self) -> ToolResult:
        try:
            while not self._over and not self._overdue:
                self._take(_TICK)
            timed_out = not self._over
            self._end()
            report = os.read(self._report, 4096) if _readable(self._report, 0.0) else b""
        finally:
            self._leave()
            changed = self._shell.workspace.own.put_back(self._own)
        text = self._shell.redact(self._output.text())
        if not report:
            raise ToolError(f"bash could not be run in its sandbox ({self._shell.sandbox.kind}): {text}")
        ended = json.loads(report)
        went_well = ended["code"] == 0 and not ended["over"] and not timed_out
        notes = [_STOPPED] if ended["stopped"] and went_well else []
        if timed_out:
            notes.append(f"[stopped after {self._shell.timeout:g} seconds, with all that it had started]")
        elif ended["over"]:
            notes.append(f"[stopped, with all that it had started: more than {self._limit(ended['over'])}]")
        elif ended["code"] != 0:
            notes += [_said_of(ended["code"]), *self._hints(text)]
        if changed:
            names = ", ".join(self._shell.workspace.relative(path) for path in changed)
            notes.append(f"[put back as it was, because only a person may change it: {names}]")
        return ToolResult("\n".join([text or "(no output)", *notes]), ok=went_well)

    @property
    def _over(self) -> bool:
        return self._process.poll() is not None

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

    def _end(self) -> None:
        """Cuts the lifeline, and takes what is written until all has ended."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        until = time.monotonic() + _END_SECONDS
        while (not self._over or self._take(0.0)) and time.monotonic() < until:
            self._take(_TICK)

    def _leave(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        os.close(self._report)

    def _limit(self, name: str) -> str:
        sandbox = self._shell.sandbox
        return f"{sandbox.processes} processes" if name == "processes" else f"{sandbox.memory / 1e9:.1f} GB of memory"

    def _hints(self, text: str) -> list[str]:
        """What may have kept the command from its end."""
        if self._shell.sandbox.kind == "none" or not any(refusal in text for refusal in _REFUSALS):
            return []
        network = "" if self._shell.sandbox.network else ", and there is no network"
        return [f"[here only the workspace and $TMPDIR can be written, the agent's own files excepted{network}]"]


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

"""Grades solutions: runs all cases of a problem in one sandboxed process, and compares here what comes out.

Expected outputs never enter the sandbox; inputs do one at a time, the public ones first. judge.py is what runs in there.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal, TypeAlias, cast

from continualcode.errors import ConfigError
from continualcode.tools.sandbox import Sandbox, find_sandbox, half_of_memory
from continualcode.tools.workspace import Workspace
from livecode.problem import Case, Problem

Status: TypeAlias = Literal["passed", "wrong", "error", "timeout", "memory", "output", "not run"]
_JUDGE = Path(__file__).with_name("judge.py").read_text(encoding="utf-8")
_PYTHON = os.path.realpath(sys.executable)
_PACKAGES = sysconfig.get_path("purelib")
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/nix", "/gnu", "/etc/ld.so.cache", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/urandom")
_CLOCK, _GRACE_SECONDS, _END_SECONDS = 4, 30.0, 8.0
_SHOWN = 4000


@dataclass(frozen=True, slots=True)
class Limits:
    """Of a case: `seconds` of processor time, and four times that by the clock; bytes of address space; bytes printed,
    and of each file; files in a folder that is empty at first; processes, where there is no sandbox to bar them.

    After `total_seconds`, or so many `timeouts`, further cases of the solution are not run.
    """

    seconds: float = 6.0
    total_seconds: float = 120.0
    timeouts: int = 3
    memory: int = 2 * 2**30
    output: int = 8 * 2**20
    files: int = 64
    processes: int = 32


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of one case. `got`: what was printed or, as JSON, returned. `detail`: the traceback, or the limit that was hit."""

    status: Status
    got: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Grade:
    """A verdict for each case; `cases` empty: for each case of the problem."""

    verdicts: tuple[Verdict, ...]
    seconds: float
    cases: tuple[Case, ...] = ()

    @property
    def passed(self) -> bool:
        return self.share == 1.0

    @property
    def share(self) -> float:
        """Of the cases, those passed; 0 of none."""
        return sum(verdict.status == "passed" for verdict in self.verdicts) / max(1, len(self.verdicts))


class Grader:
    """Grades up to `workers` solutions at once: by default one a core, and no more than half of the memory allows.

    Sandboxes stay warm while grades wait for them, and one between; close it, or use it as a context. The first grade
    raises ConfigError when solutions cannot be confined as `note` says.
    """

    def __init__(self, limits: Limits = Limits(), workers: int | None = None, sandbox: Sandbox | None = None) -> None:
        if sys.platform != "linux":
            raise ConfigError(f"solutions can be graded on Linux only, not on {sys.platform}")
        self.limits = limits
        self.workers = workers or max(1, min(len(os.sched_getaffinity(0)), half_of_memory() // limits.memory))
        self.sandbox = replace(sandbox or find_sandbox(), processes=limits.processes, memory=limits.memory + 2**30)
        self._places = asyncio.Semaphore(self.workers)
        self._idle: list[_Judge] = []

    @property
    def note(self) -> str:
        """One line: what confines solutions, and why that."""
        if self.sandbox.kind == "none":
            return f"solutions run WITHOUT A SANDBOX and can do what you can ({self.sandbox.why})"
        held = "no network, no processes, nothing to read but Python, nothing to write but a folder of their own"
        return f"solutions run in {self.sandbox.kind}: {held} ({self.sandbox.why})"

    async def grade(self, problem: Problem, code: str, cases: Sequence[Case] | None = None) -> Grade:
        """Runs the solution on these cases, by default on all of the problem. Cancelled, it leaves nothing running.

        A run could find the inputs of those before it in its memory; so public cases come first.
        """
        chosen = problem.cases if cases is None else tuple(cases)
        async with self._places:
            started = time.monotonic()
            judge = await self._free()
            try:
                verdicts = await judge.grade(problem, code, chosen)
            finally:
                if judge.healthy and (self._places.locked() or not self._idle):
                    self._idle.append(judge)
                else:
                    await judge.end()
            return Grade(verdicts, time.monotonic() - started, chosen)

    async def close(self) -> None:
        """Ends the sandboxes; the next grade starts new ones."""
        idle, self._idle = self._idle, []
        await asyncio.gather(*(judge.end() for judge in idle))

    async def __aenter__(self) -> Grader:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def _free(self) -> _Judge:
        while self._idle:
            judge = self._idle.pop()
            if judge.alive:
                return judge
            await judge.end()
        judge = _Judge(self.sandbox, self.limits)
        await judge.start()
        return judge


class _Judge:
    """A sandbox with judge.py in it; once it is not `healthy` it must be ended."""

    def __init__(self, sandbox: Sandbox, limits: Limits) -> None:
        self.healthy = False
        self._limits, self._kind = limits, sandbox.kind
        self._writer: asyncio.StreamWriter | None = None
        self._around = Path(tempfile.mkdtemp(prefix="grader-")).resolve()
        folder, temporary = self._around / "folder", self._around / "tmp"
        folder.mkdir()
        temporary.mkdir()
        self._channel, channel = socket.socketpair()
        settings: dict[str, object] = {"channel": channel.fileno(), "folder": str(folder), "packages": _PACKAGES}
        settings["readable"] = [*_SYSTEM, *_DEVICES, sys.base_prefix, _PACKAGES] if sandbox.kind != "none" else None
        settings |= {name: getattr(limits, name) for name in ("seconds", "memory", "output", "files")}
        settings["clock"] = _CLOCK * limits.seconds
        command = [_PYTHON, "-I", "-S", "-X", "utf8", "-W", "ignore", "-c", _JUDGE, json.dumps(settings)]
        threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        with channel, (self._around / "said").open("wb") as said, (self._around / "report").open("wb") as report:
            self._process = subprocess.Popen(
                sandbox.argv(command, Workspace(folder), temporary, report.fileno()),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=said,
                cwd=folder,
                env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(folder), "TMPDIR": str(folder), **threads},
                pass_fds=(channel.fileno(), report.fileno()),
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    async def start(self) -> None:
        try:
            self._reader, self._writer = await asyncio.open_unix_connection(sock=self._channel, limit=2**30)
            await self._reply()
        except (OSError, EOFError) as error:
            said = (self._around / "said").read_text(errors="replace").strip()
            raise ConfigError(f"solutions cannot be run in {self._kind}: {said or error}") from error
        else:
            self.healthy = True
        finally:
            if not self.healthy:
                await self.end()

    async def grade(self, problem: Problem, code: str, cases: Sequence[Case]) -> tuple[Verdict, ...]:
        self.healthy = False
        verdicts: list[Verdict] = []
        try:
            await self._grade(problem, code, cases, verdicts)
        except (OSError, EOFError) as error:
            over = await self.end()
            detail = f"more {over} than the sandbox allows" if over else f"the sandbox was ended ({error})"
            verdicts.append(Verdict("memory" if over == "memory" else "error", "", detail))
        return (*verdicts[: len(cases)], *[Verdict("not run")] * (len(cases) - len(verdicts)))

    async def _grade(self, problem: Problem, code: str, cases: Sequence[Case], verdicts: list[Verdict]) -> None:
        """Adds to the verdicts. Raises EOFError or OSError when the judge is lost."""
        until, timeouts = time.monotonic() + self._limits.total_seconds, 0
        broken = (await self._ask({"code": code, "function": problem.function}))["detail"]
        if broken:
            verdicts += [Verdict("error", "", broken)] * len(cases)
            cases = ()
        for case in cases:
            if timeouts == self._limits.timeouts or time.monotonic() > until:
                break
            verdicts.append(_verdict(problem, case, await self._ask(case.input)))
            timeouts += verdicts[-1].status == "timeout"
        self.healthy = (await self._ask(None))["status"] == "over"

    async def _ask(self, request: object) -> dict[str, str]:
        assert self._writer
        self._writer.write(json.dumps(request).encode() + b"\n")
        await self._writer.drain()
        return await self._reply()

    async def _reply(self) -> dict[str, str]:
        async with asyncio.timeout(_CLOCK * self._limits.seconds + _GRACE_SECONDS):
            line = await self._reader.readline()
        if not line:
            raise EOFError("it does not answer")
        reply: dict[str, str] = json.loads(line)
        return reply

    async def end(self) -> str:
        """Ends all that runs in the sandbox and removes its folder; the limit that had ended it before, or ""."""
        assert self._process.stdin
        self._process.stdin.close()  # its lifeline
        if self._writer:
            self._writer.close()
        return await asyncio.to_thread(self._over)

    def _over(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        self._process.kill()
        self._process.wait()
        report = (self._around / "report").read_text() if self._around.exists() else ""
        shutil.rmtree(self._around, ignore_errors=True)
        return str(json.loads(report)["over"]) if report else ""


def _verdict(problem: Problem, case: Case, reply: dict[str, str]) -> Verdict:
    got = reply["got"]
    if reply["status"] != "done":
        return Verdict(cast("Status", reply["status"]), got, reply["detail"])
    return Verdict("passed" if same(problem, case, got) else "wrong", shortened(got, _SHOWN))


def same(problem: Problem, case: Case, got: str) -> bool:
    """Whether that is the output expected, compared as LiveCodeBench does."""
    return (_same_text if problem.function is None else _same_value)(got, case.output)


def _same_text(got: str, expected: str) -> bool:
    """Line by line without the space around, and lines of numbers as numbers."""
    got, expected = got.strip(), expected.strip()
    if got.count("\n") != expected.count("\n"):
        return False
    lines = zip(got.split("\n"), expected.split("\n"), strict=True)
    return all(_same_line(line.strip(), wanted.strip()) for line, wanted in lines)


def _same_line(got: str, expected: str) -> bool:
    if got == expected:
        return True
    wanted = expected.split()
    found = got.split(maxsplit=len(wanted))  # and no more, of what may be millions
    try:
        return len(found) == len(wanted) and all(Decimal(a) == Decimal(b) for a, b in zip(found, wanted, strict=True))
    except InvalidOperation:
        return False


def _same_value(got: str, expected: str) -> bool:
    """As Python compares them; what is far longer than expected is not read."""
    try:
        return len(got) <= 1000 + 16 * len(expected) and bool(json.loads(got) == json.loads(expected))
    except (ValueError, RecursionError):
        return False


def shortened(text: str, most: int) -> str:
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}\n[...]\n{text[-half:]}"

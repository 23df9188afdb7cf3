"""Tries a call in a copy of the workspace and compares what a check says before and after; knows no check of its own."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, Literal, Protocol, TypeVar

from continualcode.approval.bench import Bench
from continualcode.approval.copies import Copy
from continualcode.errors import WorkspaceError
from continualcode.events import Tried
from continualcode.protocols import Tool
from continualcode.tools import READ_ONLY, ToolRegistry, Workspace, bash_tool, file_tools
from continualcode.tools.sandbox import Sandbox, find_sandbox
from continualcode.tools.tree import Tree
from continualcode.types import Approve, Deny, ToolCall, ToolResult, Turn

KEPT_RESULTS = 64
LINES_SHOWN, LINE_SHOWN = 12, 200


@dataclass(frozen=True, slots=True)
class Where:
    """What is copied, and what confines commands in the copy."""

    workspace: Workspace | Path | str
    also: tuple[str, ...]
    """Ignored files and folders that are copied as well."""
    time_limit: float
    """Of one command, in seconds."""
    sandbox: Sandbox | None
    """None: the best there is, without network."""


Found = TypeVar("Found")


class Check(Protocol[Found]):
    """A gate's command, and how it reads what that says."""

    def command(self, paths: Iterable[str]) -> str:
        """What to run when these paths, which exist, are changed; may be "", for nothing."""
        ...

    async def look(self, bench: Bench, command: str) -> Found:
        """Runs it on the copy as it is now."""
        ...

    def fine(self, found: Found) -> bool:
        """Whether there is no complaint at all, so that what was before need not be known."""
        ...

    def tells(self, before: Found) -> bool:
        """Whether it says anything that could be worse now. Raises ConfigError when the command has never run."""
        ...

    def blame(self, before: Found, after: Found) -> str | None:
        """What is wrong now that was not before."""
        ...

    def summary(self, found: Found) -> str:
        """What it counted, in a few words, or ""."""
        ...

    async def confirm(self, bench: Bench, command: str, after: Found) -> Found:
        """Looks again; without the complaints that are gone though nothing has changed."""
        ...


class Trials(Generic[Found]):
    """A gate, and a critic, that tries calls one at a time and holds against them what its check finds; an Examiner.

    The first trial makes the copy, later ones write only what has changed since.
    """

    def __init__(self, where: Where, check: Check[Found], *, approve: bool) -> None:
        workspace = where.workspace
        self.last: Tried | None = None
        """The newest trial."""
        self._workspace = workspace if isinstance(workspace, Workspace) else Workspace(workspace)
        self._check, self._approve = check, approve
        self._copy = Copy(self._workspace.root, also=where.also)
        self._sandbox = where.sandbox or find_sandbox()
        self._bench = Bench(self._copy, where.time_limit, self._sandbox)
        self._before: Tree | None = None
        self._found_good: tuple[str, str] | None = None
        self._results: dict[tuple[str, str], Found] = {}
        self._untold: deque[Tried] = deque(maxlen=KEPT_RESULTS)
        self._turn = asyncio.Lock()

    async def review(self, turn: Turn, call: ToolCall) -> Approve | Deny | None:
        async with self._turn:
            tried = await self._before_call(call)
        if tried is None:
            return None
        if tried.reason is not None:
            return Deny(tried.reason)
        return Approve() if self._approve and call.name != "bash" and not tried.blind else None

    async def about_to_run(self, call: ToolCall) -> None:
        async with self._turn:
            self._before = None
            if call.name not in READ_ONLY:  # not worth a look at every file
                with _copying("not run: the workspace cannot be copied"):
                    before = await asyncio.to_thread(self._copy.of_source)
                    await asyncio.to_thread(self._copy.put, before)
                self._before = before

    async def critique(self, turn: Turn, result: ToolResult) -> str | None:
        async with self._turn:
            with _copying("what the call has changed cannot be tried"):
                tried = await self._after_call()
        return tried.reason if tried is not None else None

    def trials(self) -> list[Tried]:
        told = list(self._untold)
        self._untold.clear()
        return told

    async def _before_call(self, call: ToolCall) -> Tried | None:
        """Makes the call in the copy; None when it cannot be made there, fails, or changes nothing of interest."""
        begun, self._found_good = self._begin(), None
        if call.name in READ_ONLY:
            return None
        before = await asyncio.to_thread(self._copy.of_source)
        await asyncio.to_thread(self._copy.put, before, forget=True)
        if not await self._made(call):
            return None
        after = await asyncio.to_thread(self._copy.of_copy)
        listed = self._copy.listed(after, before)
        if listed.digest == before.digest:
            return None
        found = await self._compare(before, after)
        await asyncio.to_thread(self._copy.put, before)
        if found is not None and found.reason is None:
            self._found_good = before.digest, listed.digest
        return self._told(found, begun, "before")

    async def _after_call(self) -> Tried | None:
        """Compares the workspace with what it was when the call was about to run; None when nothing of interest has
        changed, or just what was found good before."""
        if self._before is None:
            return None
        begun, before, self._before = self._begin(), self._before, None
        after = await asyncio.to_thread(self._copy.of_source)
        if before.digest == after.digest or self._found_good == (before.digest, after.digest):
            return None
        await asyncio.to_thread(self._copy.put, after)
        found = await self._compare(before, after)
        await asyncio.to_thread(self._copy.put, after, forget=True)
        return self._told(found, begun, "after")

    async def _made(self, call: ToolCall) -> bool:
        """By the very tools that will run it, on the copy. A path given in full is meant in the workspace."""
        workspace = Workspace(self._copy.root)
        tools = ToolRegistry(tryable(workspace, self._sandbox))
        if call.name not in tools:
            return False
        arguments = dict(call.arguments)
        with suppress(WorkspaceError):  # the tool will say so itself; or there is no such file yet
            path = arguments["path"] = self._workspace.relative(self._workspace.resolve(str(arguments.get("path", ""))))
            workspace.note_seen(path, workspace.read(path))
        return (await tools.call(ToolCall(call.name, arguments))).ok

    async def _compare(self, before: Tree, after: Tree) -> Tried | None:
        """What is worse in `after`, which the copy holds, than in `before`; only what repeats counts. Without cost."""
        changed = before.changes_to(after)
        then, now = (self._check.command(filter(tree.has_file, changed)) for tree in (before, after))
        if not now:
            return None
        known = (after.digest, now) in self._results
        found, reason, blind = await self._result(after, now), None, False
        if not self._check.fine(found):
            earlier = await self._result(before, then)
            blind = not self._check.tells(earlier)
            reason = self._check.blame(earlier, found) if not blind else None
            if reason is not None and not known:
                await asyncio.to_thread(self._copy.put, after)
                found = self._results[after.digest, now] = await self._check.confirm(self._bench, now, found)
                reason = self._check.blame(earlier, found)
        return Tried(now, "before", reason, self._check.summary(found), blind=blind)

    async def _result(self, tree: Tree, command: str) -> Found:
        key = (tree.digest, command)
        if key not in self._results:
            await asyncio.to_thread(self._copy.put, tree)
            self._results[key] = await self._check.look(self._bench, command)
            while len(self._results) > KEPT_RESULTS:
                del self._results[next(iter(self._results))]
        return self._results[key]

    def _begin(self) -> tuple[float, int]:
        self._bench.clear()
        return time.perf_counter(), self._bench.runs

    def _told(self, found: Tried | None, begun: tuple[float, int], when: Literal["before", "after"]) -> Tried | None:
        if found is not None:
            seconds, runs = time.perf_counter() - begun[0], self._bench.runs - begun[1]
            self.last = found = replace(found, seconds=seconds, runs=runs, when=when)
            self._untold.append(found)
        return found


@contextmanager
def _copying(trouble: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkspaceError(f"{trouble}: {error}") from error


def tryable(workspace: Workspace, sandbox: Sandbox) -> list[Tool]:
    """The tools whose calls can be tried on a copy without harm: those that write files, and bash where bubblewrap
    keeps it from everything but the copy."""
    confined = sandbox.kind == "bubblewrap" and not sandbox.network
    return [*file_tools(workspace), *([bash_tool(workspace, sandbox=sandbox)] if confined else [])]


def tail(text: str) -> str:
    """The last lines, none of them long."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return head(lines[-LINES_SHOWN:])


def head(lines: Sequence[str]) -> str:
    """The first lines, none of them long, and how many there are besides."""
    shown = [line if len(line) <= LINE_SHOWN else f"{line[:LINE_SHOWN]}..." for line in lines[:LINES_SHOWN]]
    return "\n".join([*shown, *([f"and {len(lines) - LINES_SHOWN} more"] if len(lines) > LINES_SHOWN else [])])

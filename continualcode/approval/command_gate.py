"""CommandGate: denies what a linter or type checker complains of and did not before, found out in a copy."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path

from continualcode.approval.bench import Bench, Ran
from continualcode.approval.trial import Trials, Where, head, tail
from continualcode.errors import ConfigError
from continualcode.tools import Workspace
from continualcode.tools.sandbox import Sandbox

_PLACE = re.compile(r"[^\s:(][^:(]*(:\d+(:\d+)?|\(\d+(,\d+)?\)):? ")
_MOVABLE = re.compile(r"\d+|(?<=\w)s\b")
"""Numbers, and the plurals that go with them."""


class CommandGate(Trials[Ran]):
    """Runs `command` on a copy in which the call has been made, and denies on new complaints only.

    `{paths}` in the command stands for the files that the call changes and `files` fits; without it the command is run
    whole. A complaint is a line that begins with a place, `path:line:`; where there is no such line, any line. One that
    only moved to another line is not new. What is tried and when, and the other arguments, are as with TestRunner.
    `review` and `critique` raise ConfigError when the command cannot be run, or not within the time limit.
    """

    def __init__(
        self,
        workspace: Workspace | Path | str,
        command: str,
        *,
        files: str = "*.py",
        time_limit: float = 60.0,
        approve: bool = False,
        also: Iterable[str] = (),
        sandbox: Sandbox | None = None,
    ) -> None:
        where = Where(workspace, tuple(also), time_limit, sandbox)
        super().__init__(where, _Complaints(command, files), approve=approve)


class _Complaints:
    """The Check behind CommandGate."""

    def __init__(self, command: str, files: str) -> None:
        if not command.strip():
            raise ConfigError("the command is empty; give one such as 'ruff check {paths}'")
        self._command, self._files = command, files

    def command(self, paths: Iterable[str]) -> str:
        """Nothing, where no path fits."""
        fitting = [shlex.quote(os.path.join(".", path)) for path in paths if fnmatch(path, self._files)]
        return self._command.replace("{paths}", " ".join(fitting)) if fitting or "{paths}" not in self._command else ""

    async def look(self, bench: Bench, command: str) -> Ran:
        return await bench.run(command, RUFF_OUTPUT_FORMAT="concise") if command else Ran(0, "")

    def fine(self, found: Ran) -> bool:
        return found.code == 0

    def tells(self, before: Ran) -> bool:
        return True

    def blame(self, before: Ran, after: Ran) -> str | None:
        if not after.can_run:
            what = f"cannot be run:\n{tail(after.output)}" if after.code is not None else "exceeds the time limit"
            raise ConfigError(f"`{self._command}` {what}")
        known = Counter(_fixed(line) for line in _complaints(before.output))
        new = []
        for line in _complaints(after.output):
            known[_fixed(line)] -= 1
            if known[_fixed(line)] < 0:
                new.append(line)
        return f"`{self._command}` has new complaints:\n{head(new)}" if new else None

    def summary(self, found: Ran) -> str:
        complaints = _complaints(found.output) if found.code else []
        return f"{len(complaints):,} complaint{'' if len(complaints) == 1 else 's'}"

    async def confirm(self, bench: Bench, command: str, after: Ran) -> Ran:
        """A checker says the same every time."""
        return after


def _complaints(output: str) -> list[str]:
    lines = [line.removeprefix("./") for line in output.splitlines() if line.strip()]
    return [line for line in lines if _PLACE.match(line)] or lines


def _fixed(line: str) -> str:
    """What stays when lines are added above."""
    return _MOVABLE.sub("", line)

"""Where a gate's command is run: in the copy of the workspace, confined, and so that it says the same every time."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from continualcode.approval.copies import Copy
from continualcode.tools import Workspace, bash_tool
from continualcode.tools.sandbox import Sandbox

_CANNOT_RUN = (126, 127)
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,}")
_TIME = re.compile(r"(\bin |\btime:? +|\t|\()\d+(?:\.\d+)? ?(?=(?:ms|s|seconds?)\b)", re.IGNORECASE)
_PYTEST_FOLDER = re.compile(r"/\S*/pytest-of-[^/\s]+/pytest-\d+")


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command did. `output` is both ends of what it printed; paths, addresses and times in it are the same
    every time."""

    code: int | None
    """None: it did not end within the time limit."""
    output: str

    @property
    def can_run(self) -> bool:
        """Whether there was such a program, and it ended in time."""
        return self.code is not None and self.code not in _CANNOT_RUN


class Bench:
    """Where a command is run: in the copy, as the bash tool would. Python finds the copy's modules before those of an
    editable install of the workspace."""

    def __init__(self, copy: Copy, time_limit: float, sandbox: Sandbox) -> None:
        self.runs = 0
        self._copy, self._scratch = copy, copy.around / "scratch"
        self._bash = bash_tool(Workspace(copy.around), timeout=time_limit, sandbox=sandbox)

    def clear(self) -> None:
        """Removes what earlier runs left in their folders."""
        shutil.rmtree(self._scratch, ignore_errors=True)

    def folder(self) -> Path:
        """A new one outside of the copy, that the command may write to."""
        made = self._scratch / str(self.runs)
        made.mkdir(parents=True)
        return made

    async def run(self, command: str, *, also_import_from: Path | None = None, **environment: str) -> Ran:
        self.runs += 1
        self._scratch.mkdir(exist_ok=True)
        code = self._scratch / "code"
        code.unlink(missing_ok=True)
        root = self._copy.root
        imports = (root, root / "src", also_import_from, os.environ.get("PYTHONPATH"))
        environment |= {"PYTHONPATH": ":".join(str(path) for path in imports if path), "PYTHONHASHSEED": "0"}
        exports = " ".join(f"{name}={shlex.quote(value)}" for name, value in environment.items())
        line = f"cd {shlex.quote(str(root))} && {exports} bash -c {shlex.quote(self._reachable(command))}"
        result = await self._bash(cmd=f"{line}; echo $? > {shlex.quote(str(code))}")
        ended = code.read_text().strip() if code.exists() else ""
        return Ran(int(ended) if ended else None, self.steady(result.output))

    def steady(self, text: str) -> str:
        """The text without what differs from run to run."""
        text = text.replace(f"{self._copy.root}/", "").replace(str(self._copy.root), ".")
        return _TIME.sub(r"\1N ", _ADDRESS.sub("at 0x...", _PYTEST_FOLDER.sub("/tmp/pytest", text)))

    def _reachable(self, command: str) -> str:
        """A program named by a path into the workspace that is not in the copy, as in `.venv/bin/pytest`, is still run."""
        program, space, rest = command.partition(" ")
        own, real = self._copy.root / program, self._copy.source / program
        absent = "/" in program and not own.exists() and real.is_file()
        return f"{shlex.quote(str(real))}{space}{rest}" if absent else command

"""The tools that find things: glob by name, grep by content, both through ripgrep or its stand-in, scan.py.

Knows nothing of how files are read or walked: a searching process prints, and what it prints is sorted and cut here.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest
from pathlib import Path
from typing import IO, NamedTuple

from continualcode.errors import ToolError
from continualcode.tools import scan
from continualcode.tools.pattern import Pattern
from continualcode.tools.registry import FunctionTool, tool
from continualcode.tools.text import is_binary, shown
from continualcode.tools.workspace import Workspace

SEARCH_SECONDS = 20.0
MAX_RESULTS = 200
MAX_CHARACTERS = 24_000
MAX_LINE = 300
_RECORD = re.compile(rb"([^\0]*)\0(\d+):([^\n]*)\n")


def find_ripgrep() -> str | None:
    """The program rg: from the extra `ripgrep`, beside this Python, or else from PATH."""
    beside = os.pathsep.join((sysconfig.get_path("scripts"), str(Path(sys.executable).parent)))
    return shutil.which("rg", path=beside) or shutil.which("rg")


def search_tools(workspace: Workspace, *, ripgrep: str | None) -> list[FunctionTool]:
    """glob and grep in one workspace, with this ripgrep, or with none: the results are the same."""
    engine = _Engine(workspace, ripgrep)

    @tool
    async def glob(pat: str, path: str = ".") -> str:
        """List files by pattern, such as **/*.py."""
        pattern = Pattern.read(pat)
        start = _start(workspace, path)
        base = start if start.is_dir() else start.parent
        prefix = "./" if base == workspace.root else f"./{workspace.relative(base)}/"
        found = pattern.matching(await engine.files(start, pattern.last_parts), prefix)
        if not found:
            return f"no files match {pat}" + ("; **/ searches in all folders below" if "**" not in pat else "")
        first = [shown(name.removeprefix("./")) for name in nsmallest(MAX_RESULTS, found)]
        return _joined(first, len(found), "more; narrow the pattern")

    @tool
    async def grep(pat: str, path: str = ".") -> str:
        """Search files for a regular expression."""
        if not pat or "\n" in pat or "\0" in pat:
            raise ToolError("pat must be a regular expression for within one line: not empty, without line breaks")
        return (await engine.grep(pat, _start(workspace, path))).told(pat)

    return [glob, grep]


class _Match(NamedTuple):
    """In the order in which matches are shown."""

    path: str
    number: int
    line: bytes


@dataclass(slots=True)
class _Matches:
    """The first matches by path and line in text files, and how many there are besides, in bounded memory."""

    root: Path
    prefix: str
    total: int = 0
    kept: list[_Match] = field(default_factory=list)
    _text: dict[str, bool] = field(default_factory=dict)
    _skipped: Counter[str] = field(default_factory=Counter)

    def feed(self, output: bytes) -> bytes:
        """Takes the whole records of what the process printed; returns what is left."""
        end = 0
        for record in _RECORD.finditer(output):
            end = record.end()
            path = _decode_path(record[1])
            if path.startswith(self.prefix):
                self.total += 1
                self.kept.append(_Match(path, int(record[2]), record[3][: 8 * MAX_LINE]))
                if len(self.kept) >= 8 * MAX_RESULTS:
                    self._cut()
        return output[end:]

    def told(self, pat: str) -> str:
        """Matches that come after the last one shown are counted without a look at whether their files are text."""
        self._cut()
        if not self.kept:
            return f"no line matches {pat}"
        is_cut, last = len(self.kept) == MAX_RESULTS, self.kept[-1].path
        skipped = sum(count for path, count in self._skipped.items() if not is_cut or path < last)
        lines = [f"{shown(match.path)}:{match.number}:{_clip(match.line)}" for match in self.kept]
        return _joined(lines, self.total - skipped, "more matches; narrow the pattern or the path")

    def _cut(self) -> None:
        self.kept.sort()
        first: list[_Match] = []
        for match in self.kept:
            if len(first) == MAX_RESULTS:
                break
            if self._is_text(match.path):
                first.append(match)
            else:
                self._skipped[match.path] += 1
        self.kept = first

    def _is_text(self, path: str) -> bool:
        if path not in self._text:
            try:
                with open(self.root / path, "rb") as file:
                    self._text[path] = not is_binary(file.read(8192))
            except OSError:  # gone, or changed, since it was searched
                self._text[path] = False
        return self._text[path]


@dataclass(frozen=True, slots=True)
class _Engine:
    workspace: Workspace
    ripgrep: str | None

    async def files(self, start: Path, named: Sequence[str] = ()) -> list[str]:
        """The files below, or the one file, that are not ignored; relative to the workspace, as ./path.

        Those that have none of the names may be left out, which is faster; without names, all are wanted.
        """
        listed: list[bytes] = []
        where, inherit, prefix = self._scope(start)
        if self.ripgrep:
            of_type = [word for name in named for word in (f"--type-add=sought:{name}", "--type=sought")]
            argv = [*_ripgrep(self.ripgrep, inherit), *of_type, "--files", "--null", "--", where]
        else:
            argv = _scan("files", where, inherit)

        def feed(output: bytes) -> bytes:
            listed.append(output)
            return b""

        _check(await self._run(argv, feed))
        names = os.fsdecode(b"".join(listed)).split("\0")[:-1]
        return [name for name in names if name.startswith(f"./{prefix}")] if prefix else names

    async def grep(self, pat: str, start: Path) -> _Matches:
        where, inherit, prefix = self._scope(start)
        if self.ripgrep:
            matches = _Matches(self.workspace.root, prefix)
            limits = ["--max-columns", str(scan.MAX_LINE), "--max-columns-preview"]
            argv = [*_ripgrep(self.ripgrep, inherit), "--text", "--crlf", "--null", "--line-number", "--with-filename"]
            argv += ["--no-heading", "--color=never", *limits, "-e", pat, "--", where]
            if not await self._run(argv, matches.feed):
                return matches
            # ripgrep knows no look-around and no back-references; Python does.
        matches = _Matches(self.workspace.root, prefix)
        _check(await self._run([*_scan("grep", where, inherit), pat], matches.feed))
        return matches

    def _scope(self, start: Path) -> tuple[str, bool, str]:
        """Where to search, whether the .gitignore files above count, and what the results must begin with."""
        root = self.workspace.root
        prefix = "" if start == root else self.workspace.relative(start) + ("/" if start.is_dir() else "")
        where = f"./{prefix}"
        if scan.is_ignored(str(root), str(start)):
            return where, False, ""
        if scan.in_repository(str(start)):
            return where, True, ""
        between = [folder for folder in start.parents if folder.is_relative_to(root)]
        if start.is_dir() and any((folder / ".gitignore").is_file() for folder in between):
            return "./", False, prefix
        return where, False, ""

    async def _run(self, argv: list[str], feed: Callable[[bytes], bytes]) -> str:
        """Feeds what the process prints to `feed`, which returns what it could not use yet; returns what the process
        complained of, or ""."""
        with tempfile.TemporaryFile() as complaint:
            process = _started(argv, self.workspace.root, complaint)
            reading = asyncio.ensure_future(asyncio.to_thread(_read_all, process, feed))
            try:
                async with asyncio.timeout(SEARCH_SECONDS):
                    await asyncio.shield(reading)
            except TimeoutError as error:
                message = f"the search took more than {SEARCH_SECONDS:g} seconds; narrow the pattern or the path"
                raise ToolError(message) from error
            finally:
                process.kill()  # does nothing to one that is over
                await reading
            complaint.seek(0)
            return shown(complaint.read().decode("utf-8", "replace")).strip()


def _started(argv: list[str], folder: Path, complaint: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(argv, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=complaint)


def _read_all(process: subprocess.Popen[bytes], feed: Callable[[bytes], bytes]) -> None:
    with process:  # closes the pipe and waits
        rest = b""
        while process.stdout is not None and (chunk := os.read(process.stdout.fileno(), 1 << 18)):
            rest = feed(rest + chunk)


def _check(complaint: str) -> None:
    if complaint:
        raise ToolError(f"the search failed: {complaint.splitlines()[-1]}")


def _ripgrep(program: str, inherit: bool) -> list[str]:
    """ripgrep with .gitignore and hidden files honoured as scan.py does, whatever the user has configured."""
    own = [] if inherit else ["--no-require-git", "--no-ignore-parent"]
    only_gitignore = ["--no-ignore-global", "--no-ignore-exclude", "--no-ignore-dot"]
    return [program, "--no-config", "--no-messages", "--hidden", "--glob=!.git", *only_gitignore, *own]


def _scan(mode: str, where: str, inherit: bool) -> list[str]:
    return [sys.executable, "-I", "-S", "-W", "ignore", scan.__file__, mode, where, "inherit" if inherit else "own"]


def _start(workspace: Workspace, path: str) -> Path:
    start = workspace.resolve(path)
    if not start.exists():
        raise ToolError(f"no file or folder {path}")
    if ".git" in start.relative_to(workspace.root).parts:
        raise ToolError(f"{path} belongs to git; use git through bash")
    return start


def _joined(lines: list[str], total: int, more: str) -> str:
    """As many lines as fit, and how many do not."""
    out: list[str] = []
    size = 0
    for line in lines[:MAX_RESULTS]:
        size += len(line) + 1
        if size > MAX_CHARACTERS:
            break
        out.append(line)
    if total > len(out):
        out.append(f"... {total - len(out):,} {more}")
    return "\n".join(out)


def _clip(line: bytes) -> str:
    text = shown(line.decode("utf-8", "replace")).removesuffix("\r")
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]}..."


def _decode_path(path: bytes) -> str:
    return os.fsdecode(path).removeprefix("./")

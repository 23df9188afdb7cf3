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
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO

from continualcode.errors import ToolError
from continualcode.tools import scan
from continualcode.tools.registry import FunctionTool, tool
from continualcode.tools.text import is_binary, shown
from continualcode.tools.workspace import Workspace

SEARCH_SECONDS = 20.0
MAX_RESULTS = 200
MAX_CHARACTERS = 24_000
MAX_LINE = 300
_RECORD = re.compile(rb"([^\0]*)\0(\d+):([^\n]*)\n")
_NAME = re.compile(rb"([^\0]*)\0")
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")


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
        patterns = _read_pattern(pat)
        start = _start(workspace, path)
        names = await engine.files(start)
        base = start if start.is_dir() else start.parent
        prefix = "" if base == workspace.root else f"{workspace.relative(base)}/"
        below = sorted(name.removeprefix(prefix) for name in names)
        if not any("**" in pattern for pattern in patterns):
            below = _with_folders(below)
        found = [prefix + name for name in below if any(_fits(name, pattern) for pattern in patterns)]
        if not found:
            return f"no files match {pat}" + ("; **/ searches in all folders below" if "**" not in pat else "")
        return _joined([shown(name) for name in found], len(found), "more; narrow the pattern")

    @tool
    async def grep(pat: str, path: str = ".") -> str:
        """Search files for a regular expression."""
        if not pat or "\n" in pat or "\0" in pat:
            raise ToolError("pat must be a regular expression for within one line: not empty, without line breaks")
        return (await engine.grep(pat, _start(workspace, path))).told(pat)

    return [glob, grep]


@dataclass(frozen=True, slots=True)
class _Match:
    path: str
    number: int
    line: bytes

    @property
    def order(self) -> tuple[str, int]:
        return self.path, self.number


@dataclass(slots=True)
class _Matches:
    """The first matches by path and line, and how many there were of all, in bounded memory."""

    root: Path
    prefix: str
    total: int = 0
    kept: list[_Match] = field(default_factory=list)
    _text: dict[str, bool] = field(default_factory=dict)

    def add(self, record: re.Match[bytes]) -> None:
        path = _decode_path(record[1])
        if not path.startswith(self.prefix) or not self._is_text(path):
            return
        self.total += 1
        self.kept.append(_Match(path, int(record[2]), record[3][: 8 * MAX_LINE]))
        if len(self.kept) >= 8 * MAX_RESULTS:
            self._cut()

    def told(self, pat: str) -> str:
        if not self.total:
            return f"no line matches {pat}"
        self._cut()
        lines = [f"{shown(match.path)}:{match.number}:{_clip(match.line)}" for match in self.kept]
        return _joined(lines, self.total, "more matches; narrow the pattern or the path")

    def _cut(self) -> None:
        self.kept.sort(key=lambda match: match.order)
        del self.kept[MAX_RESULTS:]

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

    async def files(self, start: Path) -> list[str]:
        """The files below, or the one file, that are not ignored; relative to the workspace."""
        names: list[str] = []
        where, inherit, prefix = self._scope(start)
        if self.ripgrep:
            argv = [*_ripgrep(self.ripgrep, inherit), "--files", "--null", "--", where]
        else:
            argv = _scan("files", where, inherit)
        _check(await self._run(argv, _NAME, lambda record: names.append(_decode_path(record[1]))))
        return [name for name in names if name.startswith(prefix)]

    async def grep(self, pat: str, start: Path) -> _Matches:
        where, inherit, prefix = self._scope(start)
        if self.ripgrep:
            matches = _Matches(self.workspace.root, prefix)
            limits = ["--max-columns", str(scan.MAX_LINE), "--max-columns-preview"]
            argv = [*_ripgrep(self.ripgrep, inherit), "--text", "--crlf", "--null", "--line-number", "--with-filename"]
            argv += ["--no-heading", "--color=never", *limits, "-e", pat, "--", where]
            if not await self._run(argv, _RECORD, matches.add):
                return matches
            # ripgrep knows no look-around and no back-references; Python does.
        matches = _Matches(self.workspace.root, prefix)
        _check(await self._run([*_scan("grep", where, inherit), pat], _RECORD, matches.add))
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

    async def _run(self, argv: list[str], record: re.Pattern[bytes], take: Callable[[re.Match[bytes]], None]) -> str:
        """Feeds every record that the process prints to `take`; returns what it complained of, or ""."""
        with tempfile.TemporaryFile() as complaint:
            process = _started(argv, self.workspace.root, complaint)
            reading = asyncio.ensure_future(asyncio.to_thread(_read_records, process, record, take))
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


def _read_records(
    process: subprocess.Popen[bytes], record: re.Pattern[bytes], take: Callable[[re.Match[bytes]], None]
) -> None:
    with process:  # closes the pipe and waits
        rest = b""
        while process.stdout is not None and (chunk := os.read(process.stdout.fileno(), 1 << 18)):
            rest += chunk
            end = 0
            for found in record.finditer(rest):
                take(found)
                end = found.end()
            rest = rest[end:]


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


def _read_pattern(pat: str) -> list[list[str]]:
    """The pattern's alternatives, each as its parts between slashes."""
    if not pat or pat.startswith("/") or ".." in pat.split("/"):
        raise ToolError(f"pat must be a pattern relative to path, like **/*.py, not {pat!r}")
    return [[part for part in plain.split("/") if part not in ("", ".")] for plain in _alternatives(pat)]


def _alternatives(pat: str) -> list[str]:
    """`{a,b}` written out; at most 1,000 patterns come of it."""
    done, todo = [], [pat]
    while todo:
        item = todo.pop()
        if (braces := _BRACES.search(item)) is None:
            done.append(item)
            continue
        todo += [item[: braces.start()] + choice + item[braces.end() :] for choice in braces[1].split(",")]
        if len(done) + len(todo) > 1000:
            raise ToolError(f"pat stands for too many patterns: {pat}")
    return done


def _fits(name: str, pattern: list[str]) -> bool:
    return _parts_fit(name.rstrip("/").split("/"), pattern)


def _parts_fit(parts: list[str], pattern: list[str]) -> bool:
    if not pattern or not parts:
        return not pattern and not parts
    if pattern[0] != "**":
        return fnmatchcase(parts[0], pattern[0]) and _parts_fit(parts[1:], pattern[1:])
    if len(pattern) == 1:
        return True
    return any(_parts_fit(parts[index:], pattern[1:]) for index in range(len(parts)))


def _with_folders(names: list[str]) -> list[str]:
    """The files and the folders that they are in, which end in a slash."""
    folders = {name[: index + 1] for name in names for index, character in enumerate(name) if character == "/"}
    return sorted([*names, *folders])


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

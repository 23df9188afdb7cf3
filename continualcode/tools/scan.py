"""Lists and searches a folder's files as ripgrep would, for where there is no ripgrep; a program of its own.

A process and not a thread, because a regular expression that runs for ever can only be ended from outside.

    python scan.py files FOLDER_OR_FILE inherit|own              prints  path NUL
    python scan.py grep  FOLDER_OR_FILE inherit|own PATTERN      prints  path NUL line number ":" text newline

Run in the workspace's root; paths are relative to it. `inherit` honours .gitignore as git does inside a repository:
those of the folders above too, up to the repository's top. `own` honours those from the given folder downwards.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from pathspec import GitIgnoreSpec

MAX_LINE = 4096
"""Characters of a matching line that are printed."""


@dataclass(frozen=True, slots=True)
class Ignores:
    """The .gitignore files in force in one folder, the outermost first. All paths here are absolute."""

    bounded: bool
    """A repository inside is not subject to what is ignored outside of it."""
    specs: tuple[tuple[str, GitIgnoreSpec], ...] = ()

    @classmethod
    def above(cls, folder: str) -> Ignores:
        """What the folders above `folder`, an absolute path, impose on it."""
        parent = os.path.dirname(folder)
        if parent == folder or os.path.lexists(os.path.join(folder, ".git")):
            return cls(True)
        return cls.above(parent).inside(parent)

    def inside(self, folder: str) -> Ignores:
        """What is in force in `folder`, given that this is in force in the folder around it."""
        around = () if self.bounded and os.path.lexists(os.path.join(folder, ".git")) else self.specs
        spec = _read_spec(os.path.join(folder, ".gitignore"))
        return Ignores(self.bounded, around if spec is None else (*around, (os.path.join(folder, ""), spec)))

    def cover(self, path: str, *, is_folder: bool) -> bool:
        """Whether the path is ignored; the innermost file that mentions it decides."""
        for folder, spec in reversed(self.specs):
            named = path.removeprefix(folder)
            decided = spec.check_file(f"{named}/" if is_folder else named).include
            if decided is not None:
                return decided
        return False


def is_ignored(root: str, path: str) -> bool:
    """Whether a search from `root` would not come to `path`, both absolute and real."""
    inherit = in_repository(root)
    ignores = Ignores.above(root) if inherit else Ignores(False)
    at = root
    for part in os.path.relpath(path, root).split("/"):
        ignores = ignores.inside(at)
        at = os.path.normpath(os.path.join(at, part))
        if at != root and ignores.cover(at, is_folder=os.path.isdir(at)):
            return True
    return False


def in_repository(folder: str) -> bool:
    """Whether the folder, or one above it, is the top of a git repository."""
    parent = os.path.dirname(folder)
    return os.path.lexists(os.path.join(folder, ".git")) or (parent != folder and in_repository(parent))


def walk(folder: str, ignores: Ignores) -> Iterator[str]:
    """Every file below that is neither ignored nor in .git nor behind a symlink, in no order."""
    ignores = ignores.inside(folder)
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:  # not ours to read: as if it were empty
        return
    for entry in found:
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name == ".git" or not (is_folder or entry.is_file(follow_symlinks=False)):
            continue
        if ignores.cover(entry.path, is_folder=is_folder):
            continue
        if is_folder:
            yield from walk(entry.path, ignores)
        else:
            yield entry.path


def matches(path: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Line numbers, from 1, and lines of the file that the pattern is found in."""
    with suppress(OSError), open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            text = line.removesuffix("\n").removesuffix("\r")
            if pattern.search(text):
                yield number, text


def _read_spec(path: str) -> GitIgnoreSpec | None:
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except OSError:
        return None
    return GitIgnoreSpec.from_lines(line for line in lines if _is_sound(line))


def _is_sound(line: str) -> bool:
    """git passes over what is no pattern."""
    try:
        GitIgnoreSpec.from_lines([line])
    except ValueError:
        return False
    return True


def main(mode: str, start: str, scope: str, pattern: str = "") -> None:
    start = os.path.abspath(start)
    ignores = Ignores.above(start) if scope == "inherit" else Ignores(False)
    files = [start] if os.path.isfile(start) else walk(start, ignores)
    try:
        compiled = re.compile(pattern) if mode == "grep" else None
    except re.error as error:
        sys.exit(f"not a valid regular expression: {error}; escape what is meant literally")
    out = sys.stdout.buffer
    root = os.getcwd()
    for path in files:
        name = os.fsencode(os.path.relpath(path, root))
        if compiled is None:
            out.write(name + b"\0")
            continue
        for number, text in matches(path, compiled):
            line = text[:MAX_LINE].encode("utf-8", "surrogateescape")
            out.write(b"%s\0%d:%s\n" % (name, number, line))


if __name__ == "__main__":
    main(*sys.argv[1:])

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
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass

MAX_LINE = 4096
"""Characters of a matching line that are printed."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a .gitignore, as gitignore(5) has it."""

    pattern: re.Pattern[str]
    names_only: bool
    """Matches a name in any folder below, not a path from the .gitignore's own."""
    folders_only: bool
    negated: bool

    @classmethod
    def read(cls, line: str) -> Rule | None:
        """None for a comment, an empty line, and what is no pattern."""
        line = re.sub(r"(?<!\\) +$", "", line)
        negated = line.startswith("!")
        body = line[negated:]
        folders_only = body.endswith("/")
        body = body[: len(body) - folders_only]
        if not body or line.startswith("#"):
            return None
        try:
            return cls(re.compile(translate(body.removeprefix("/"))), "/" not in body, folders_only, negated)
        except re.error:
            return None

    def mentions(self, path: str, name: str, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        return self.pattern.fullmatch(name if self.names_only else path) is not None


@dataclass(frozen=True, slots=True)
class Ignores:
    """The .gitignore files in force in one folder, the outermost first. All paths here are absolute."""

    bounded: bool
    """A repository inside is not subject to what is ignored outside of it."""
    rules: tuple[tuple[str, tuple[Rule, ...]], ...] = ()

    @classmethod
    def above(cls, folder: str) -> Ignores:
        """What the folders above `folder`, an absolute path, impose on it."""
        parent = os.path.dirname(folder)
        if parent == folder or os.path.lexists(os.path.join(folder, ".git")):
            return cls(True)
        return cls.above(parent).inside(parent)

    def inside(self, folder: str) -> Ignores:
        """What is in force in `folder`, given that this is in force in the folder around it."""
        around = () if self.bounded and os.path.lexists(os.path.join(folder, ".git")) else self.rules
        own = read_rules(os.path.join(folder, ".gitignore"))
        return Ignores(self.bounded, (*around, (os.path.join(folder, ""), own)) if own else around)

    def cover(self, path: str, *, is_folder: bool) -> bool:
        """Whether the path is ignored; the innermost file that mentions it decides."""
        name = os.path.basename(path)
        for folder, rules in reversed(self.rules):
            for rule in reversed(rules):
                if rule.mentions(path.removeprefix(folder), name, is_folder):
                    return not rule.negated
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


def walk(folder: str, ignores: Ignores | None, without: Container[str] = ()) -> Iterator[os.DirEntry[str]]:
    """All below that is neither ignored nor in .git nor in a folder `without` nor behind a symlink, in no order.

    `ignores` is in force around the folder; None ignores nothing.
    """
    inside = ignores.inside(folder) if ignores is not None else None
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
    except OSError:  # not ours to read: as if it were empty
        return
    for entry in found:
        is_folder = entry.is_dir(follow_symlinks=False)
        if entry.name == ".git" or (is_folder and entry.name in without):
            continue
        if inside is not None and inside.cover(entry.path, is_folder=is_folder):
            continue
        yield entry
        if is_folder:
            yield from walk(entry.path, inside, without)


def matches(path: str, pattern: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """Line numbers, from 1, and lines of the file that the pattern is found in."""
    with suppress(OSError), open(path, encoding="utf-8-sig", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            text = line.removesuffix("\n").removesuffix("\r")
            if pattern.search(text):
                yield number, text


def read_rules(path: str) -> tuple[Rule, ...]:
    """The rules of a .gitignore; none where there is no such file."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            lines = file.read().split("\n")
    except OSError:
        return ()
    return tuple(rule for rule in map(Rule.read, lines) if rule is not None)


_GLOB = re.compile(
    r"(?P<deep>(?:^|(?<=/))\*\*/)|(?P<inside>(?<=/)\*\*$)|(?P<star>\*+)|(?P<any>\?)"
    r"|\[(?P<not>[!^]?)(?P<set>\]?(?:\\.|[^\]\\])*)\]|\\(?P<escaped>.)|(?P<wrong>[\[\\])|(?P<plain>.)",
    re.DOTALL,
)


def translate(glob: str) -> str:
    """A regular expression for the glob. Raises re.error for a bracket that is not closed and the like."""
    parts = []
    for found in _GLOB.finditer(glob):
        match found.lastgroup:
            case "deep":
                parts.append("(?:.*/)?")
            case "inside":
                parts.append(".+")
            case "star":
                parts.append("[^/]*")
            case "any":
                parts.append("[^/]")
            case "set":
                members = re.sub(r"\\?([^-])", lambda member: re.escape(member[1]), found["set"])
                parts.append(f"(?!/)[{'^' if found['not'] else ''}{members}]")
            case "escaped" | "plain":
                parts.append(re.escape(found["escaped"] or found["plain"]))
            case _:
                raise re.error(f"not a pattern: {glob}")
    return "(?s:" + "".join(parts) + ")"


def main(mode: str, start: str, scope: str, pattern: str = "") -> None:
    start = os.path.abspath(start)
    ignores = Ignores.above(start) if scope == "inherit" else Ignores(False)
    below = (entry.path for entry in walk(start, ignores) if entry.is_file(follow_symlinks=False))
    files = [start] if os.path.isfile(start) else below
    try:
        compiled = re.compile(pattern) if mode == "grep" else None
    except re.error as error:
        sys.exit(f"not a valid regular expression: {error}; escape what is meant literally")
    out = sys.stdout.buffer
    root = os.getcwd()
    for path in files:
        name = os.fsencode(os.path.join(".", os.path.relpath(path, root)))
        if compiled is None:
            out.write(name + b"\0")
            continue
        for number, text in matches(path, compiled):
            line = text[:MAX_LINE].encode("utf-8", "surrogateescape")
            out.write(b"%s\0%d:%s\n" % (name, number, line))


if __name__ == "__main__":
    main(*sys.argv[1:])

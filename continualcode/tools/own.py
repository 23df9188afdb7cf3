"""The agent's own files: what no tool may write, because it decides what is loaded, what is asked about and what git runs.

Knows nothing of tools or shells.
"""

from __future__ import annotations

import os
import shutil
import stat
import unicodedata
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

_GIT = ("config", "config.worktree", "commondir", "hooks")
"""What in a repository makes git run programs, or read other settings."""
_PLAIN_CONFIG = b"[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\tlogallrefupdates = true\n"
_MAX_FILES, _MAX_BYTES = 200, 2**20

_Entries: TypeAlias = "Mapping[Path, tuple[int, bytes]]"
"""Of each path its mode, and its bytes or where a link leads; nothing for a path that does not exist."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What was at some of the own paths."""

    trees: Mapping[Path, _Entries]
    git: _Entries
    """What `.git` itself was."""


class OwnFiles:
    """`settings` and `elsewhere`, with all that lies below them, and what governs git in `root`. Existing or not."""

    def __init__(self, root: Path, settings: Iterable[Path] = (), elsewhere: Iterable[Path] = ()) -> None:
        self._root, self._git = root, root / ".git"
        self._settings = tuple(Path(os.path.realpath(path)) for path in settings)
        self._paths = (*self._settings, *(Path(os.path.realpath(path)) for path in elsewhere))

    @property
    def present(self) -> tuple[Path, ...]:
        """The real paths of those that exist; a folder stands for all below it."""
        return tuple(Path(os.path.realpath(path)) for path in (*self._paths, *self._governing()) if path.exists())

    def holds(self, target: Path) -> bool:
        """Whether the real path `target` is one of them, lies below one or, inside the root, in any repository's .git.

        Names are compared as the most lenient file system would; another name of the same file or folder counts too.
        """
        if target.is_relative_to(self._root) and ".git" in map(_lenient, target.relative_to(self._root).parts):
            return True
        lineage = (target, *target.parents)
        if {_spelt(path) for path in lineage} & {_spelt(path) for path in self._paths}:
            return True
        return bool(_identities(lineage) & _identities((*self._paths, *self._governing())))

    def keep(self, *, read_only: bool) -> Kept:
        """A copy of what is in the root and small: settings and what governs git, each path of at most 200 files.

        Where what is there is `read_only`, only of what is not there or has another name; nobody else can change it.
        """
        inside = [path for path in self._settings if path.is_relative_to(self._root)]
        reached = [path for path in (*inside, *self._governing()) if not _linked(path, self._root)]
        trees = {path: tree for path in reached if (tree := _read(path)) is not None}
        open_ = {path: tree for path, tree in trees.items() if not (read_only and tree) or _has_other_names(tree)}
        return Kept(open_, _itself(self._git))

    def put_back(self, kept: Kept) -> tuple[Path, ...]:
        """Makes them as they were, and says which were not. A repository that is new keeps git's plain settings."""
        changed = []
        now = _itself(self._git)
        if now and now != kept.git and not (self._git.is_dir() and not self._git.is_symlink() and not kept.git):
            _restore(self._git, kept.git if not stat.S_ISDIR(kept.git.get(self._git, (0, b""))[0]) else {})
            changed.append(self._git)
        for path, before in kept.trees.items():
            if (link := _linked(path, self._root)) is not None:
                link.unlink()  # it was not there before, and leads to what is not ours to put back
                changed.append(link)
            tree = _read(path)
            if not path.parent.is_dir() and self._git in path.parents:
                continue  # all of the repository is gone; what governs it alone would be none
            if not kept.git and path.parent == self._git and tree:
                before = _fresh(path, tree)
            if tree != before:
                _restore(path, before)
                changed.append(path)
        return tuple(changed)

    def _governing(self) -> tuple[Path, ...]:
        modules = (head.parent for head in self._git.glob("modules/**/HEAD"))
        return tuple(repository / name for repository in (self._git, *modules) for name in _GIT)


def _fresh(path: Path, tree: _Entries) -> _Entries:
    """What is left of a repository that has just come to be: samples of hooks, and settings that run nothing."""
    if path.name == "hooks":
        return {at: entry for at, entry in tree.items() if at == path or at.suffix == ".sample"}
    return {path: (tree[path][0], _PLAIN_CONFIG)} if path.name == "config" else {}


def _itself(path: Path) -> _Entries:
    """The path without what is below it."""
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return {}
    if stat.S_ISLNK(mode):
        return {path: (mode, os.fsencode(os.readlink(path)))}
    return {path: (mode, path.read_bytes() if stat.S_ISREG(mode) else b"")}


def _read(path: Path) -> _Entries | None:
    """All that is at or below the path; None when that is too much."""
    if path.is_file() and path.stat().st_size > _MAX_BYTES:
        return None
    found = dict(_itself(path))
    if path.is_dir() and not path.is_symlink():
        for item in path.iterdir():
            below = _read(item)
            if below is None or len(found) > _MAX_FILES:
                return None
            found |= below
    return found


def _linked(path: Path, root: Path) -> Path | None:
    """The first link on the way from the root to the path."""
    above = [folder for folder in reversed(path.parents) if folder != root and folder.is_relative_to(root)]
    return next((folder for folder in above if folder.is_symlink()), None)


def _has_other_names(tree: _Entries) -> bool:
    return any(stat.S_ISREG(mode) and path.stat().st_nlink > 1 for path, (mode, _) in tree.items())


def _restore(path: Path, before: _Entries) -> None:
    """In new files: whoever still holds an old one, or another name of it, writes in vain."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if before:
        path.parent.mkdir(parents=True, exist_ok=True)
    for at, (mode, data) in sorted(before.items()):
        if stat.S_ISLNK(mode):
            at.symlink_to(os.fsdecode(data))
            continue
        if stat.S_ISDIR(mode):
            at.mkdir()
        else:
            at.write_bytes(data)
        at.chmod(stat.S_IMODE(mode))


def _identities(paths: Iterable[Path]) -> set[tuple[int, int]]:
    found = set()
    for path in paths:
        with suppress(OSError):  # not there, or not to be looked at
            status = path.stat()
            found.add((status.st_dev, status.st_ino))
    return found


def _spelt(path: Path) -> tuple[str, ...]:
    return tuple(map(_lenient, path.parts))


def _lenient(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold()
    return "".join(letter for letter in plain if unicodedata.category(letter) != "Cf").rstrip(" .")

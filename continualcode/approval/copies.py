"""A throw-away copy of a workspace, kept from one trial to the next: only what changed is written again.

Knows files, not tools or tests. It holds what git lists (tracked, or new and not ignored); without git, what no
.gitignore ignores. Copy-on-write where the file system can; never a hard link, so nothing done here reaches the workspace.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from continualcode.tools.scan import Ignores, in_repository, walk
from continualcode.tools.tree import Entries, Entry, Tree, digest_of, entry_of, put_back

CACHES = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache"})
"""Folders that programs keep for speed and check by themselves; they stay from run to run."""
_COPIED = (stat.S_IFREG, stat.S_IFLNK, stat.S_IFDIR)
_FOLDER = Entry(stat.S_IFDIR | 0o755, "")


class Copy:
    """The copy of `source` in `root`, made by the first `put` and removed with this.

    It lies in the folder for temporary files; copy-on-write takes a TMPDIR on the file system of `source`. `also` are
    ignored files and folders that are copied as well.
    """

    def __init__(self, source: Path, *, also: Iterable[str] = ()) -> None:
        self.source, self._also, self._git = source, tuple(also), _git_outside(source)
        self.around = Path(tempfile.mkdtemp(prefix="continualcode-trial-")).resolve()
        self.root = self.around / "work"
        self.root.mkdir()
        weakref.finalize(self, shutil.rmtree, self.around, ignore_errors=True)
        self._real: Entries = {}
        self._mine: Entries = {}
        self._held = Tree({})
        self._bytes: dict[str, bytes] = {}
        self._tick = int(time.time())

    def of_source(self) -> Tree:
        """The workspace as it is now."""
        self._real = _read(self.source, self._listed(), self._real)
        files = {name: self._inward(entry) for name, entry in self._real.items() if entry.kind in _COPIED}
        return Tree({**dict.fromkeys(_folders_of(files), _FOLDER), **files})

    def of_copy(self) -> Tree:
        """The copy as a program has left it; a later `put` can bring this back."""
        there = self._present().entries.items()
        tree = Tree({name: entry for name, entry in there if entry.kind in _COPIED})
        for name in self._held.changes_to(tree):  # on both sides, before the workspace goes on
            self._remember(self.root / name)
            self._remember(self.source / name)
        return tree

    def listed(self, tree: Tree, before: Tree) -> Tree:
        """Of a tree that the copy holds, what the workspace would list: without new files that are ignored."""
        new = tree.entries.keys() - before.entries.keys()
        kept = before.entries.keys() | (set(_below(self.root, Ignores(False))) if new else set())
        return Tree({name: entry for name, entry in tree.entries.items() if name in kept})

    def put(self, tree: Tree, *, forget: bool = False) -> None:
        """Makes the copy hold these files, all else but `CACHES` being removed.

        Every file written gets a time stamp of its own, later than any before: what goes by time stamps, such as
        Python's bytecode and make, sees each change, also a second one within the same second. With `forget` no tree
        from before can be put back later.
        """
        changes = tree.changes_to(self._present())
        if forget:
            self._bytes.clear()
        else:
            for name, (_, there) in changes.items():
                if there == self._held.entries.get(name):  # and so no program's that ran meanwhile
                    self._remember(self.root / name)
        for name, (wanted, there) in changes.items():
            if there == _FOLDER != wanted:  # with the caches in it; what was in it goes along
                shutil.rmtree(self.root / name, ignore_errors=True)
        self._tick = max(self._tick + 1, int(time.time()) + 1)
        put_back(self.root, changes, self._write)
        self._held = tree

    def _present(self) -> Tree:
        """Of folders only that they are there: a program may have changed their modes, and the workspace's do not matter."""
        folders, files, start = list[str](), list[str](), len(os.path.join(self.root, ""))
        for entry in walk(str(self.root), None, CACHES):
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.path[start:])
        self._mine = _read(self.root, files, self._mine)
        return Tree({**dict.fromkeys(folders, _FOLDER), **self._mine})

    def _remember(self, path: Path) -> None:
        with suppress(OSError):  # not on this side, or no file
            if stat.S_ISREG(path.lstat().st_mode):
                content = path.read_bytes()
                self._bytes.setdefault(digest_of(content), content)

    def _write(self, name: str, entry: Entry, beside: Path) -> None:
        known = self._bytes.get(entry.content)
        if known is not None:
            beside.write_bytes(known)
        else:
            _clone(self.source / name, beside)
        os.utime(beside, (self._tick, self._tick))

    def _inward(self, entry: Entry) -> Entry:
        """An absolute link into the workspace leads into the copy instead."""
        if entry.kind != stat.S_IFLNK or not os.path.isabs(entry.content):
            return entry
        target = Path(entry.content)
        inside = target.is_relative_to(self.source)
        return replace(entry, content=str(self.root / target.relative_to(self.source))) if inside else entry

    def _listed(self) -> Iterator[str]:
        names = _by_git(self._git, self.source) if self._git and in_repository(str(self.source)) else ()
        yield from names or _below(self.source, Ignores(False))
        yield from self._also


def _read(root: Path, names: Iterable[str], known: Entries) -> Entries:
    """What is there; of a folder, all files in it. A file is read again only if its stamp is not the one known."""
    started, found, todo = time.time_ns(), dict[str, Entry](), list(names)
    for name in todo:
        path = os.path.join(root, name)
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # deleted, or not ours to read
            info = os.lstat(path)
            if stat.S_ISDIR(info.st_mode):  # of `also`, or a repository inside this one
                todo += (os.path.join(name, below) for below in _below(Path(path), None))
            else:
                found[name] = entry_of(path, info, known.get(name), digest_of, started)
    return found


def _below(folder: Path, ignores: Ignores | None) -> Iterator[str]:
    """Relative paths of what is no folder, links included."""
    start = len(os.path.join(folder, ""))
    for entry in walk(str(folder), ignores, CACHES):
        if not entry.is_dir(follow_symlinks=False):
            yield entry.path[start:]


def _folders_of(names: Iterable[str]) -> set[str]:
    folders = set[str]()
    for name in names:
        while (name := os.path.dirname(name)) and name not in folders:
            folders.add(name)
    return folders


def _clone(source: Path, target: Path) -> None:
    """Shares the blocks where the file system can, and copies where it cannot."""
    with source.open("rb") as old, target.open("wb") as new:
        try:
            while os.copy_file_range(old.fileno(), new.fileno(), 2**30):
                pass
        except (AttributeError, OSError):  # no Linux, or two file systems that cannot
            shutil.copyfileobj(old, new)


def _git_outside(folder: Path) -> str | None:
    """The program git. One inside the folder, to which PATH may lead, is the model's to write, and not run here."""
    found = shutil.which("git")
    real = os.path.realpath(found) if found is not None else None
    return None if real is None or Path(real).is_relative_to(os.path.realpath(folder)) else real


def _by_git(git: str, folder: Path) -> list[str]:
    """Empty where git wants nothing to do with this folder."""
    listing = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        # A repository may name a program of its own as fsmonitor; looking at files must not run it.
        found = subprocess.run(
            [git, "-C", str(folder), "-c", "core.fsmonitor=false", *listing], capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return []
    return [os.fsdecode(name) for name in found.stdout.split(b"\0") if name]

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
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import TypeAlias

from continualcode.tools.scan import Ignores, in_repository

CACHES = frozenset({"__pycache__", ".mypy_cache", ".ruff_cache"})
"""Folders that programs keep for speed and check by themselves; they stay from run to run."""
_SETTLED_NS = 50_000_000
"""A file changed less than this ago may change again and keep its time stamp."""

_Stamp: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class File:
    """A regular file or a symlink: its type and permissions, and the digest of its bytes or its target."""

    mode: int
    digest: bytes


@dataclass(frozen=True)
class Tree:
    """The files of a folder by relative path."""

    files: Mapping[str, File]

    @cached_property
    def digest(self) -> str:
        whole = blake2b(digest_size=16)
        for path, file in sorted(self.files.items()):
            whole.update(b"%s\0%o\0%s" % (os.fsencode(path), file.mode, file.digest))
        return whole.hexdigest()

    def changed(self, other: Tree) -> tuple[str, ...]:
        """The paths that differ, sorted."""
        paths = self.files.keys() | other.files.keys()
        return tuple(sorted(path for path in paths if self.files.get(path) != other.files.get(path)))


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
        self._real: dict[str, tuple[_Stamp, File]] = {}
        self._mine: dict[str, tuple[_Stamp, File]] = {}
        self._bytes: dict[bytes, bytes] = {}
        self._tick = int(time.time())

    def of_source(self) -> Tree:
        """The workspace as it is now."""
        return self._tree(self.source, self._listed(), self._real)

    def of_copy(self) -> Tree:
        """The copy as a program has left it; a later `put` can bring this back."""
        tree = self._tree(self.root, _walk(self.root, None), self._mine)
        changed = {path for path, (_, file) in self._real.items() if tree.files.get(path) != file}
        for folder in (self.root, self.source):  # both sides, before the workspace goes on
            for path in changed | (tree.files.keys() - self._real.keys()):
                with suppress(OSError):  # not on this side
                    self._remember(folder / path)
        return tree

    def listed(self, tree: Tree, before: Tree) -> Tree:
        """Of a tree that the copy holds, what the workspace would list: without new files that are ignored."""
        new = tree.files.keys() - before.files.keys()
        kept = before.files.keys() | (set(_walk(self.root, Ignores(False))) if new else set())
        return Tree({path: file for path, file in tree.files.items() if path in kept})

    def _remember(self, path: Path) -> None:
        content = _content(path)
        self._bytes.setdefault(_digest(content), content)

    def put(self, tree: Tree, *, forget: bool = False) -> None:
        """Makes the copy hold these files, all else but `CACHES` being removed.

        Every file written gets a time stamp of its own, later than any before: what goes by time stamps, such as
        Python's bytecode and make, sees each change, also a second one within the same second. With `forget` no tree
        from before can be put back later.
        """
        if forget:
            self._bytes.clear()
        kept = {path for path in _walk(self.root, None) if self._keep(path, tree.files.get(path))}
        _prune(self.root, tree.files)
        self._tick = max(self._tick + 1, int(time.time()) + 1)
        for path, file in tree.files.items():
            if path not in kept:
                self._write(path, file)

    def _keep(self, path: str, wanted: File | None) -> bool:
        """Whether the file there is the one wanted; what is not is removed, and remembered unless a program wrote it."""
        target, known = os.path.join(self.root, path), self._mine.get(path)
        if known is not None and known[0] == _stamp(os.lstat(target)):
            if known[1] == wanted:
                return True
            self._remember(Path(target))
        os.unlink(target)
        return False

    def _write(self, path: str, file: File) -> None:
        target, known = self.root / path, self._bytes.get(file.digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISLNK(file.mode):
            target.symlink_to(self._inward(os.fsdecode(known or _content(self.source / path))))
        else:
            if known is not None:
                target.write_bytes(known)
            else:
                _clone(self.source / path, target)
            target.chmod(stat.S_IMODE(file.mode))
            os.utime(target, (self._tick, self._tick))
        self._mine[path] = (_stamp(target.lstat()), file)

    def _inward(self, target: str) -> str:
        """An absolute link into the workspace leads into the copy instead."""
        if not os.path.isabs(target) or not Path(target).is_relative_to(self.source):
            return target
        return str(self.root / Path(target).relative_to(self.source))

    def _listed(self) -> Iterator[str]:
        names = _by_git(self._git, self.source) if self._git and in_repository(str(self.source)) else ()
        yield from names or _walk(self.source, Ignores(False))
        yield from self._also

    def _tree(self, root: Path, paths: Iterable[str], known: dict[str, tuple[_Stamp, File]]) -> Tree:
        files = {}
        todo = list(paths)
        for path in todo:
            whole = os.path.join(root, path)
            try:
                found = os.lstat(whole)
                if stat.S_ISDIR(found.st_mode):  # of `also`, or a repository inside this one
                    todo += (os.path.join(path, below) for below in _walk(Path(whole), None))
                elif stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode):
                    files[path] = _known(whole, found, path, known)
            except (FileNotFoundError, NotADirectoryError, PermissionError):  # deleted, or not ours to read
                known.pop(path, None)
        return Tree(files)


def _known(whole: str, found: os.stat_result, path: str, known: dict[str, tuple[_Stamp, File]]) -> File:
    """The file, read again only if its stamp is not the one known."""
    stamp = _stamp(found)
    if path not in known or known[path][0] != stamp:
        file = File(found.st_mode, _digest(_content(Path(whole))))
        known[path] = (stamp if time.time_ns() - found.st_ctime_ns > _SETTLED_NS else (), file)
    return known[path][1]


def _stamp(found: os.stat_result) -> _Stamp:
    return found.st_mode, found.st_size, found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def _content(path: Path) -> bytes:
    return os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()


def _digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


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


def _walk(folder: Path, ignores: Ignores | None) -> Iterator[str]:
    """Relative paths of what is no folder, links included, but nothing in .git, in CACHES, or ignored."""
    stack, start = [(str(folder), ignores)], len(os.path.join(folder, ""))
    while stack:
        at, above = stack.pop()
        here = above.inside(at) if above is not None else None
        with os.scandir(at) as entries:
            for entry in entries:
                is_folder = entry.is_dir(follow_symlinks=False)
                if entry.name == ".git" or (is_folder and entry.name in CACHES):
                    continue
                if here is not None and here.cover(entry.path, is_folder=is_folder):
                    continue
                if is_folder:
                    stack.append((entry.path, here))
                else:
                    yield entry.path[start:]


def _prune(root: Path, files: Iterable[str]) -> None:
    """Removes the folders that none of these files is in, with the caches in them."""
    needed: set[str] = set()
    for path in files:
        while (path := os.path.dirname(path)) and path not in needed:
            needed.add(path)
    for at, folders, _ in os.walk(root):
        for name in tuple(folders):
            inner = os.path.join(at, name)
            if name in CACHES or os.path.relpath(inner, root) not in needed:
                folders.remove(name)
                if name not in CACHES and not os.path.islink(inner):
                    shutil.rmtree(inner)

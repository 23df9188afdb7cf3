"""What is in a folder at one moment, and a store of contents to put it back from; knows nothing of calls or of undo.

Modes, symlinks, empty folders, nested repositories and every byte are kept, which git's own trees would not do.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from pathlib import Path, PurePosixPath

from continualcode.errors import WorkspaceError
from continualcode.tools.scan import Ignores, in_repository

MOST_BYTES, MOST_BYTES_TOGETHER = 32 * 2**20, 2 * 2**30
IGNORED_FILES, IGNORED_BYTES = 200, 2**20
"""An ignored folder with more in it is left out, and so is a larger ignored file."""
_RACY = 2 * 10**9
"""ns. What changed so shortly before it was read can change again with nothing to tell it by."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, symlink or folder. Equal when mode and content are."""

    mode: int
    content: str
    """A file's digest, a symlink's target; "" for a folder."""
    stamp: str = field(default="", compare=False)
    """Of a file: as long as this stays, so does the content."""

    @property
    def kind(self) -> int:
        return stat.S_IFMT(self.mode)


Entries = Mapping[str, Entry]
Changes = Mapping[str, tuple[Entry | None, Entry | None]]
"""What each path was before and is after; None: nothing. The paths are sorted, folders before what is in them."""


Write = Callable[[str, Entry, Path], None]
"""Makes a new file at the path, with the content that the entry of this name has."""


@dataclass(frozen=True)
class Tree:
    """Everything in a folder by path relative to it, less what is left out with all below it."""

    entries: Entries
    left_out: frozenset[str] = frozenset()

    @cached_property
    def digest(self) -> str:
        """Of the files and links: the same for the same."""
        whole = blake2b(digest_size=16)
        for path, entry in sorted(self.entries.items()):
            if entry.kind != stat.S_IFDIR:
                whole.update(b"%s\0%o\0%s\0" % (os.fsencode(path), entry.mode, os.fsencode(entry.content)))
        return whole.hexdigest()

    def has_file(self, path: str) -> bool:
        return path in self.entries and self.entries[path].kind != stat.S_IFDIR

    def changes_to(self, after: Tree) -> Changes:
        """What differs, as far as both cover it."""
        left_out = self.left_out | after.left_out

        def is_covered(path: str) -> bool:
            return not left_out or left_out.isdisjoint((path, *map(str, PurePosixPath(path).parents)))

        pairs = {path: (self.entries.get(path), after.entries.get(path)) for path in (*self.entries, *after.entries)}
        return {path: pairs[path] for path in sorted(pairs) if pairs[path][0] != pairs[path][1] and is_covered(path)}


class Store:
    """Contents by digest, each kept once, in a SQLite file; files by the thousand would take seconds to make."""

    def __init__(self, path: Path, schema: str = "") -> None:
        self._path = path
        self._schema = f"create table if not exists contents (digest text primary key, data blob); {schema}"
        self._connection: sqlite3.Connection | None = None

    @contextmanager
    def opened(self) -> Iterator[None]:
        """For everything below; what is done in here is kept at its end. Raises WorkspaceError when it cannot be."""
        if self._connection is not None:
            yield
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with closing(sqlite3.connect(self._path, timeout=60)) as self._connection:
                self._connection.executescript(
                    f"pragma journal_mode = wal; pragma synchronous = normal; {self._schema}"
                )
                try:
                    yield
                finally:
                    self._connection.commit()
        except (sqlite3.Error, OSError) as error:
            raise WorkspaceError(f"no snapshot can be kept in {self._path}: {error}") from error
        finally:
            self._connection = None

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        assert self._connection is not None
        return self._connection.execute(sql, values)

    def commit(self) -> None:
        assert self._connection is not None
        self._connection.commit()

    def add(self, data: bytes) -> str:
        digest = digest_of(data)
        self.execute("insert or ignore into contents values (?, ?)", digest, data)
        return digest

    def get(self, digest: str) -> bytes:
        """Raises OSError for a content that is missing or damaged."""
        row = self.execute("select data from contents where digest = ?", digest).fetchone()
        if row is None or digest_of(row[0]) != digest:
            raise OSError(f"{self._path} is damaged")
        data: bytes = row[0]
        return data

    def write(self, name: str, entry: Entry, path: Path) -> None:
        path.write_bytes(self.get(entry.content))

    def keep(self, digests: Collection[str]) -> None:
        """Removes all others."""
        for (digest,) in self.execute("select digest from contents").fetchall():
            if digest not in digests:
                self.execute("delete from contents where digest = ?", digest)


def take(root: Path, known: Entries, store: Store, *, without: Collection[Path]) -> Tree:
    """The folder as it is, its contents in the store. A file whose stamp is `known` is not read; `without` is no part."""
    started, total, entries = time.time_ns(), 0, dict[str, Entry]()
    walk = _Walk({str(path) for path in without})
    ignores = Ignores.above(str(root)) if in_repository(str(root)) else Ignores(False)
    for path, info in walk.below(str(root), ignores):
        name = path[len(str(root)) + 1 :]
        total += info.st_size
        try:
            if stat.S_ISREG(info.st_mode) and (info.st_size > MOST_BYTES or total > MOST_BYTES_TOGETHER):
                walk.left_out.add(path)
            else:
                entries[name] = entry_of(path, info, known.get(name), store.add, started)
        except FileNotFoundError:
            continue
        except OSError:  # not ours to read
            walk.left_out.add(path)
    return Tree(entries, frozenset(path[len(str(root)) + 1 :] for path in walk.left_out))


def put_back(root: Path, changes: Changes, write: Write) -> None:
    """Makes every path what its pair says it was before.

    Raises WorkspaceError, and has touched nothing, when there is something else than what the pair says.
    """
    now = {path: _look(root, path) for path in changes}
    if strange := [path for path, pair in changes.items() if now[path] not in (None, *pair)]:
        raise WorkspaceError(f"{', '.join(strange[:5])} has changed since; nothing was taken back")
    todo = {path: before for path, (before, _) in changes.items() if now[path] != before}
    for path in reversed(todo):
        present, before = now[path], todo[path]
        if present is not None and (before is None or stat.S_IFMT(before.mode ^ present.mode)):
            _remove(root / path, present)
    for path, before in todo.items():
        if before is not None:
            _place(root, path, before, write)
    for path, before in reversed(todo.items()):  # last, because nothing can be put into a read-only folder
        if before is not None and stat.S_ISDIR(before.mode):
            (root / path).chmod(stat.S_IMODE(before.mode))


class _Walk:
    """Finds all there is, and notes what it leaves out."""

    def __init__(self, without: set[str]) -> None:
        self.left_out: set[str] = set()
        self._without = without

    def below(self, folder: str, ignores: Ignores | None) -> Iterator[tuple[str, os.stat_result]]:
        """`ignores`: in force around the folder; None when it is ignored itself."""
        inside = ignores.inside(folder) if ignores is not None else None
        for path, info in self._listed(folder):
            is_folder = stat.S_ISDIR(info.st_mode)
            matters = inside is not None and (is_folder or info.st_size > IGNORED_BYTES)
            if matters and inside is not None and inside.cover(path, is_folder=is_folder):
                yield from self._ignored(path, info)
                continue
            yield path, info
            if is_folder:
                yield from self.below(path, inside)

    def _ignored(self, path: str, info: os.stat_result) -> Iterator[tuple[str, os.stat_result]]:
        below = self.below(path, None) if stat.S_ISDIR(info.st_mode) else iter(())
        found = [(path, info), *islice(below, IGNORED_FILES + 1)]
        if len(found) > IGNORED_FILES + 1 or sum(item.st_size for _, item in found) > IGNORED_BYTES:
            self.left_out.add(path)
        else:
            yield from found

    def _listed(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with os.scandir(folder) as found:
                entries = [entry for entry in found if entry.name != ".git" and entry.path not in self._without]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError:
            self.left_out.add(folder)
            return
        for entry in entries:
            with suppress(FileNotFoundError):
                info = entry.stat(follow_symlinks=False)
                if stat.S_IFMT(info.st_mode) in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                    yield entry.path, info


def entry_of(path: str, info: os.stat_result, known: Entry | None, keep: Callable[[bytes], str], started: int) -> Entry:
    """What is at the path, looked at since `started` (ns): the entry known if it has not changed. `keep` takes what
    was read, and returns its digest."""
    if not stat.S_ISREG(info.st_mode):
        return _bare(path, info)
    stamp = f"{info.st_size} {info.st_ino} {info.st_mtime_ns} {info.st_ctime_ns}"
    if known is not None and known.stamp == stamp and known.mode == info.st_mode:
        return known
    with open(path, "rb") as file:
        content = keep(file.read())
    return Entry(info.st_mode, content, stamp if info.st_ctime_ns < started - _RACY else "")


def _bare(path: str | Path, info: os.stat_result) -> Entry:
    return Entry(info.st_mode, os.readlink(path) if stat.S_ISLNK(info.st_mode) else "")


def _look(root: Path, name: str) -> Entry | None:
    """What is there now; nothing, where the way to it leads through a symlink."""
    path = root / name
    if _is_detour(root, name) or not os.path.lexists(path):
        return None
    info = path.lstat()
    return Entry(info.st_mode, digest_of(path.read_bytes())) if stat.S_ISREG(info.st_mode) else _bare(path, info)


def _remove(path: Path, present: Entry) -> None:
    if not stat.S_ISDIR(present.mode):
        path.unlink()
        return
    with suppress(OSError):  # not empty: somebody else's now
        path.rmdir()


def _place(root: Path, name: str, wanted: Entry, write: Write) -> None:
    if _is_detour(root, name):
        raise WorkspaceError(f"the way to {name} leads through a symlink now; it was not taken back")
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if stat.S_ISDIR(wanted.mode):
        path.mkdir(exist_ok=True)
        return
    beside = path.parent / f".continualcode-{secrets.token_hex(8)}.tmp"
    try:
        if stat.S_ISLNK(wanted.mode):
            beside.symlink_to(wanted.content)
        else:
            write(name, wanted, beside)
            beside.chmod(stat.S_IMODE(wanted.mode))
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _is_detour(root: Path, name: str) -> bool:
    return any((root / folder).is_symlink() for folder in PurePosixPath(name).parents[:-1])


def digest_of(data: bytes) -> str:
    return blake2b(data, digest_size=16).hexdigest()

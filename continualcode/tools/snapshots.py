"""Snapshots of a workspace around every call that may change it: what undo and redo go by, also after a crash.

Knows nothing of conversations. All of it lies in one folder outside of the workspace:

    contents.sqlite   what files held, by digest      index.json   a late snapshot, so that little is read again
    TIME.open         the snapshot before a call that has not ended, locked by its process
    TIME.done         what a call changed             TIME.undone  the same, taken back (TIME.to-undone: in the middle of it)
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
import threading
import time
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePath
from typing import Any

from continualcode.errors import WorkspaceError
from continualcode.tools.tree import Changes, Entry, Store, Tree, put_back, take
from continualcode.tools.workspace import Workspace
from continualcode.types import Json, ToolCall

KEPT = 100
"""So many calls can be taken back."""
_TEMPORARY = ".continualcode-*.tmp"


@dataclass(frozen=True, slots=True)
class Change:
    """What one call did to the workspace."""

    id: str
    call: str
    """Its name and what it was about, to be shown."""
    changes: Changes
    left_out: tuple[str, ...]
    """What snapshots do not cover: large files, what cannot be read, ignored folders with more than a little in them."""
    interrupted: bool
    """The call did not come to its end."""

    @property
    def said(self) -> str:
        """What taking it back, or making it again, does to the files."""
        words = [f"{'removed' if before is None else 'restored'} {path}" for path, (before, _) in self.changes.items()]
        return ", ".join(words[:8]) + (f" and {len(words) - 8:,} more" if len(words) > 8 else "")


class Snapshots:
    """Takes a snapshot before and after a call, and takes back what the call changed and nothing else.

    Blocking and thread-safe. Sessions in one workspace share what can be taken back, earlier ones included. `.git` is
    not covered: what a command committed is git's to take back.

    Args:
        state_dir: all is kept below its folder `undo`, readable by the user only. It is never part of a snapshot.
    """

    def __init__(self, workspace: Workspace, state_dir: Path) -> None:
        self._root, self._state_dir = workspace.root, state_dir.resolve()
        self.folder = self._state_dir / "undo" / blake2b(os.fsencode(self._root), digest_size=8).hexdigest()
        self._store, self._lock = Store(self.folder / "contents.sqlite"), threading.RLock()
        self._open: _Open | None = None
        for to in ("done", "undone"):
            for path in self._files(f"to-{to}"):
                self._go_on(path, to)
        self._newest = _tree_of(_read(self.folder / "index.json") or {"entries": {}, "left_out": []})
        self.recovered = tuple(change for path in self._files("open") if (change := self._recover(path)) is not None)
        """Changes by calls that a process did not live to finish."""

    def begin(self, call: ToolCall) -> str:
        """Takes a snapshot; returns the id of the Change that the call may make.

        Raises WorkspaceError when none can be kept; the call must not run then.
        """
        with self._lock:
            self._settle()
            try:
                self._open = _Open.make(self.folder, _shown(call), self._take())
            except OSError as error:
                raise WorkspaceError(f"not run, because no snapshot can be kept in {self.folder}: {error}") from error
            return self._open.id

    def finish(self) -> None:
        """The call has come to its end; what it changed can be taken back."""
        with self._lock:
            if self._open is not None:
                self._close(self._open, interrupted=False)

    def history(self) -> list[Change]:
        """What `undo` would take back, the newest last."""
        with self._lock:
            self._settle()
            return [_change_of(path) for path in self._files("done")]

    def undo(self) -> Change | None:
        """Takes back the newest change that stands, and returns it; None when there is none.

        Raises WorkspaceError, and has touched nothing, when something else has changed the same files since.
        """
        with self._lock:
            self._settle()
            standing = self._files("done")
            return self._turn(standing[-1], "undone") if standing else None

    def redo(self) -> Change | None:
        """Makes again the change that was taken back last, until there is a new one, and returns it the other way round.

        Raises as `undo` does.
        """
        with self._lock:
            self._settle()
            undone = self._files("undone")
            return self._turn(undone[0], "done") if undone else None

    def _turn(self, path: Path, to: str) -> Change:
        """Says what it is about to do first, so that it is done whole even if the process dies meanwhile."""
        change = _change_of(path)
        pairs = change.changes if to == "undone" else {name: pair[::-1] for name, pair in change.changes.items()}
        try:
            moving = path.rename(path.with_suffix(f".to-{to}"))
            try:
                with self._store.opened():
                    put_back(self._root, pairs, self._store)
            except (WorkspaceError, OSError):
                moving.rename(path)
                raise
            moving.rename(path.with_suffix(f".{to}"))
        except OSError as error:
            raise WorkspaceError(f"{change.call} could not be taken back as a whole: {error}") from error
        return replace(change, changes=pairs)

    def _take(self) -> Tree:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with self._store.opened():
            without = (self._state_dir, self.folder.parent)
            self._newest = take(self._root, self._newest.entries, self._store, without=without)
        return self._newest

    def _settle(self) -> None:
        """By now an interrupted call has come to an end, too."""
        if self._open is not None:
            self._close(self._open, interrupted=True)

    def _close(self, opened: _Open, *, interrupted: bool) -> Change | None:
        try:
            after = self._take()
            changes = opened.tree.changes_to(after)
            left_out = tuple(sorted(opened.tree.left_out | after.left_out))
            change = Change(opened.id, opened.call, changes, left_out, interrupted) if changes else None
            if change is not None:
                for undone in self._files("undone"):
                    undone.unlink()
                _written(self.folder, _json_of(change), sync=True).rename(self.folder / f"{change.id}.done")
                self._forget()
            opened.end()
        except OSError as error:
            raise WorkspaceError(f"what {opened.call} changed is not kept for undo yet: {error}") from error
        self._open = None
        return change

    def _recover(self, path: Path) -> Change | None:
        opened = _Open.left(path)
        if opened is None:
            return None
        begun = opened.tree.changes_to(self._take())
        if all(before is None and _is_scaffold(name, after) for name, (before, after) in begun.items()):
            put_back(self._root, begun, self._store)
        return self._close(opened, interrupted=True)

    def _go_on(self, path: Path, to: str) -> None:
        """Completes an undo or redo that a process did not live to complete."""
        for name in _change_of(path).changes:
            for beside in (self._root / name).parent.glob(_TEMPORARY):
                beside.unlink()
        try:
            self._turn(path, to)
        except WorkspaceError:  # said when it is tried again
            path.rename(path.with_suffix(".done" if to == "undone" else ".undone"))

    def _forget(self) -> None:
        """Removes the oldest changes, and the contents that nothing needs any more."""
        old = self._files("done")[:-KEPT]
        for path in old:
            path.unlink()
        if old and len(self._files("open")) == 1:  # another session may be adding contents
            pairs = [pair for path in self._files("done") for pair in _change_of(path).changes.values()]
            entries = [*self._newest.entries.values(), *(entry for pair in pairs for entry in pair)]
            with self._store.opened():
                self._store.keep({entry.content for entry in entries if entry is not None})

    def _files(self, state: str) -> list[Path]:
        return sorted(self.folder.glob(f"*.{state}"))


@dataclass(frozen=True, slots=True)
class _Open:
    """The snapshot before a call, on the disk until the call has ended; locked as long as its process lives."""

    path: Path
    call: str
    tree: Tree
    descriptor: int

    @property
    def id(self) -> str:
        return self.path.stem

    @classmethod
    def make(cls, folder: Path, call: str, tree: Tree) -> _Open:
        beside = _written(folder, {"call": call, **_json_of_tree(tree)})
        descriptor = os.open(beside, os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        path = beside.rename(folder / f"{time.time_ns():020}.open")
        return cls(path, call, tree, descriptor)

    @classmethod
    def left(cls, path: Path) -> _Open | None:
        """One whose process is gone; None when it lives, or the machine went down before the snapshot was written."""
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        kept = _read(path)
        if kept is None:
            path.unlink()
            os.close(descriptor)
            return None
        return cls(path, kept["call"], _tree_of(kept), descriptor)

    def end(self) -> None:
        self.path.rename(self.path.with_name("index.json"))
        os.close(self.descriptor)


def _is_scaffold(name: str, entry: Entry | None) -> bool:
    """What a write makes on its way to a new file, and is not that file."""
    return entry is not None and (stat.S_ISDIR(entry.mode) or PurePath(name).match(_TEMPORARY))


def _shown(call: ToolCall) -> str:
    about = " ".join(str(call.arguments.get("path") or call.arguments.get("cmd") or "").split())
    return f"{call.name} {about if len(about) <= 80 else about[:77] + '...'}".rstrip()


def _written(folder: Path, value: Json, *, sync: bool = False) -> Path:
    """A new file with this in it, to be renamed when it is whole; `sync`: on the disk."""
    path = folder / f"{secrets.token_hex(8)}.new"
    with open(path, "w") as file:
        file.write(json.dumps(value))  # ASCII: names that are no Unicode survive
        if sync:
            file.flush()
            os.fsync(file.fileno())
    return path


def _read(path: Path) -> dict[str, Any] | None:
    """None when there is no such file, or the machine went down while it was written."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return kept


def _json_of_tree(tree: Tree) -> dict[str, Json]:
    return {
        "entries": {path: _json_of_entry(entry) for path, entry in tree.entries.items()},
        "left_out": [*tree.left_out],
    }


def _tree_of(kept: dict[str, Any]) -> Tree:
    entries = {path: Entry(entry[0], entry[1], tuple(entry[2])) for path, entry in kept["entries"].items()}
    return Tree(entries, frozenset(kept["left_out"]))


def _json_of_entry(entry: Entry | None) -> Json:
    return None if entry is None else [entry.mode, entry.content, entry.stamp]


def _json_of(change: Change) -> Json:
    pairs = {path: [_json_of_entry(entry) for entry in pair] for path, pair in change.changes.items()}
    return {"call": change.call, "changes": pairs, "left_out": change.left_out, "interrupted": change.interrupted}


def _change_of(path: Path) -> Change:
    kept = json.loads(path.read_text())
    pairs = {name: (_entry_of(before), _entry_of(after)) for name, (before, after) in kept["changes"].items()}
    return Change(path.stem, kept["call"], pairs, tuple(kept["left_out"]), kept["interrupted"])


def _entry_of(kept: list[Any] | None) -> Entry | None:
    return None if kept is None else Entry(kept[0], kept[1], tuple(kept[2]))

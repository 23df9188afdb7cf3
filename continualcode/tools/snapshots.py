"""Snapshots of a workspace around every call that may change it: what undo and redo go by, also after a crash.

Knows nothing of conversations. All is in one SQLite file outside of the workspace: a row for each call, which is `open`
while it runs and then `done` or `undone`, or `to undone` in the middle of it, and `idle` when it changed nothing.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path, PurePath

from continualcode.errors import WorkspaceError
from continualcode.tools.tree import Changes, Entry, Store, Tree, put_back, take
from continualcode.tools.workspace import Workspace
from continualcode.types import ToolCall

KEPT = 100
"""So many calls can be taken back."""
_TEMPORARY = ".continualcode-*.tmp"
_OTHER = {"undone": "done", "done": "undone"}
_SCHEMA = """create table if not exists calls (
    id integer primary key autoincrement, call text, state text, tree text, changes text, left_out text, interrupted integer)"""


@dataclass(frozen=True, slots=True)
class Change:
    """What one call did to the workspace."""

    id: int
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
        self._store, self._lock = Store(self.folder / "undo.sqlite", _SCHEMA), threading.RLock()
        self._open: _Open | None = None
        self._known: Mapping[str, Entry] = {}
        self.recovered = self._recover() if self.folder.is_dir() else ()
        """Changes by calls that a process did not live to finish."""

    def begin(self, call: ToolCall) -> int:
        """Takes a snapshot; returns the id of the Change that the call may make.

        Raises WorkspaceError when none can be kept; the call must not run then.
        """
        with self._lock:
            try:
                with self._store.opened():
                    self._settle()
                    self._open = self._begin(_shown(call), self._take())
            except WorkspaceError as error:
                raise WorkspaceError(f"not run: {error}") from error
            return self._open.id

    def finish(self) -> None:
        """The call has come to its end; what it changed can be taken back."""
        with self._lock:
            if self._open is not None:
                self._close(self._open, interrupted=False)

    def history(self) -> list[Change]:
        """What `undo` would take back, the newest last."""
        with self._lock, self._store.opened():
            self._settle()
            return self._changes("done")

    def undo(self) -> Change | None:
        """Takes back the newest change that stands, and returns it; None when there is none.

        Raises WorkspaceError, and has touched nothing, when something else has changed the same files since.
        """
        with self._lock, self._store.opened():
            standing = self.history()
            return self._turn(standing[-1], "undone") if standing else None

    def redo(self) -> Change | None:
        """Makes again the change that was taken back last, until there is a new one, and returns it the other way round.

        Raises as `undo` does.
        """
        with self._lock, self._store.opened():
            self._settle()
            undone = self._changes("undone")
            return self._turn(undone[0], "done") if undone else None

    def _turn(self, change: Change, to: str) -> Change:
        """Says what it is about to do first, so that it is done whole even if the process dies meanwhile."""
        pairs = change.changes if to == "undone" else {name: pair[::-1] for name, pair in change.changes.items()}
        self._set(change, f"to {to}")
        reached = _OTHER[to]
        try:
            put_back(self._root, pairs, self._store.write)
            reached = to
        except OSError as error:
            raise WorkspaceError(f"{change.call} could not be taken back as a whole: {error}") from error
        finally:
            self._set(change, reached)
        return replace(change, changes=pairs)

    def _set(self, change: Change, state: str) -> None:
        self._store.execute("update calls set state = ? where id = ?", state, change.id)
        self._store.commit()

    def _changes(self, state: str) -> list[Change]:
        found = "select id, call, changes, left_out, interrupted from calls where state = ? order by id"
        return [
            Change(number, call, _changes_of(changes), tuple(json.loads(left_out)), bool(interrupted))
            for number, call, changes, left_out, interrupted in self._store.execute(found, state).fetchall()
        ]

    def _take(self) -> Tree:
        with self._store.opened():
            tree = take(self._root, self._known, self._store, without=(self._state_dir, self.folder.parent))
        self._known = tree.entries
        return tree

    def _settle(self) -> None:
        """By now an interrupted call has come to an end, too."""
        if self._open is not None:
            self._close(self._open, interrupted=True)

    def _begin(self, call: str, tree: Tree) -> _Open:
        self._store.execute("delete from calls where state = 'idle'")
        self._store.execute("update calls set tree = null where state <> 'open'")
        added = self._store.execute("insert into calls (call, state, tree) values (?, 'open', ?)", call, _json_of(tree))
        assert added.lastrowid is not None
        return _Open(added.lastrowid, call, tree, self._locked(added.lastrowid))

    def _close(self, opened: _Open, *, interrupted: bool) -> None:
        with self._store.opened():
            after = self._take()
            changes, left_out = opened.tree.changes_to(after), sorted(opened.tree.left_out | after.left_out)
            if changes:
                self._store.execute("delete from calls where state = 'undone'")
            closed = "update calls set state = ?, changes = ?, left_out = ?, interrupted = ? where id = ?"
            values = (_json_of(changes), json.dumps(left_out), interrupted, opened.id)
            self._store.execute(closed, "done" if changes else "idle", *values)
            self._forget()
        self._open = None
        os.close(opened.lock)
        self._lock_of(opened.id).unlink(missing_ok=True)

    def _recover(self) -> tuple[Change, ...]:
        with self._store.opened():
            for (tree,) in self._store.execute("select tree from calls where tree is not null order by id").fetchall():
                self._known = _tree_of(tree).entries
            for to in _OTHER:
                for change in self._changes(f"to {to}"):
                    self._go_on(change, to)
            left = self._store.execute("select id, call, tree from calls where state = 'open'").fetchall()
            ended = {number for number, call, tree in left if self._end(number, call, tree)}
            return tuple(change for change in self._changes("done") if change.id in ended)

    def _end(self, number: int, call: str, tree: str) -> bool:
        """Closes what a process left open; False when it lives."""
        try:
            lock = self._locked(number)
        except BlockingIOError:
            return False
        opened = _Open(number, call, _tree_of(tree), lock)
        begun = opened.tree.changes_to(self._take())
        if all(before is None and _is_scaffold(name, after) for name, (before, after) in begun.items()):
            put_back(self._root, begun, self._store.write)
        self._close(opened, interrupted=True)
        return True

    def _go_on(self, change: Change, to: str) -> None:
        """Completes an undo or redo that a process did not live to complete."""
        for name in change.changes:
            for beside in (self._root / name).parent.glob(_TEMPORARY):
                beside.unlink()
        with suppress(WorkspaceError):  # said when it is tried again
            self._turn(change, to)

    def _forget(self) -> None:
        """Removes the oldest changes, and the contents that nothing needs any more."""
        oldest = "select id from calls where state = 'done' order by id desc limit 1 offset ?"
        if self._store.execute(f"delete from calls where state = 'done' and id <= ({oldest})", KEPT).rowcount > 0:
            pairs = [pair for state in _OTHER for change in self._changes(state) for pair in change.changes.values()]
            trees = self._store.execute("select tree from calls where tree is not null").fetchall()
            entries = [
                *self._known.values(),
                *(entry for (tree,) in trees for entry in _tree_of(tree).entries.values()),
            ]
            needed = [*entries, *(entry for pair in pairs for entry in pair if entry is not None)]
            self._store.keep({entry.content for entry in needed})

    def _locked(self, number: int) -> int:
        """A lock that goes with this process. Raises BlockingIOError while another has it."""
        descriptor = os.open(self._lock_of(number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise
        return descriptor

    def _lock_of(self, number: int) -> Path:
        return self.folder / f"{number}.lock"


@dataclass(frozen=True, slots=True)
class _Open:
    """A call that has not ended, and the snapshot before it."""

    id: int
    call: str
    tree: Tree
    lock: int


def _is_scaffold(name: str, entry: Entry | None) -> bool:
    """What a write makes on its way to a new file, and is not that file."""
    return entry is not None and (stat.S_ISDIR(entry.mode) or PurePath(name).match(_TEMPORARY))


def _shown(call: ToolCall) -> str:
    about = " ".join(str(call.arguments.get("path") or call.arguments.get("cmd") or "").split())
    return f"{call.name} {about if len(about) <= 80 else about[:77] + '...'}".rstrip()


def _json_of(value: Tree | Changes) -> str:
    """As ASCII, in which names that are no Unicode survive."""
    if isinstance(value, Tree):
        entries = {path: (entry.mode, entry.content, entry.stamp) for path, entry in value.entries.items()}
        return json.dumps([entries, [*value.left_out]])
    pairs = {path: [entry and (entry.mode, entry.content) for entry in pair] for path, pair in value.items()}
    return json.dumps(pairs)


def _tree_of(text: str) -> Tree:
    entries, left_out = json.loads(text)
    return Tree({path: Entry(*fields) for path, fields in entries.items()}, frozenset(left_out))


def _changes_of(text: str) -> Changes:
    pairs = json.loads(text).items()
    return {path: (before and Entry(*before), after and Entry(*after)) for path, (before, after) in pairs}

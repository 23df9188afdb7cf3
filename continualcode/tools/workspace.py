"""The one folder that file tools may touch: confinement of paths, atomic writes, and what the model has seen of files.

Knows bytes only, nothing of text or of tools. It confines tools, not processes; those are the sandbox's to confine.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from continualcode.errors import ConfigError, WorkspaceError
from continualcode.tools import beneath
from continualcode.tools.own import OwnFiles

MAX_FILE_BYTES = 32 * 2**20
"""Files above this are not read; what works on them is a shell command."""


class Workspace:
    """A folder, and what was read and written in it. Raises ConfigError when `root` is no folder.

    `settings` and `own` are the agent's own files and folders, which no tool may write (`OwnFiles`).

    Thread-safe. Symlinks are followed as long as they stay inside; a hard link is broken by a write, as by git.
    """

    def __init__(self, root: Path | str, *, settings: Iterable[Path] = (), own: Iterable[Path] = ()) -> None:
        self._as_given = Path(os.path.abspath(root))
        self.root = Path(root).resolve()
        if not self.root.is_dir():
            raise ConfigError(f"the workspace must be a folder that exists: {root}")
        self.own = OwnFiles(self.root, settings, own)
        self._seen: dict[Path, bytes] = {}
        self._lock = threading.RLock()

    def resolve(self, path: str) -> Path:
        """The real path of a file or folder inside the root, existing or not.

        Raises WorkspaceError when the path leaves the root by name or through symlinks, or is neither file nor folder.
        """
        if not path.strip():
            raise WorkspaceError("the path is empty")
        if "\0" in path:
            raise WorkspaceError(f"the path has a NUL in it: {path!r}")
        if path.startswith("~"):
            raise WorkspaceError(f"'~' is not expanded: {path}; give a path relative to the workspace (or './~...')")
        try:
            return self._confined(path)
        except (OSError, UnicodeEncodeError) as error:
            raise WorkspaceError(f"not a usable path: {path!r}: {_reason(error)}") from error

    def relative(self, path: Path) -> str:
        """How a resolved path is shown: relative to the root, with slashes; the root is '.'."""
        return path.relative_to(self.root).as_posix()

    def read(self, path: str) -> bytes:
        """Raises WorkspaceError when there is no such file, or it is a folder, too large or unreadable."""
        target = self.resolve(path)
        try:
            size = target.stat().st_size
            if size > MAX_FILE_BYTES:
                raise WorkspaceError(f"{path} is too large: {size:,} bytes; look at parts of it with bash")
            return beneath.read_bytes(self.root, target)
        except OSError as error:
            raise WorkspaceError(f"cannot read {path}: {_reason(error)}") from error

    def write(self, path: str, data: bytes) -> None:
        """Puts `data` in place of the file at once or not at all; keeps its mode and owner; makes missing folders.

        Bytes that are already there are no write. Raises WorkspaceError when it may not or cannot be done.
        """
        self._write(path, data, lambda present: None)

    def replace(self, path: str, before: bytes | None, after: bytes) -> None:
        """`write`, for a change worked out from `before` (None: no file), which the model must have seen.

        Raises WorkspaceError when the file is not the one that was read, checked at the moment of writing.
        """

        def check(present: bytes | None) -> None:
            problem = self._unread(path, present)
            if problem is None and present != before:
                problem = _changed(path)
            if problem is not None:
                raise WorkspaceError(problem)

        self._write(path, after, check)

    def note_seen(self, path: str, data: bytes) -> None:
        """The model was shown the file with these bytes."""
        self._seen[self.resolve(path)] = _digest(data)

    def unread(self, path: str) -> str | None:
        """Why the model may not change this file before it reads it, in words for it; None for a file it has seen."""
        target = self.resolve(path)
        return self._unread(path, self.read(path) if target.exists() else None)

    def _unread(self, path: str, present: bytes | None) -> str | None:
        seen = self._seen.get(self.resolve(path))
        if present is None or seen == _digest(present):
            return None
        if seen is None:
            return f"not changed: {path} exists and you have not read it; read it first"
        return _changed(path)

    def _confined(self, path: str) -> Path:
        # By name as well as in fact: /proc/self/cwd and its like lead inside only as long as nobody changes folder.
        named = Path(os.path.normpath(self.root / path))
        target = Path(os.path.realpath(self.root / path))
        inside = named.is_relative_to(self.root) or named.is_relative_to(self._as_given)
        if not (inside and target.is_relative_to(self.root)):
            raise WorkspaceError(f"outside the workspace: {path}; give a path relative to the workspace")
        try:
            mode = target.lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return target
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise WorkspaceError(f"neither a file nor a folder: {path}")
        return target

    def _write(self, path: str, data: bytes, check: Callable[[bytes | None], None]) -> None:
        target = self.resolve(path)
        if self.own.holds(target):
            raise WorkspaceError(
                f"not for tools to write: {path}; git's own files and the agent's settings are a person's"
            )
        with self._lock:
            try:
                before = self._bytes_of(target)
                check(before)
                if before != data:
                    self._put(target, data, check)
            except OSError as error:
                raise WorkspaceError(f"cannot write {path}: {_reason(error)}") from error
            self._seen[target] = _digest(data)

    def _bytes_of(self, target: Path) -> bytes | None:
        try:
            return beneath.read_bytes(self.root, target)
        except FileNotFoundError:
            return None

    def _put(self, target: Path, data: bytes, check: Callable[[bytes | None], None]) -> None:
        made = beneath.make_folders(self.root, target.parent)
        try:
            beneath.replace(self.root, target, data, lambda: check(self._bytes_of(target)))
        except BaseException:
            _remove_folders(made)
            raise


def _changed(path: str) -> str:
    return f"not changed: {path} has changed since you read it; read it again"


def _remove_folders(folders: tuple[Path, ...]) -> None:
    with suppress(OSError):  # no longer empty: somebody else's now
        for folder in folders:
            folder.rmdir()


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _reason(error: OSError | UnicodeEncodeError) -> str:
    match error:
        case FileNotFoundError():
            return "no such file"
        case IsADirectoryError():
            return "it is a folder"
        case NotADirectoryError() | FileExistsError():
            return "a part of the path is a file, not a folder"
        case OSError() if error.strerror:
            return error.strerror
    return str(error)

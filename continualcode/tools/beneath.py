"""Files below a folder, each reached from it without following a single link.

So a path that was found to lie inside leads nowhere else when it is read or written, whoever swaps what meanwhile.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_PATH if sys.platform == "linux" else os.O_RDONLY)
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # does not wait where a pipe took the file's place


def read_bytes(root: Path, target: Path) -> bytes:
    """The bytes of a regular file. Raises OSError, also where a link has taken the place of a part of the path."""
    with _folder(root, target.parent) as folder:
        descriptor = os.open(target.name, _FILE, dir_fd=folder)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise _a_folder(target)
        if not stat.S_ISREG(mode):
            raise OSError(f"{target.name} is no file any more")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read()
    finally:
        os.close(descriptor)


def replace(root: Path, target: Path, data: bytes, check: Callable[[], None]) -> None:
    """Atomic: whoever reads `target` sees all of the old bytes or all of the new. `check` has the last word."""
    with _folder(root, target.parent) as folder:
        present = _status(folder, target.name)
        if present is not None and not (
            present.st_mode & 0o222 and os.access(target.name, os.W_OK, dir_fd=folder, follow_symlinks=False)
        ):
            raise PermissionError(f"{target.name} is read-only")
        beside = f".continualcode-{secrets.token_hex(8)}.tmp"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=folder)
        try:
            with os.fdopen(descriptor, "wb") as file:
                if present is not None:
                    _take_over(file.fileno(), present)
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            check()
            os.replace(beside, target.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(beside, dir_fd=folder)
            raise


def make_folders(root: Path, folder: Path) -> tuple[Path, ...]:
    """Makes the folder and those above it where they are missing; those made, the innermost first."""
    missing = tuple(item for item in (folder, *folder.parents) if not item.exists())
    with _folder(root, folder, make=True):
        return missing


@contextmanager
def _folder(root: Path, folder: Path, *, make: bool = False) -> Iterator[int]:
    if not folder.is_relative_to(root):  # of the root itself, which is no file
        raise _a_folder(root)
    descriptor = os.open(root, _FOLDER)
    try:
        for name in folder.relative_to(root).parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(name, dir_fd=descriptor)
            below = os.open(name, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    finally:
        os.close(descriptor)


def _a_folder(path: Path) -> IsADirectoryError:
    return IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _status(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _take_over(descriptor: int, present: os.stat_result) -> None:
    made = os.fstat(descriptor)
    if (made.st_uid, made.st_gid) != (present.st_uid, present.st_gid):
        with suppress(PermissionError):  # only root may give files away; the mode still counts
            os.fchown(descriptor, present.st_uid, present.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(present.st_mode))

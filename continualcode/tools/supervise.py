"""The process between the agent and one shell command: limits it, confines it by Landlock, leaves nothing of it running.

A program (`python -I -S -c SOURCE SETTINGS COMMAND ...`), so that nothing happens between fork and exec of
a process with threads; imports the standard library alone. Standard input is its lifeline: at its end all is ended.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import resource
import select
import signal
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

_PROC = Path("/proc")
_TICK = 0.05
_GRACE = 1.0
_LAST = 5.0
_FILE_BYTES = 16 * 2**30

_SET_PDEATHSIG, _SET_DUMPABLE, _CAPBSET_DROP, _SET_SUBREAPER, _SET_NO_NEW_PRIVS = 1, 4, 24, 36, 38
_KEPT_CAPABILITIES = {0, 1, 3, 4}  # CHOWN, DAC_OVERRIDE, FOWNER, FSETID: what root needs to work on others' files
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_WRITE_FILE, _TRUNCATE, _REFER = 1 << 1, 1 << 14, 1 << 13
_CHANGES = _WRITE_FILE | sum(1 << bit for bit in range(4, 13))  # remove, make
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty")
_libc = ctypes.CDLL(None, use_errno=True)


def main(settings: dict[str, Any], command: list[str]) -> None:
    """Runs the command to its end, its limits' or the lifeline's, and reports `{"code", "over", "stopped"}`.

    `code` is an exit status, negative for a signal; `over` names the limit it broke; `stopped` tells whether anything
    was still running. Settings: `report` (a descriptor), `processes`, `memory` (bytes) and `landlock`: None, or the
    folders that may be written in and whether the network may be used.
    """
    os.set_inheritable(settings["report"], False)
    if sys.platform == "linux":
        _prctl(_SET_SUBREAPER, 1)
        _prctl(_SET_DUMPABLE, 0)  # what it watches may not trace it
    child = os.fork()
    if child == 0:
        _become(settings, command)
    quiet = os.open(os.devnull, os.O_RDWR)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    tree = _Tree(child, settings["processes"])
    over = _watch(tree, settings)
    stopped = tree.end(gently=not over)
    while tree.code is None:  # dead, and not yet to be waited for
        time.sleep(0.001)
        tree.reap()
    report = {"code": tree.code, "over": over, "stopped": stopped}
    os.write(settings["report"], json.dumps(report).encode())


def landlock_abi() -> int:
    """The version of Landlock that this kernel speaks; 0: none."""
    return max(0, int(_libc.syscall(_CREATE_RULESET, None, 0, 1))) if sys.platform == "linux" else 0


class _Tree:
    """A child of this process and all that descends from it, whatever sessions and parents those have chosen."""

    def __init__(self, child: int, most: int) -> None:
        self.child, self.most = child, most
        self.code: int | None = None

    def reap(self) -> None:
        """Takes the dead; `code` is the child's status from when it is one of them."""
        with suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self.child:
                    self.code = os.waitstatus_to_exitcode(ended[1])

    def living(self) -> list[int]:
        """Process ids, the dead that wait to be reaped left out. Without /proc: the child's group, as one negative id."""
        self.reap()
        if not (_PROC / "self/stat").exists():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child, 0)
                return [-self.child]
            return []
        return _descendants(os.getpid())

    def end(self, *, gently: bool) -> bool:
        """Ends all of it, with a second's grace if `gently` and not too many; whether there was anything to end."""
        if not self.living():
            return False
        if gently:
            self._signal(signal.SIGTERM)
            self._wait(_GRACE)
        until = time.monotonic() + _LAST
        while self._signal(signal.SIGKILL) and time.monotonic() < until:  # again for what was forked meanwhile
            time.sleep(0.001)
        return True

    def _signal(self, number: int) -> bool:
        living = self.living()
        for pid in living:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        return bool(living)

    def _wait(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while 0 < len(self.living()) <= self.most and time.monotonic() < until:
            time.sleep(0.01)


def _watch(tree: _Tree, settings: dict[str, Any]) -> str:
    """Returns when the child has ended, the lifeline has, or a limit is broken, whose name it then returns."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if sys.platform == "linux":
        poll.register(os.pidfd_open(tree.child), select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll(_TICK * 1000)]
        living = tree.living()
        if len(living) > tree.most:
            return "processes"
        if tree.code is not None or 0 in ready:
            return ""
        if _resident(living) > settings["memory"] and _proportional(living) > settings["memory"]:
            return "memory"


def _descendants(ancestor: int) -> list[int]:
    children: dict[int, list[int]] = {}
    dead = set()
    for entry in os.scandir(_PROC):
        if entry.name.isdigit():
            with suppress(OSError):  # gone since it was listed
                state, parent, *_ = Path(entry.path, "stat").read_bytes().rpartition(b")")[2].split(None, 2)
                children.setdefault(int(parent), []).append(int(entry.name))
                if state in (b"Z", b"X"):
                    dead.add(int(entry.name))
    found = list(children.get(ancestor, ()))
    for pid in found:
        found += children.get(pid, ())
    return [pid for pid in found if pid not in dead]


def _resident(pids: list[int]) -> int:
    """Bytes of memory, those that processes share counted for each of them."""
    pages = 0
    for pid in pids:
        with suppress(OSError, IndexError):
            pages += int((_PROC / str(pid) / "statm").read_bytes().split()[1])
    return pages * resource.getpagesize()


def _proportional(pids: list[int]) -> int:
    """Bytes of memory, those that processes share divided among them; slow, and so asked second."""
    total = 0
    for pid in pids:
        try:
            lines = (_PROC / str(pid) / "smaps_rollup").read_bytes().splitlines()
        except OSError:
            total += _resident([pid])
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(b"Pss:"))
    return total


def _become(settings: dict[str, Any], command: list[str]) -> None:
    """Turns this process into the command; says why and exits with 126 where it cannot be confined as it should be."""
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _lower(resource.RLIMIT_FSIZE, _FILE_BYTES)
        if sys.platform == "linux":
            _prctl(_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != 1 or _kernel() >= (5, 14):  # older ones count the user's elsewhere to a namespace's own
                _lower(resource.RLIMIT_NPROC, _tasks() + 4 * settings["processes"])  # threads; binds all but root
        if settings["landlock"] is not None:
            _confine(settings["landlock"]["writable"], network=settings["landlock"]["network"])
        os.execv(command[0], command)
    except OSError as error:
        os.write(2, f"the command could not be started: {error}\n".encode())
    os._exit(126)


def _lower(limit: int, wanted: int) -> None:
    hard = resource.getrlimit(limit)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(limit, (value, value))


def _kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


def _tasks() -> int:
    """Threads that this user has now."""
    count = 0
    for entry in os.scandir(_PROC):
        with suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == os.getuid():
                count += len(os.listdir(f"{entry.path}/task"))
    return count


def _confine(writable: list[str], *, network: bool) -> None:
    """This process may change nothing but what lies in these folders, from now on, nor may what it starts."""
    abi = landlock_abi()
    handled = _CHANGES | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    connections = 0 if network else 0b11
    attributes = struct.pack("=QQQ", handled, connections if abi >= 4 else 0, 0b11 if abi >= 6 else 0)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    ruleset = _syscall(_CREATE_RULESET, attributes[:size], size, 0)
    for path in (*writable, "/dev/shm"):
        _allow(ruleset, path, handled)
    for path in _DEVICES:
        _allow(ruleset, path, handled & (_WRITE_FILE | _TRUNCATE))
    if os.geteuid() == 0:
        for capability in range(64):
            if capability not in _KEPT_CAPABILITIES:
                _libc.prctl(_CAPBSET_DROP, capability, 0, 0, 0)  # fails above the last there is
    _prctl(_SET_NO_NEW_PRIVS, 1)
    _syscall(_RESTRICT_SELF, ruleset, 0)


def _allow(ruleset: int, path: str, access: int) -> None:
    with suppress(FileNotFoundError):
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        _syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, descriptor), 0)


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _syscall(*arguments: int | bytes) -> int:
    result = int(_libc.syscall(*arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])

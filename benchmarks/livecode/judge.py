"""The process in the sandbox: runs a solution on inputs, each in a fork of its own. No expected output ever gets here.

A program (`python -I -S -c SOURCE SETTINGS`) of the standard library alone. The server, which no solution enters, forks
for each solution a process that compiles it and is told one input at a time; that forks for each input the process in
which the solution runs, locked down. What a run leaves behind is gone before the next begins.
"""

from __future__ import annotations

import atexit
import builtins
import ctypes
import gc
import itertools
import json
import linecache
import os
import platform
import resource
import select
import shutil
import signal
import struct
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from typing import Any

NAME = "solution.py"
_TICK = 0.02
_FAILED, _MEMORY = 101, 102  # exit statuses of a run
_REPORT = 3  # its descriptor for a traceback, or for what the function returned
_SHOWN = 4000
_MODULES = "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys"
_STARS = "".join(f"from {name} import *\n" for name in f"{_MODULES} json builtins typing".split())
IMPORTS = f"{_STARS}import json, {_MODULES.replace(' ', ', ')}\n"  # LiveCodeBench puts them before every solution
_RECURSION, _STACK = 50_000, 96 * 2**20

_SET_DUMPABLE, _SET_SECCOMP, _SET_SUBREAPER, _SET_NO_NEW_PRIVS = 4, 22, 36, 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_X86_64, _CLONE, _CLONE3, _CLONE_THREAD, _PRLIMIT = 0xC000003E, 56, 435, 1 << 16, 302
_REFUSED = (
    *(57, 58, 59, 322, 272, 308),  # fork, vfork, execve, execveat, unshare, setns
    *(62, 200, 234, 129, 297, 424, 434, 438),  # kill and its kin, pidfds
    *(101, 310, 311, 440, 298, 321, 323, 425),  # ptrace, process_vm_*, process_madvise, perf, bpf, userfaultfd, uring
    *(141, 142, 144, 203, 251, 256, 279, 314),  # priority, scheduling, affinity and pages of other processes
    *(41, 248, 249, 250, 303, 304),  # socket, keys, file handles
    *(29, 64, 68, 240, 319, 447),  # shmget, semget, msgget, mq_open, memfds: they outlive a run, or hold more memory
    *(90, 91, 268, 452, 92, 93, 94, 260, 132, 235, 261, 280),  # mode, owner and times of files
    *(188, 189, 190, 197, 198, 199, 463, 466),  # their attributes
)
_SIGNALS = ((72, 8), (72, 15), (16, 0x8901), (16, 0x8902))  # fcntl and ioctl that have a file signal another process
_libc = ctypes.CDLL(None, use_errno=True)


class Judge:
    """Settings: `channel`, a socket; `folder`; `packages`, to import from; `readable`, the paths that a run may read,
    None where nothing confines it; and the grader's limits: `seconds`, `clock`, `memory`, `output`, `files`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._module = types.ModuleType("solution")
        self._requests, self._replies = (os.fdopen(settings["channel"], mode, closefd=False) for mode in ("rb", "wb"))
        _prctl(_SET_DUMPABLE, 0)  # what it starts may not trace it
        sys.path.append(settings["packages"])
        vars(builtins).update(exit=sys.exit, quit=sys.exit)
        exec(IMPORTS, self._module.__dict__)
        sys.setrecursionlimit(_RECURSION)
        self._lock = _lockdown(settings["readable"], settings["folder"])

    def serve(self) -> None:
        """One solution after another, until something is left of one; the supervisor will end that."""
        gc.collect()
        gc.freeze()
        self._send(status="ready")
        for line in self._requests:
            if os.waitpid(_fork(self._judge, **json.loads(line)), 0)[1] != 0:
                return
            self._send(status="over")

    def _judge(self, code: str, function: str | None) -> int:
        """One solution, to the end of its inputs; 0 when nothing is left of it."""
        _prctl(_SET_SUBREAPER, 1)
        detail = ""
        try:
            program = compile(code, NAME, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError) as error:
            detail = _described(error)
        self._send(status="compiled", detail=detail)
        linecache.cache[NAME] = (len(code), None, code.splitlines(keepends=True), NAME)
        if "numpy" in code:
            with suppress(ImportError):  # the solution will say so
                __import__("numpy")
        while (text := json.loads(self._requests.readline())) is not None:
            reply = self._run(text.encode("utf-8", "replace"), program, function)
            with suppress(ChildProcessError):  # as there should be none
                os.waitpid(-1, os.WNOHANG)
                return 1
            for entry in os.scandir(self._settings["folder"]):
                shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
            self._send(**reply)
        return 0

    def _run(self, text: bytes, program: types.CodeType, function: str | None) -> dict[str, str]:
        """What became of one run, and what it printed or returned."""
        files = given, said, told = [os.memfd_create(NAME) for _ in range(3)]
        for start in range(0, len(text), 2**20):
            os.write(given, text[start : start + 2**20])
        os.lseek(given, 0, os.SEEK_SET)
        child = _fork(self._become, files, lambda: _solve(program, function, self._module, text))
        status, detail = self._watched(child)
        for kill in (os.kill, os.killpg):
            with suppress(ProcessLookupError):  # it may not have a group yet
                kill(child, signal.SIGKILL)
        code, most = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), self._settings["output"]
        full = max(os.fstat(said).st_size, os.fstat(told).st_size) >= most
        printed, report = (os.pread(file, most, 0).decode("utf-8", "replace") for file in (said, told))
        for file in files:
            os.close(file)
        if status == "done" and full:
            status, detail = "output", f"more than {most:,} bytes of output"
        elif status == "done" and code == _MEMORY:
            status, detail = "memory", f"MemoryError: more than {self._settings['memory'] / 2**20:,.0f} MiB of memory"
        elif status == "done" and code != 0:
            name = f"exit status {code}" if code > 0 else signal.Signals(-code).name
            status, detail = "error", report if code == _FAILED else f"ended with {name}"
        got = printed[:_SHOWN] if status != "done" else printed if function is None else report
        return {"status": status, "detail": detail, "got": got}

    def _watched(self, child: int) -> tuple[str, str]:
        """Waits until a run is "done", or at a limit, which it names."""
        seconds, clock, folder = (self._settings[name] for name in ("seconds", "clock", "folder"))
        until, ended, files = time.monotonic() + clock, os.pidfd_open(child), self._settings["files"]
        try:
            while not select.select([ended], [], [], _TICK)[0]:
                if time.clock_gettime((~child << 3) | 2) > seconds:  # the clock of that process
                    return "timeout", f"more than {seconds:g} seconds of processor time"
                if time.monotonic() > until:
                    return "timeout", f"more than {clock:g} seconds"
                found = itertools.accumulate(len(folders) + len(names) for _, folders, names in os.walk(folder))
                if any(count > files for count in found):  # and no further look
                    return "output", f"more than {files} files"
            return "done", ""
        finally:
            os.close(ended)

    def _become(self, files: list[int], solve: Callable[[], bytes | None]) -> int:
        """The process of a run, with nothing open but its input, output and report."""
        os.setsid()
        os.chdir(self._settings["folder"])
        quiet = os.open(os.devnull, os.O_RDWR)
        self._lock()
        for number, file in enumerate((files[0], files[1], quiet, files[2])):
            os.dup2(file, number)
        os.closerange(_REPORT + 1, 2**20)
        for name, value in (("AS", self._settings["memory"]), ("FSIZE", self._settings["output"]), ("NOFILE", 64)):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (value, value))
        with suppress(ValueError):  # a lower one is in force
            resource.setrlimit(resource.RLIMIT_STACK, (_STACK, resource.getrlimit(resource.RLIMIT_STACK)[1]))
        return _interpreted(solve)

    def _send(self, **message: str) -> None:
        self._replies.write(json.dumps(message).encode() + b"\n")
        self._replies.flush()


def _solve(program: types.CodeType, function: str | None, module: types.ModuleType, text: bytes) -> bytes | None:
    """Runs the program; or calls its function, and gives what that returns as JSON."""
    module.__dict__.update(__name__="solution" if function else "__main__", stdin=sys.stdin, stdout=sys.stdout)
    sys.modules[module.__name__] = module
    exec(program, module.__dict__)
    if function is None:
        return None
    owner = module.__dict__["Solution"]() if "Solution" in module.__dict__ else module
    result = getattr(owner, function)(*[json.loads(line) for line in text.decode().split("\n") if line.strip()])
    try:
        return json.dumps(result, default=lambda value: value.tolist()).encode()  # numpy's
    except (AttributeError, TypeError, ValueError, RecursionError):
        return f"not JSON: {result!r}".encode("utf-8", "replace")


def _interpreted(solve: Callable[[], bytes | None]) -> int:
    """Does as the interpreter does with a program, to an exit status."""
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    stdout = sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.argv = [NAME]
    broken: list[BaseException | None] = []
    threading.excepthook = lambda args: broken.append(args.exc_value)
    try:
        with suppress(SystemExit):
            os.write(_REPORT, solve() or b"")
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, stdout):
            with suppress(AttributeError, ValueError):  # replaced by something else, or closed
                stream.flush()
        if broken:
            raise broken[0] or RuntimeError("a thread failed")
        return 0
    except MemoryError:
        return _MEMORY
    except BaseException as error:
        with suppress(OSError, ValueError):
            stdout.flush()
        os.write(_REPORT, _described(error).encode("utf-8", "replace"))
        return _FAILED


def _described(error: BaseException) -> str:
    """The traceback, from the solution's own first frame on."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != NAME:
        frames = frames.tb_next
    return "".join(traceback.format_exception(type(error), error, frames)).strip()[-_SHOWN:]


def _lockdown(readable: list[str] | None, folder: str) -> Callable[[], int]:
    """What confines the process that calls it beyond its sandbox: no processes, sockets or files but those it needs."""
    if readable is None:
        return lambda: 0
    ruleset, instructions = _ruleset(readable, folder), _filter()

    def lock() -> int:
        _prctl(_SET_NO_NEW_PRIVS, 1)
        _checked(_libc.syscall(_RESTRICT_SELF, ruleset, 0))
        buffer = ctypes.create_string_buffer(instructions)
        _prctl(_SET_SECCOMP, 2, struct.pack("HP", len(instructions) // 8, ctypes.addressof(buffer)))
        return 0

    if os.waitpid(_fork(lock), 0)[1] != 0:
        raise SystemExit("this kernel does not let a process give up system calls (seccomp)")
    return lock


def _filter() -> bytes:
    """A seccomp program: what is refused answers "not permitted"."""
    if platform.machine() != "x86_64":
        raise SystemExit(f"solutions can be confined on x86_64 only, not on {platform.machine()}")
    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, absent, kill = ((answer, 0, 0, code) for code in (0x7FFF0000, 0x00050001, 0x00050026, 0x80000000))
    steps = [(load, 0, 0, 4), (equal, 1, 0, _X86_64), kill, (load, 0, 0, 0)]
    steps += [(at_least, 0, 1, 0x40000000), refuse]  # other names of the same calls (x32)
    steps += [(equal, 0, 1, _CLONE3), absent]  # glibc then asks clone
    steps += [(equal, 0, 4, _CLONE), (load, 0, 0, 16), (any_bit, 1, 0, _CLONE_THREAD), refuse, allow]
    steps += [(equal, 0, 4, _PRLIMIT), (load, 0, 0, 16), (equal, 1, 0, 0), refuse, allow]  # its own
    for call, request in _SIGNALS:
        steps += [(equal, 0, 4, call), (load, 0, 0, 24), (equal, 0, 1, request), refuse, (load, 0, 0, 0)]
    steps += [step for number in _REFUSED for step in ((equal, 0, 1, number), refuse)]
    return b"".join(struct.pack("HBBI", *step) for step in [*steps, allow])


def _ruleset(readable: list[str], folder: str) -> int:
    """A Landlock ruleset under which only these paths can be read, and only the folder written."""
    abi = int(_libc.syscall(_CREATE_RULESET, None, 0, 1))
    if abi < 1:
        raise SystemExit("this kernel has no Landlock, to confine what a solution reads")
    handled = (1 << (13 if abi < 2 else 14 if abi < 3 else 15)) - 1
    attributes = struct.pack("QQQ", handled, 0, 0b11)[: 24 if abi >= 6 else 8]
    ruleset = _checked(_libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0))
    read = {path: _READ_FILE | (_READ_FOLDER if os.path.isdir(path) else 0) for path in readable}
    for path, access in {**read, folder: handled}.items():
        with suppress(FileNotFoundError):
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
            _checked(_libc.syscall(_ADD_RULE, ruleset, 1, struct.pack("=Qi", access, file), 0))
            os.close(file)
    return ruleset


def _fork(work: Callable[..., int], *arguments: object, **named: object) -> int:
    """A child that does the work and ends with what it returns, 1 for an error."""
    child = os.fork()
    if child == 0:
        leave, code = os._exit, 1
        try:
            code = work(*arguments, **named)
        finally:
            leave(code)
    return child


def _prctl(option: int, value: int, pointer: bytes | None = None) -> None:
    _checked(_libc.prctl(option, value, pointer, 0, 0))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


if __name__ == "__main__":
    Judge(json.loads(sys.argv[1])).serve()

"""What confines a shell command: bubblewrap where the kernel lets it, else Landlock, else nothing, said in words.

Knows nothing of shells or tools. What is in force was tried by a command that attempts what it must not be able to do.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

from continualcode.errors import ConfigError
from continualcode.tools.supervise import landlock_abi
from continualcode.tools.workspace import Workspace

Wanted: TypeAlias = Literal["auto", "required", "off"]
Confinement: TypeAlias = Literal["bubblewrap", "landlock"]
KINDS: tuple[Confinement, ...] = ("bubblewrap", "landlock")
"""The better first."""

_PYTHON = os.path.realpath(sys.executable)
_SUPERVISE = Path(__file__).with_name("supervise.py").read_text(encoding="utf-8")
"""Read before any command has run: both may lie in the workspace."""
_HIDDEN = (Path("/tmp"), Path("/run"))
_SHM_BYTES = 2**30
_PROBE_SECONDS = 20.0


def half_of_memory() -> int:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


@dataclass(frozen=True, slots=True)
class Sandbox:
    """How commands are confined; `why` says how that was found out. Find one with `find_sandbox`."""

    kind: Confinement | Literal["none"]
    why: str
    network: bool = False
    """Whether commands may use the network; with kind "none" nothing keeps them from it."""
    processes: int = 512
    memory: int = field(default_factory=half_of_memory)
    """Bytes that a command and all it has started may hold."""

    @property
    def limits(self) -> str:
        """What a command can and cannot do, for a person to read."""
        both = f"at most {self.processes} processes and {self.memory / 1e9:.0f} GB, nothing left running"
        match self.kind:
            case "bubblewrap":
                net = "with network" if self.network else "no network"
                return f"writes only in the workspace and a /tmp of its own, {net}, sees no other process; {both}"
            case "landlock":
                return f"writes only in the workspace, $TMPDIR and /dev/shm; {_open_to_landlock(self.network)}; {both}"
            case "none":
                return f"it can do what you can: write anywhere, use the network, read other processes; {both}"

    @property
    def note(self) -> str:
        """One line: what is in force, what that means, and why."""
        where = "NO SANDBOX" if self.kind == "none" else self.kind
        return f"bash runs in {where}: {self.limits} ({self.why})"

    def argv(self, command: Sequence[str], workspace: Workspace, temporary: Path, report: int) -> list[str]:
        """The command line that runs `command` (its program as a full path) confined and supervised.

        `temporary` is an empty folder that becomes its /tmp; what became of the command is written to the open
        descriptor `report`. Standard input must be a pipe: closing it ends the command.
        """
        landlock = {"writable": [str(workspace.root), str(temporary)], "network": self.network}
        settings = {
            "report": report,
            "processes": self.processes,
            "memory": self.memory,
            "landlock": landlock if self.kind == "landlock" else None,
        }
        supervised = [_PYTHON, "-I", "-S", "-c", _SUPERVISE, json.dumps(settings), *command]
        return [*self._bubblewrap(workspace, temporary), *supervised] if self.kind == "bubblewrap" else supervised

    def _bubblewrap(self, workspace: Workspace, temporary: Path) -> list[str]:
        unshared = [f"--unshare-{name}" for name in ("user", "pid", "ipc", "uts")]
        if not self.network:
            unshared.append("--unshare-net")
        return [
            *(bubblewrap() or "bwrap", *unshared, "--cap-drop", "ALL", "--die-with-parent", "--as-pid-1"),
            *_mounts(workspace, temporary, network=self.network),
            *("--chdir", str(workspace.root), "--"),
        ]


def find_sandbox(wanted: Wanted = "auto", *, network: bool = False) -> Sandbox:
    """The best sandbox there is here, tried out. Raises ConfigError when one is required and there is none."""
    if wanted == "off":
        return Sandbox("none", "sandbox=off", network=True)
    reasons: list[str] = []
    for kind in KINDS:
        problem = problem_with(kind)
        if problem is None:
            return Sandbox(kind, "; ".join([*reasons, f"{kind} was tried, and it holds"]), network)
        reasons.append(problem)
    why = "; ".join(reasons)
    if wanted == "required":
        raise ConfigError(
            f"sandbox=required, and there is none: {why}. Install bubblewrap (Debian: apt install bubblewrap), "
            "or run with sandbox=auto, which goes without"
        )
    return Sandbox("none", why, network=True)


@cache  # before any command has run: PATH may lead into the workspace
def bubblewrap() -> str | None:
    """The program bwrap."""
    return shutil.which("bwrap")


@cache  # what this kernel lets us do does not change while we run
def problem_with(kind: Confinement) -> str | None:
    """Why commands cannot be confined so here, found out by confining one; None when they can be."""
    match kind:
        case "bubblewrap" if bubblewrap() is None:
            return "bubblewrap is not installed"
        case "landlock" if landlock_abi() == 0:
            return "this kernel has no Landlock"
    problem = _tried(Sandbox(kind, ""))
    return f"{kind} does not work here: {problem}" if problem is not None else None


def _tried(sandbox: Sandbox) -> str | None:
    """What is wrong with it: a command in it writes in a workspace, and then tries to write beside that."""
    with tempfile.TemporaryDirectory() as folder:
        inside, outside, temporary = (Path(folder, name) for name in ("inside", "outside", "temporary"))
        for made in (inside, outside, temporary):
            made.mkdir()
        script = f"echo > {shlex.quote(str(inside / 'x'))}; echo > {shlex.quote(str(outside / 'x'))}; exit 0"
        said = _run(sandbox, ["/bin/sh", "-c", script], Workspace(inside), temporary)
        if not (inside / "x").exists():
            return " ".join(said.split()) or "a command in it cannot write in its workspace"
        return "a command in it can write outside its workspace" if (outside / "x").exists() else None


def _run(sandbox: Sandbox, command: Sequence[str], workspace: Workspace, temporary: Path) -> str:
    """What the command says on its standard error."""
    lifeline, report = os.pipe(), os.pipe()
    try:
        ended = subprocess.run(
            sandbox.argv(command, workspace, temporary, report[1]),
            stdin=lifeline[0],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=(report[1],),
            start_new_session=True,
            timeout=_PROBE_SECONDS,
        )
        return ended.stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        return f"a command in it did not end in {_PROBE_SECONDS:g} seconds"
    finally:
        for descriptor in (*lifeline, *report):
            os.close(descriptor)


def _open_to_landlock(network: bool) -> str:
    """What Landlock, as this kernel has it, leaves open."""
    abi = landlock_abi()
    left = ["reading files", "changing the mode, owner and times of files that are yours", "seeing other processes"]
    if abi < 3:
        left.append("emptying files elsewhere")
    if network or abi < 4:
        left.append("the network")
    else:
        left.append("UDP and Unix sockets (TCP is barred)")
    if abi < 6:
        left.append("ending other processes of yours")
    return f"not barred: {', '.join(left)}; the agent's own files in the workspace are put back after a command"


def _mounts(workspace: Workspace, temporary: Path, *, network: bool) -> list[str]:
    """Everything read-only, then what may be written over it, then what may not; the outer before the inner."""
    binds = [("--bind", temporary, Path("/tmp")), ("--bind", workspace.root, workspace.root)]
    needed = (Path(_PYTHON).parent, Path(sys.prefix), Path(sys.base_prefix))
    binds += [("--ro-bind", path, path) for path in needed if _is_below(path, _HIDDEN)]
    if network:
        binds.append(("--ro-bind-try", Path("/run/systemd/resolve"), Path("/run/systemd/resolve")))
    own = [path for path in workspace.own.present if path.is_relative_to(workspace.root)]
    above = {folder for path in own for folder in path.parents if folder != workspace.root}
    above = {folder for folder in above if folder.is_relative_to(workspace.root)}
    binds += [("--bind", folder, folder) for folder in above]  # a mount cannot be renamed, to put another in its place
    binds += [("--ro-bind", path, path) for path in own]
    binds.sort(key=lambda bind: len(bind[2].parts))
    fixed = ["--ro-bind", "/", "/", "--dev", "/dev", "--size", str(_SHM_BYTES), "--tmpfs", "/dev/shm"]
    fixed += ["--proc", "/proc", "--size", str(_SHM_BYTES), "--tmpfs", "/run"]
    return [*fixed, *(str(word) for bind in binds for word in bind)]


def _is_below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)

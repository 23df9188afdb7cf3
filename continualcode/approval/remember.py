"""Remember: "always allow" for this exact call, this tool, or commands that begin so; kept in a file, shown and revocable."""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Literal, get_args

from continualcode.approval.bash import script_of
from continualcode.approval.prefix import Prefix, covered, suggested
from continualcode.errors import ConfigError
from continualcode.types import Approve, ToolCall, Turn

Kind = Literal["call", "tool", "command"]


@dataclass(frozen=True, slots=True)
class Allowed:
    """One "always": a call as JSON, a tool by name, or the words that a bash command begins with."""

    kind: Kind
    what: str

    def __str__(self) -> str:
        said = {"call": "the call", "tool": "every call of", "command": "bash commands that begin with"}
        return f"{said[self.kind]} {self.what}"


class Remember:
    """Approves what it was told to always allow.

    A remembered call is exact to the byte. Remembered commands approve a bash call when every simple command in it
    begins with the words of one of them, nothing is redirected or substituted, and no option makes a program do more.

    With a `path` all is kept in that file, readable by its owner only and read anew for every call, so that what one
    session revokes no other still allows. It belongs where no tool writes. Raises ConfigError when it cannot be used.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._here: tuple[Allowed, ...] = ()
        self._here = self.allowed

    @property
    def allowed(self) -> tuple[Allowed, ...]:
        """Everything allowed, the oldest first."""
        return self._here if self._path is None else _load(self._path)

    def allow_call(self, call: ToolCall) -> None:
        self._keep(*self.allowed, Allowed("call", call.to_json()))

    def allow_tool(self, name: str) -> None:
        self._keep(*self.allowed, Allowed("tool", name))

    def allow_commands(self, *prefixes: Prefix) -> None:
        """Raises ConfigError for a prefix that would allow anything, like `python`."""
        for prefix in prefixes:
            if prefix.problem is not None:
                raise ConfigError(prefix.problem)
        self._keep(*self.allowed, *(Allowed("command", str(prefix)) for prefix in prefixes))

    def revoke(self, allowed: Allowed) -> None:
        self._keep(*(item for item in self.allowed if item != allowed))

    def forget(self) -> None:
        """Takes every "always" back."""
        self._keep()

    async def review(self, turn: Turn, call: ToolCall) -> Approve | None:
        allowed = self.allowed
        if Allowed("tool", call.name) in allowed or Allowed("call", call.to_json()) in allowed:
            return Approve()
        prefixes = [Prefix.read(item.what) for item in allowed if item.kind == "command"]
        script = script_of(call) if prefixes else None
        return Approve() if script is not None and covered(script, prefixes) else None

    def _keep(self, *allowed: Allowed) -> None:
        self._here = tuple(dict.fromkeys(allowed))
        if self._path is not None:
            _save(self._path, self._here)


def commands_to_allow(call: ToolCall) -> tuple[Prefix, ...]:
    """What `allow_commands` could be told so that this call, and others like it, pass; () when nothing can."""
    script = script_of(call)
    return suggested(script) if script is not None else ()


def allowed_file(state_dir: Path, workspace: Path) -> Path:
    """Where the "always"s for this workspace are kept."""
    digest = blake2b(os.fsencode(workspace.resolve()), digest_size=8).hexdigest()
    return state_dir / "allowed" / f"{workspace.resolve().name}-{digest}.json"


def _load(path: Path) -> tuple[Allowed, ...]:
    try:
        with path.open(encoding="ascii") as file:
            state = os.fstat(file.fileno())
            if state.st_mode & 0o022 or state.st_uid != os.getuid():
                raise ConfigError(f"others than you can write {path}, which says what runs without asking; remove it")
            return tuple(_read(item) for item in json.load(file))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}; remove it to be asked about everything again") from error


def _read(item: dict[str, str]) -> Allowed:
    allowed = Allowed(**item)  # type: ignore[arg-type]  # checked in the next lines
    if allowed.kind not in get_args(Kind) or not isinstance(allowed.what, str):
        raise ValueError(f"no kind of permission: {item}")
    if allowed.kind == "command":
        Prefix.read(allowed.what)
    return allowed


def _save(path: Path, allowed: tuple[Allowed, ...]) -> None:
    beside = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            json.dump([asdict(item) for item in allowed], file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except OSError as error:
        with suppress(OSError):
            beside.unlink()
        raise ConfigError(f"what is always allowed cannot be kept in {path}: {error.strerror}") from error

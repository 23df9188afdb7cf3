"""Rules: allow, ask or deny by tool, path and command. The first that matches wins; what none matches is asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from continualcode.approval.bash import script_of
from continualcode.approval.command import Command, program_of
from continualcode.approval.prefix import Prefix
from continualcode.errors import ConfigError, WorkspaceError
from continualcode.protocols import ApprovalGate
from continualcode.tools.workspace import Workspace
from continualcode.types import Approve, Deny, ToolCall, Turn, Verdict

_Item: TypeAlias = "Command | PurePosixPath | Literal['pathless', 'unknown']"
"""What a rule is held against: each simple command, each file, or that there is none or that it cannot be told."""
_Match: TypeAlias = Literal["yes", "maybe", "no"]


@dataclass(frozen=True, slots=True)
class Rule:
    """What to do with calls of a tool, calls on a path, or bash commands.

    Args:
        action: allow, ask or deny.
        tool: name of the tool, `*` and `?` allowed.
        path: glob, relative to the workspace, for the call's `path`, its links followed, and for files that a bash
            command redirects to or from. `**` is any number of folders.
        command: the words that a simple command of bash begins with.
        reason: of a deny, said to the model.
        teach: whether a deny's reason becomes a lesson; by default when there is one.

    Raises ConfigError for a rule that says nothing, contradicts itself, or would allow anything by a command.
    """

    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012  # no field, and read by pydantic only

    action: Literal["allow", "ask", "deny"]
    tool: str | None = None
    path: str | None = None
    command: str | None = None
    reason: str = ""
    teach: bool | None = None
    prefix: Prefix | None = field(init=False, default=None, repr=False)

    def __post_init__(self) -> None:
        if self.command is not None:
            object.__setattr__(self, "prefix", Prefix.read(self.command))
        if (problem := self._problem()) is not None:
            raise ConfigError(f"the rule `{self}` cannot be: {problem}")

    def __str__(self) -> str:
        named = {"tool": self.tool, "path": self.path, "command": self.command}
        return " ".join([self.action, *(f"{name}={value!r}" for name, value in named.items() if value is not None)])

    @property
    def denial(self) -> Deny:
        teach = bool(self.reason) if self.teach is None else self.teach
        return Deny(self.reason or f"the user's rules do not allow this ({self})", teach)

    def _problem(self) -> str | None:
        if self.tool is None and self.path is None and self.command is None:
            return "name a tool, a path or a command; tool='*' is every tool"
        if self.command is not None and (self.path is not None or self.tool not in (None, "bash")):
            return "a command is bash's, and goes with no path"
        if self.path is not None and (self.path.startswith(("/", "~")) or ".." in self.path.split("/")):
            return "a path is relative to the workspace and stays inside"
        if self.action != "deny" and (self.reason or self.teach is not None):
            return "only a deny has a reason and teaches"
        if self.teach and not self.reason:
            return "to teach, give a reason"
        return self.prefix.problem if self.prefix is not None and self.action == "allow" else None


class Rules:
    """Decides by the first rule that matches; None, so that somebody is asked, for `ask` and where none matches.

    A bash call is allowed when each of its simple commands, and each file it redirects to or from, is. What cannot be
    told about a command, and what might match a rule that asks or denies, is asked about.

    Args:
        rules: in order.
        workspace: where paths are resolved.
        unless: gates asked before a rule allows something; a verdict of theirs wins.
        otherwise: gates asked where no rule matches. An `ask` passes them over.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        workspace: Workspace,
        *,
        unless: Sequence[ApprovalGate] = (),
        otherwise: Sequence[ApprovalGate] = (),
    ) -> None:
        self.rules, self.workspace = tuple(rules), workspace
        self.unless, self.otherwise = tuple(unless), tuple(otherwise)

    async def review(self, turn: Turn, call: ToolCall) -> Verdict | None:
        found = [self._first(call.name, item) for item in self._items(call)]
        denials = [rule.denial for rule in found if isinstance(rule, Rule) and rule.action == "deny"]
        if denials:
            return denials[0]
        if all(isinstance(rule, Rule) and rule.action == "allow" for rule in found):
            return await _verdict(self.unless, turn, call) or Approve()
        return await _verdict(self.otherwise, turn, call) if found == [None] else None

    def _first(self, tool: str, item: _Item) -> Rule | Literal["ask"] | None:
        for rule in self.rules:
            match self._match(rule, tool, item):
                case "yes":
                    return rule if rule.action != "ask" else "ask"
                case "maybe":
                    return "ask"
        return None

    def _match(self, rule: Rule, tool: str, item: _Item) -> _Match:
        if rule.tool is not None and not fnmatchcase(tool, rule.tool):
            return "no"
        allows = rule.action == "allow"
        match item:
            case Command() if rule.prefix is not None:
                return _either(rule.prefix.covers(item)) if allows else rule.prefix.matches(item)
            case Command() if rule.path is not None:
                named = any(self._fits(word, rule.path) for word in item.words if word)
                return "maybe" if named and not allows else "no"
            case "unknown" if rule.path is not None or rule.command is not None:
                return "no" if allows or (rule.path is None and tool != "bash") else "maybe"
            case PurePosixPath() if rule.path is not None:
                return _either(_fits(item.parts, PurePosixPath(rule.path).parts))
        return _either(rule.path is None and rule.command is None)

    def _items(self, call: ToolCall) -> Iterator[_Item]:
        if (script := script_of(call)) is None:
            path = call.arguments.get("path")
            yield self._resolved(path) if isinstance(path, str) else "pathless"
            return
        yield from script.commands
        moved = any(program_of(c.words[0] or "") in ("cd", "pushd", "popd") for c in script.commands if c.words)
        for name in script.redirections:
            yield "unknown" if name is None or (moved and not name.startswith("/")) else self._resolved(name)
        if script.unclear is not None or not script.commands:
            yield "unknown"

    def _resolved(self, path: str) -> PurePosixPath | Literal["unknown"]:
        try:
            target = self.workspace.resolve(path)
        except WorkspaceError:
            return "unknown"
        return "unknown" if self.workspace.own.holds(target) else PurePosixPath(self.workspace.relative(target))

    def _fits(self, path: str, pattern: str) -> bool:
        resolved = self._resolved(path)
        return resolved != "unknown" and _fits(resolved.parts, PurePosixPath(pattern).parts)


async def _verdict(gates: Sequence[ApprovalGate], turn: Turn, call: ToolCall) -> Verdict | None:
    for gate in gates:
        if (verdict := await gate.review(turn, call)) is not None:
            return verdict
    return None


def _either(matches: bool) -> _Match:
    return "yes" if matches else "no"


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return _fits(parts, pattern[1:]) or (bool(parts) and _fits(parts[1:], pattern))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _fits(parts[1:], pattern[1:])

"""The last gate's decision on one call: show it, ask, and turn the answer into a verdict. Knows nothing of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from continualcode.approval import Prefix, Remember
from continualcode.approval.remember import commands_to_allow
from continualcode.errors import ConfigError, ToolError
from continualcode.frontends.safe import shorten, visible
from continualcode.frontends.terminal.diff import diff
from continualcode.frontends.terminal.editor import NotJsonError, as_json, edit_text, read_json
from continualcode.frontends.terminal.keyboard import echo
from continualcode.frontends.terminal.prompt import Left, Option, Pressed, Prompter, Typed
from continualcode.frontends.terminal.render import Change, render_call
from continualcode.frontends.terminal.wording import DENIED, SHORTCUTS, Shortcut
from continualcode.tools.files import preview
from continualcode.tools.workspace import Workspace
from continualcode.types import Approve, Deny, Edit, ToolCall, Verdict

_FEWEST_LINES, _MOST_LINES, _ROOM_BELOW = 12, 60, 12
"""How much of a change is shown: as much as leaves its first line and the question on the screen together."""
Check = Callable[[ToolCall], str | None]


class Reviewer:
    """Asks about calls. `last_error` is what the previous tool failed of, offered as one more ready reason."""

    def __init__(self, console: Console, prompter: Prompter, workspace: Workspace, remember: Remember) -> None:
        self._console, self._prompter = console, prompter
        self._workspace, self._remember = workspace, remember
        self.last_error: str | None = None

    async def show(self, call: ToolCall, *, full: bool = False) -> _Seen:
        """Prints the call as it would act on the files as they are now."""
        change, problem = await asyncio.to_thread(_change_of, self._workspace, call)
        limit = None if full else max(_FEWEST_LINES, min(_MOST_LINES, self._console.height - _ROOM_BELOW))
        shown = render_call(call, change, problem, limit=limit)
        self._console.print(shown.renderable)
        return _Seen(shown.shortened, problem)

    async def decide(self, call: ToolCall, check: Check) -> Verdict | None:
        """The user's verdict on exactly this call; None when the user wants to stop."""
        draft = as_json(call.arguments)
        seen = await self.show(call)
        while True:
            reasons = self._reasons(seen)
            match await self._prompter.choose(_options(call, reasons, seen.shortened), "or why not:"):
                case Left():
                    return None
                case Typed(text):
                    return Deny(text)
                case Pressed("n"):
                    if (reason := await self._prompter.reason("why not? (Enter alone: just no)")) is not None:
                        return Deny(reason) if reason else Deny(DENIED, teach=False)
                case Pressed("v"):
                    seen = await self.show(call, full=True)
                case Pressed("e"):
                    draft = await self._edited(draft)
                    if (verdict := await self._review_edit(call, draft, check)) is not None:
                        return verdict
                case Pressed(key) if key.isdigit():
                    return Deny(reasons[int(key) - 1].reason)
                case Pressed(key):
                    return self._approve(call, key)

    def _approve(self, call: ToolCall, key: str) -> Approve:
        try:
            match key:
                case "a":
                    self._remember.allow_call(call)
                    self._say("this exact call will not be asked about again; /allowed takes that back")
                case "t":
                    self._remember.allow_tool(call.name)
                    self._say(f"{call.name} will not be asked about again; /allowed takes that back")
                case "p":
                    prefixes = commands_to_allow(call)
                    self._remember.allow_commands(*prefixes)
                    self._say(f"{_listed(prefixes)} will not be asked about again; /allowed takes that back")
        except ConfigError as error:
            self._say(f"allowed this once: {error}", "yellow")
        return Approve()

    async def _edited(self, draft: str) -> str:
        """The draft after the user has been at it in an editor; the same when that did not work."""
        try:
            with echo(self._prompter.input, on=True):
                return await edit_text(draft)
        except ConfigError as error:
            self._say(str(error), "yellow")
            return draft

    async def _review_edit(self, call: ToolCall, draft: str, check: Check) -> Verdict | None:
        """Shows the edited call and asks whether to run it; None goes back to the call as proposed."""
        try:
            edit = Edit(read_json(draft))
        except NotJsonError as error:
            self._say(f"not used, {error}; e goes on editing", "yellow")
            return None
        edited = edit.apply(call)
        if edited == call:
            self._say("the arguments are unchanged")
            return None
        if (problem := check(edited)) is not None:
            self._say(f"not used: {problem}; e goes on editing", "yellow")
            return None
        self._say("your version:")
        options = [Option("y", "run it and learn from it"), Option("n", "back to the model's call")]
        if (await self.show(edited)).shortened:
            options.append(Option("v", "all of it"))
        while True:
            match await self._prompter.choose(options, "or why neither:"):
                case Pressed("y"):
                    return edit
                case Pressed("v"):
                    await self.show(edited, full=True)
                case Typed(text):
                    return Deny(text)
                case _:
                    return None

    def _reasons(self, seen: _Seen) -> Sequence[Shortcut]:
        if seen.problem is not None:
            return (*SHORTCUTS, Shortcut("it would fail", shorten(seen.problem)))
        if self.last_error is None:
            return SHORTCUTS
        return (*SHORTCUTS, Shortcut(f"last error: {shorten(self.last_error, 40)}", self.last_error))

    def _say(self, text: str, style: str = "dim") -> None:
        self._console.print(Text(visible(text), style=style))


@dataclass(frozen=True, slots=True)
class _Seen:
    """What showing a call told: whether it was shortened, and why it would fail."""

    shortened: bool
    problem: str | None


def _options(call: ToolCall, reasons: Sequence[Shortcut], shortened: bool) -> list[Option]:
    options = [
        Option("y", "run"),
        Option("n", "deny"),
        Option("e", "edit"),
        Option("a", "always this call"),
        Option("t", f"always {visible(call.name)}"),
    ]
    if prefixes := commands_to_allow(call):
        options.append(Option("p", f"always {visible(_listed(prefixes))}"))
    if shortened:
        options.append(Option("v", "show all"))
    return options + [Option(str(number), visible(reason.label)) for number, reason in enumerate(reasons, 1)]


def _listed(prefixes: Sequence[Prefix]) -> str:
    return ", ".join(f"`{prefix} ...`" for prefix in prefixes)


def _change_of(workspace: Workspace, call: ToolCall) -> tuple[Change | None, str | None]:
    """What the call would do to its file, and why it would fail, if it would."""
    try:
        planned = preview(workspace, call)
        if planned is None:
            return None, None
        path, before, after = planned
        return Change(diff(before, after), new_file=not workspace.resolve(path).exists()), workspace.unread(path)
    except ToolError as error:
        return None, str(error)

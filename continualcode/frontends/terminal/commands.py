"""The slash commands. Knows nothing of turns: they run between them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches

from rich.console import Console
from rich.table import Table
from rich.text import Text

from continualcode.agent import Agent
from continualcode.approval import Remember
from continualcode.errors import ConfigError, WorkspaceError
from continualcode.events import Restored
from continualcode.frontends.safe import visible
from continualcode.frontends.terminal.report import counted, metrics_table, why
from continualcode.frontends.terminal.wording import COMMANDS, INPUT_KEYS, KEYS
from continualcode.protocols import Renderer

_COMMAND = re.compile(r"/[a-z?]*( [0-9]+)?")


def is_command(text: str) -> bool:
    """A slash and one word, with a number at most, or a note; `/etc/hosts is wrong` is a request."""
    return _COMMAND.fullmatch(text) is not None or text.startswith("/note ")


class Commands:
    """Runs what `is_command` recognises, `/quit` excepted, which belongs to the frontend."""

    def __init__(self, console: Console, remember: Remember, renderer: Renderer | None) -> None:
        self._console, self._remember, self._renderer = console, remember, renderer

    async def run(self, command: str, agent: Agent) -> None:
        match command:
            case "/help" | "/?":
                self._help()
            case "/clear":
                agent.clear()
                self._say("a new conversation; what was learned stays")
            case "/metrics":
                self._metrics(agent)
            case "/why":
                self._why(agent)
            case "/undo":
                await self._restore(agent, agent.undo, "there is no change to take back")
            case "/redo":
                await self._restore(agent, agent.redo, "nothing was taken back since the last change")
            case "/forget":
                self._forget()
            case _ if command.split(" ")[0] == "/allowed":
                self._allowed(command.removeprefix("/allowed").strip())
            case _ if command.startswith("/note"):
                self._note(command.removeprefix("/note").strip(), agent)
            case _:
                close = get_close_matches(command, COMMANDS, n=1)
                hint = f", did you mean {close[0]}?" if close else ""
                self._say(f"no command {visible(command)}{hint} There are: {' '.join(COMMANDS)}", "yellow")

    def _help(self) -> None:
        for title, entries in (("commands", COMMANDS), ("when asked about a call", KEYS), ("input", INPUT_KEYS)):
            self._console.print(Text(title, style="bold"))
            self._console.print(_two_columns(entries))

    def _forget(self) -> None:
        try:
            self._remember.forget()
        except ConfigError as error:
            self._say(str(error), "yellow")
        else:
            self._say("every call is asked about again")

    def _allowed(self, number: str) -> None:
        """Lists every "always", or takes back the one with this number."""
        try:
            allowed = self._remember.allowed
            if number and 1 <= int(number) <= len(allowed):
                self._remember.revoke(allowed[int(number) - 1])
                self._say(f"asked about again: {allowed[int(number) - 1]}")
                return
        except ConfigError as error:
            self._say(str(error), "yellow")
            return
        for index, item in enumerate(allowed, 1):
            self._say(f"{index}  {item}")
        self._say("/allowed and a number takes that one back" if allowed else "every call is asked about")

    def _metrics(self, agent: Agent) -> None:
        if agent.reports:
            self._console.print(metrics_table(agent.reports))
        else:
            self._say("nothing has been learned in this session yet: deny a call with a reason")
        if agent.pending:
            self._say(f"{counted(len(agent.pending), 'correction')} waiting to go along with the next")

    def _why(self, agent: Agent) -> None:
        if not agent.reports or self._renderer is None:
            self._say("nothing has been learned in this session yet: deny a call with a reason")
            return
        for line in why(agent.reports[-1], self._renderer):
            self._console.print(line)

    def _note(self, text: str, agent: Agent) -> None:
        agent.note(text)
        if not agent.notes:
            self._say("no notes yet; /note this project uses Poetry")
        for note in agent.notes:
            self._say(f"goes along with every correction: {note}")

    async def _restore(self, agent: Agent, turn: Callable[[], Awaitable[Restored | None]], nothing: str) -> None:
        conversation = agent.conversation
        try:
            change = await turn()
        except WorkspaceError as error:
            self._say(str(error), "yellow")
            return
        if change is None:
            self._say(nothing)
            return
        talk = "stays: that was not in it" if agent.conversation is conversation else "goes with it"
        self._say(f"{change.call}: {change.said}\nthe conversation {talk}; what was learned stays")
        if change.left_out:
            self._say(f"not covered by undo: {', '.join(change.left_out[:8])}{' ...' if change.left_out[8:] else ''}")

    def _say(self, text: str, style: str = "dim") -> None:
        self._console.print(Text(visible(text), style=style))


def _two_columns(entries: Mapping[str, str]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, meaning in entries.items():
        table.add_row(Text(f"  {name}"), Text(meaning))
    return table

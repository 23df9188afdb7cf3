"""Terminal: the frontend a person sits at. Reads requests, runs turns, and is the agent's last gate and its critic."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from functools import cached_property
from pathlib import Path

from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.output import Output
from rich.console import Console
from rich.text import Text

from continualcode.agent import Agent
from continualcode.approval import Remember
from continualcode.errors import BackendUnavailableError, ConfigError, ContinualCodeError
from continualcode.events import Event, Reviewed
from continualcode.frontends.safe import shorten, visible
from continualcode.frontends.terminal.commands import Commands, is_command
from continualcode.frontends.terminal.decide import Reviewer
from continualcode.frontends.terminal.keyboard import discard_typed, echo, on_interrupt
from continualcode.frontends.terminal.narrate import Narrator
from continualcode.frontends.terminal.progress import Progress
from continualcode.frontends.terminal.prompt import Option, Pressed, Prompter, Typed
from continualcode.frontends.terminal.wording import NOT_A_TERMINAL
from continualcode.protocols import Renderer
from continualcode.tools.workspace import Workspace
from continualcode.types import Approve, Deny, Edit, ToolCall, ToolResult, Turn, Verdict

_FAILURE_IS_NEWS = frozenset({"bash"})
"""Tools whose failing is mostly what was asked about (a red test), not a mistake in the call."""

_DECIDED = {Approve: "approved", Edit: "edited", Deny: "denied"}


class Terminal:
    """A Frontend for one person at one terminal.

    Args:
        workspace: where the calls act; for diffs.
        remember: told of every "always"; put it among the gates before this one.
        renderer: shows the tokens of the last lesson in /metrics.
        greeting: lines to begin with.
        prompt: a first request, run at once.
        history: file of earlier requests; by default in the user's state folder.
        save: called at the end; returns where it saved, or None when there was nothing to.
        console, input, output: by default the terminal.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        remember: Remember,
        renderer: Renderer | None = None,
        greeting: Sequence[str] = (),
        prompt: str | None = None,
        history: Path | None = None,
        save: Callable[[], Awaitable[str | None]] | None = None,
        console: Console | None = None,
        input: Input | None = None,
        output: Output | None = None,
    ) -> None:
        self._console = console or Console(highlight=False)
        self._greeting, self._first, self._save = tuple(greeting), prompt, save
        self._history, self._input, self._output = history or _default_history(), input, output
        self._commands = Commands(self._console, remember, renderer)
        self._progress = Progress(self._console)
        self._narrator = Narrator(self._console, self._progress)
        self._workspace, self._remember = workspace, remember
        self._agent: Agent | None = None
        self._turn: asyncio.Task[None] | None = None
        self._approved: Turn | None = None

    async def run(self, agent: Agent) -> None:
        """Reads and serves requests until the user leaves. Raises ConfigError when there is no terminal."""
        if self._input is None and not sys.stdin.isatty():
            raise ConfigError(NOT_A_TERMINAL)
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        self._agent = agent
        with on_interrupt(self._interrupt):
            for line in self._greeting:
                self._say(line)
            if self._first is not None:
                self._console.print(Text(f"> {visible(self._first)}", style="bold"))
                await self._work(agent, self._first)
            while (request := await self._next_request()) is not None:
                if is_command(request):
                    await self._commands.run(request, agent)
                elif request:
                    await self._work(agent, request)
        await self._leave(agent)

    async def review(self, turn: Turn, call: ToolCall) -> Verdict:
        """Asks the user about this call. When the user wants to stop, the run is cancelled and nothing runs."""
        self._progress.stop()
        verdict = await self._reviewer.decide(call, self._check)
        if verdict is None:
            self._interrupt()
            await asyncio.sleep(0)
            return Deny("interrupted by the user", teach=False)
        self._approved = None if isinstance(verdict, Deny) else turn
        return verdict

    async def critique(self, turn: Turn, result: ToolResult) -> str | None:
        """After a call the user approved failed of its own fault: whether its error, or a better word, is to be learned.

        Enter goes on without. Calls that other gates approved, and failing commands, are not asked about.
        """
        self._reviewer.last_error = None if result.ok else shorten(result.output)
        call = turn.reply.call
        if result.ok or turn is not self._approved or call is None or call.name in _FAILURE_IS_NEWS:
            return None
        self._progress.stop()
        options = [Option("enter", "goes on"), Option("c", "teaches with this error")]
        match await self._prompter.choose(options, "or a better correction:"):
            case Pressed("c"):
                return self._reviewer.last_error
            case Typed(text):
                return text
            case Pressed():
                return None
        self._interrupt()
        await asyncio.sleep(0)
        return None

    @cached_property
    def _prompter(self) -> Prompter:
        """Made when it is first needed, so that a Terminal can be built where there is none."""
        return Prompter(self._open_history(), self._input, self._output)

    @cached_property
    def _reviewer(self) -> Reviewer:
        return Reviewer(self._console, self._prompter, self._workspace, self._remember)

    async def _next_request(self) -> str | None:
        """The next line that is not empty; None when the user leaves."""
        while True:
            try:
                request = (await self._prompter.request()).strip()
            except KeyboardInterrupt:
                self._say("Ctrl-D or /quit leaves")
                continue
            except EOFError:
                return None
            if request == "/quit":
                return None
            if request:
                return request

    async def _work(self, agent: Agent, request: str) -> None:
        """Runs one request to its end, whatever that is; afterwards the conversation can go on."""
        self._reviewer.last_error = None
        self._turn = asyncio.create_task(self._narrate(agent, request))
        try:
            with echo(self._prompter.input, on=False):
                await asyncio.wait({self._turn})
                self._progress.stop()
                discard_typed(self._prompter.input)
            if self._turn.cancelled():
                self._say(
                    "interrupted"
                    + ("; the training step under way is still completed" if self._narrator.learning else ""),
                    "yellow",
                )
            else:
                self._turn.result()
        except BackendUnavailableError as error:
            self._say(f"the model does not answer: {error}. The conversation is kept; ask again", "red")
        except ContinualCodeError as error:
            self._say(f"{type(error).__name__}: {error}", "red")
        finally:
            self._turn.cancel()
            self._turn = self._approved = None

    async def _narrate(self, agent: Agent, request: str) -> None:
        self._progress.show("getting ready")
        async with aclosing(agent.run(request)) as events:
            async for event in events:
                await self._tell(agent, event)

    async def _tell(self, agent: Agent, event: Event) -> None:
        """What the user did not see while deciding, a call that another gate decided on, is shown as well."""
        if isinstance(event, Reviewed) and event.gate != type(self).__name__:
            self._progress.stop()
            await self._reviewer.show(event.call)
            self._say(f"{_DECIDED[type(event.verdict)]} by {event.gate or 'nobody'}")
        self._narrator.tell(agent, event)

    async def _leave(self, agent: Agent) -> None:
        """Lets a step under way finish, and saves."""
        self._progress.show("saving")
        try:
            await agent.settle()
            saved = await self._save() if self._save is not None else None
        except ContinualCodeError as error:
            self._say(f"not saved: {error}", "red")
            return
        finally:
            self._progress.stop()
        self._narrator.tell_reports(agent)
        if saved is not None:
            self._say(f"saved to {saved}")

    def _check(self, call: ToolCall) -> str | None:
        return self._agent.tools.check(call) if self._agent is not None else None

    def _interrupt(self) -> None:
        """Ends the turn, if there is one. Also called from a signal handler, hence the detour through the loop."""
        turn = self._turn
        if turn is not None:
            turn.get_loop().call_soon_threadsafe(turn.cancel)

    def _open_history(self) -> History:
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._history.touch(mode=0o600)
        except OSError as error:
            self._say(f"requests are not remembered: {self._history}: {error.strerror}", "yellow")
            return InMemoryHistory()
        return FileHistory(str(self._history))

    def _say(self, text: str, style: str = "dim") -> None:
        self._console.print(Text(visible(text), style=style))


def _default_history() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state, "continualcode", "history")

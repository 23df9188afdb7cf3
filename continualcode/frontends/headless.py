"""Headless: JSON lines on standard input and output, so that any program can drive the agent.

One JSON object a line, each with a `type`. Nothing else is written to stdout.

In:  {"type": "ask", "text": ...}                      begins a turn; one runs at a time
     {"type": "approve", "id": n}                      runs the call of review n; "teach_on_failure": true makes a
                                                       failure's message the lesson
     {"type": "deny", "id": n, "reason": ...}          does not; the reason is learned, unless "teach": false
     {"type": "edit", "id": n, "arguments": {...}}     runs it with these; optional "name" and "reason"
     {"type": "interrupt"}                             ends the turn
     {"type": "undo"}, {"type": "redo"}                between turns: takes back the last call that changed files, and
                                                       the conversation since; takes the last undo back
     {"type": "note", "text": ...}                     goes along with every correction to come
     {"type": "clear"}                                 between turns: a new conversation
     {"type": "quit"}                                  denies what waits (nothing is learned), ends the turn, saves

Out: {"type": "ready", "protocol": 1, "tools": [...]}  once
     {"type": "asked"}, "thinking", "proposed", "malformed", "tried", "reviewed", "tool_returned", "learning",
     "learned", "learn_failed", "stopped"              the agent's events with their fields; of a failed step `kept`
                                                       is how many corrections wait to go along with the next
     {"type": "review", "id": n, "call": {...}, "diff": ..., "problem": ...}
                                                       waits for approve, deny or edit with this id; an answer with
                                                       another id decides nothing. `diff` is unified, null where no file
                                                       would be written; `problem` says why the call would fail
     {"type": "interrupted"}, {"type": "failed", "error": class, "message": ...}
                                                       with "stopped", the three ways in which a turn ends
     {"type": "undone", "what": ..., "call": ..., "left_out": [...], "messages": n}, "redone", {"type": "cleared"}
                                                       `what` was done to files, null when there was nothing to do;
                                                       `left_out` is not covered; n messages are in the conversation
     {"type": "noted", "notes": [...]}                 all there are
     {"type": "error", "message": ...}                 this line was not understood, or cannot be done now
     {"type": "quit", "saved": path or null}           the last line

The end of input is a quit that lets the turn go on for as long as it needs no answer.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import aclosing, redirect_stdout, suppress
from dataclasses import dataclass
from difflib import unified_diff
from itertools import count
from typing import IO, assert_never

from continualcode.agent import Agent
from continualcode.errors import ContinualCodeError, ToolError, WorkspaceError
from continualcode.events import Reviewed
from continualcode.frontends.safe import shorten
from continualcode.frontends.streams import LineWriter, read_lines
from continualcode.frontends.wire import (
    AnswerCommand,
    ApproveCommand,
    AskCommand,
    BadCommandError,
    ClearCommand,
    DenyCommand,
    EditCommand,
    InterruptCommand,
    NoteCommand,
    QuitCommand,
    UndoCommand,
    call_message,
    event_message,
    read_command,
    verdict_of,
    write_line,
)
from continualcode.tools.files import preview
from continualcode.tools.workspace import Workspace
from continualcode.types import Deny, JsonObject, ToolCall, ToolResult, Turn, Verdict

_NOBODY = Deny("nobody is left to approve it", teach=False)


class Headless:
    """A Frontend for programs; the protocol is the module's docstring.

    Args:
        workspace: where the calls act; for diffs.
        stdin, stdout: by default the process's own; stdin needs a file descriptor.
        prompt: a first request, run at once.
        save: called at the end; returns where it saved, or None when there was nothing to.
    """

    def __init__(
        self,
        *,
        workspace: Workspace,
        stdin: IO[bytes] | None = None,
        stdout: IO[str] | None = None,
        prompt: str | None = None,
        save: Callable[[], Awaitable[str | None]] | None = None,
    ) -> None:
        self._workspace, self._prompt, self._save = workspace, prompt, save
        self._stdin, self._stdout = stdin or sys.stdin.buffer, stdout or sys.stdout
        self._ids = count(1)
        self._inbox: asyncio.Queue[bytes | asyncio.Task[None] | None] = asyncio.Queue()
        self._waiting: _Waiting | None = None
        self._turn: asyncio.Task[None] | None = None
        self._teach_on_failure: Turn | None = None
        self._writer: LineWriter | None = None
        self._ended = False

    async def run(self, agent: Agent) -> None:
        """Serves commands until quit or the end of input."""
        self._writer = LineWriter(self._stdout, self._reader_gone(asyncio.get_running_loop()))
        try:
            with redirect_stdout(sys.stderr):  # what a plug-in prints is not for the program at the other end
                self._send({"type": "ready", "protocol": 1, "tools": [spec.name for spec in agent.tools.specs]})
                read_lines(self._stdin, self._inbox.put_nowait)
                if self._prompt is not None:
                    self._begin(agent, self._prompt)
                try:
                    await self._serve(agent)
                finally:
                    await self._end_turn()
                await self._leave(agent)
        finally:
            await self._writer.finish()

    async def review(self, turn: Turn, call: ToolCall) -> Verdict:
        """Asks the program at the other end, under a new id, and waits for the answer that names it."""
        diff, problem = await asyncio.to_thread(_diff_of, self._workspace, call)
        if self._ended:
            return _NOBODY
        self._waiting = waiting = _Waiting(next(self._ids), asyncio.get_running_loop().create_future())
        self._send({"type": "review", "id": waiting.id, "call": call_message(call), "diff": diff, "problem": problem})
        try:
            answer = await waiting.answer
        finally:
            self._waiting = None
        if answer is None:
            return _NOBODY
        if isinstance(answer, ApproveCommand) and answer.teach_on_failure:
            self._teach_on_failure = turn
        return verdict_of(answer)

    async def critique(self, turn: Turn, result: ToolResult) -> str | None:
        """The failure's own message, where the approval asked for it to be learned."""
        return shorten(result.output) if turn is self._teach_on_failure and not result.ok else None

    async def _serve(self, agent: Agent) -> None:
        while True:
            match await self._inbox.get():
                case None:
                    await self._no_more_input()
                    return
                case asyncio.Task() as turn:
                    if not turn.cancelled():
                        turn.result()
                case bytes() as line if line.strip():
                    if not await self._obey(agent, line):
                        return

    async def _obey(self, agent: Agent, line: bytes) -> bool:
        """False when that was the last command."""
        try:
            command = read_command(line)
        except BadCommandError as error:
            self._error(str(error))
            return True
        match command:
            case QuitCommand():
                return False
            case ApproveCommand() | DenyCommand() | EditCommand():
                self._answer(command)
            case InterruptCommand():
                if not self._interrupt():
                    self._error("there is nothing to interrupt")
            case AskCommand() | UndoCommand() | ClearCommand() if self._running:
                self._error(f"a turn is running; {command.type} when it has ended, or interrupt it")
            case AskCommand():
                self._begin(agent, command.text)
            case UndoCommand():
                await self._restore(agent, command)
            case NoteCommand(text=text):
                agent.note(text)
                self._send({"type": "noted", "notes": agent.notes})
            case ClearCommand():
                agent.clear()
                self._send({"type": "cleared"})
            case _:
                assert_never(command)
        return True

    @property
    def _running(self) -> bool:
        return self._turn is not None and not self._turn.done()

    def _interrupt(self) -> bool:
        return self._turn is not None and self._turn.cancel()

    def _answer(self, command: AnswerCommand) -> None:
        waiting = self._waiting
        if waiting is None or waiting.answer.done():
            self._error(f"no review is waiting; {command.id} decides nothing")
        elif command.id != waiting.id:
            self._error(f"review {waiting.id} is waiting; {command.id} decides nothing")
        else:
            waiting.answer.set_result(command)

    def _begin(self, agent: Agent, text: str) -> None:
        self._turn = asyncio.create_task(self._work(agent, text))
        self._turn.add_done_callback(self._inbox.put_nowait)

    async def _work(self, agent: Agent, text: str) -> None:
        try:
            async with aclosing(agent.run(text)) as events:
                async for event in events:
                    self._send(event_message(event, kept=len(agent.pending)))
                    if isinstance(event, Reviewed) and event.verdict is _NOBODY:
                        self._send({"type": "interrupted"})
                        return
        except asyncio.CancelledError:
            self._send({"type": "interrupted"})
            raise
        except ContinualCodeError as error:
            self._send({"type": "failed", "error": type(error).__name__, "message": str(error)})

    async def _restore(self, agent: Agent, command: UndoCommand) -> None:
        try:
            change = await (agent.undo() if command.type == "undo" else agent.redo())
        except WorkspaceError as error:
            self._error(str(error))
            return
        nothing: JsonObject = {"type": f"{command.type.removesuffix('o')}one", "what": None}
        messages = len(agent.conversation.messages)
        self._send(event_message(change) if change is not None else {**nothing, "messages": messages})

    async def _no_more_input(self) -> None:
        """Lets the turn go on until it needs an answer."""
        self._ended = True
        self._deny_waiting()
        await self._turn_over()

    async def _end_turn(self) -> None:
        self._ended = True
        if self._deny_waiting() or self._interrupt():
            await self._turn_over()

    async def _turn_over(self) -> None:
        """Waits for the turn; raises what it failed of, which is a defect of some part, told by no event."""
        if self._turn is not None:
            await asyncio.wait({self._turn})
            if not self._turn.cancelled():
                self._turn.result()

    def _deny_waiting(self) -> bool:
        if self._waiting is None or self._waiting.answer.done():
            return False
        self._waiting.answer.set_result(None)
        return True

    async def _leave(self, agent: Agent) -> None:
        saved: str | None = None
        try:
            await agent.settle()
            saved = await self._save() if self._save is not None else None
        except ContinualCodeError as error:
            self._error(f"not saved: {error}")
        self._send({"type": "quit", "saved": saved})

    def _reader_gone(self, loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
        """What the writer's thread calls when nobody reads what is written: the same as the end of input."""

        def tell() -> None:
            with suppress(RuntimeError):  # the loop is closed; all is over already
                loop.call_soon_threadsafe(self._inbox.put_nowait, None)

        return tell

    def _error(self, message: str) -> None:
        self._send({"type": "error", "message": message})

    def _send(self, message: JsonObject) -> None:
        if self._writer is not None:
            self._writer.put(write_line(message))


@dataclass(frozen=True, slots=True)
class _Waiting:
    id: int
    answer: asyncio.Future[AnswerCommand | None]
    """None: nobody will answer."""


def _diff_of(workspace: Workspace, call: ToolCall) -> tuple[str | None, str | None]:
    try:
        planned = preview(workspace, call)
    except ToolError as error:
        return None, str(error)
    if planned is None:
        return None, None
    path, before, after = planned
    lines = unified_diff(before.split("\n"), after.split("\n"), f"a/{path}", f"b/{path}", lineterm="")
    return "\n".join(lines), workspace.unread(path)

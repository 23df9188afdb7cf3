"""The loop: propose, review, run or learn, again. Knows nothing of models, terminals or how learning is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Literal, assert_never

from continualcode.decision import Decision, announce, criticise, decide, problem_of, trials
from continualcode.errors import BackendUnavailableError, ContinualCodeError, WorkspaceError
from continualcode.events import (
    Asked,
    Event,
    Learned,
    LearnFailed,
    Learning,
    Malformed,
    Proposed,
    Restored,
    Reviewed,
    Stopped,
    Thinking,
    ToolReturned,
    Tried,
)
from continualcode.lessons import Lessons
from continualcode.protocols import ApprovalGate, Critic, EarlyLearner, Learner, Proposer, Rehearser
from continualcode.tools import READ_ONLY, ToolRegistry
from continualcode.tools.snapshots import Change, Snapshots
from continualcode.types import (
    Approve,
    Conversation,
    Deny,
    Edit,
    Lesson,
    Message,
    ToolCall,
    ToolResult,
    TrainReport,
    Turn,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """When a run gives up: proposals in one run, and replies in a row that are no single valid call."""

    turns: int = 50
    malformed: int = 3


class Agent:
    """Proposes one call at a time, asks its gates, runs what they approve and learns from what they deny.

        async for event in agent.run("fix the test"):
            print(event)

    Gates are asked in order until one has a verdict; when none has, the call is denied and nothing is learned.
    A denial is learned at once. When a retry is then approved (or edited) and works, the denied turns before it are
    learned again together with it: what was right is distilled into the context of what was wrong.
    The conversation changes only in whole steps, so closing the iterator or cancelling it at any point leaves a
    conversation that can go on; lessons that could not be learned wait in `pending` for the next denial.
    With `snapshots`, one is taken before every call that may change files, and `undo` takes such a call back.
    """

    def __init__(
        self,
        policy: Proposer,
        tools: ToolRegistry,
        gates: Sequence[ApprovalGate] = (),
        *,
        learner: Learner | None = None,
        critics: Sequence[Critic] = (),
        observers: Sequence[Callable[[Event], None]] = (),
        snapshots: Snapshots | None = None,
        system: str = "",
        limits: Limits = Limits(),
    ) -> None:
        self.policy, self.tools, self.gates = policy, tools, tuple(gates)
        self.learner, self.critics, self.observers, self.limits = learner, tuple(critics), tuple(observers), limits
        self._opening = (Message("system", system),) if system else ()
        self.conversation = Conversation(self._opening, tools.specs)
        self.snapshots, self._conversations = snapshots, dict[int, Conversation]()
        self._lessons = Lessons(wanted=learner is not None)
        self.notes: tuple[str, ...] = ()
        """What the user said by the way; shown to the teacher with every correction from then on."""
        self.reports: list[TrainReport] = []
        self._step: asyncio.Task[TrainReport | None] | None = None
        self._ahead: asyncio.Task[Turn] | None = None
        """A proposal asked for while what was learned is still being scored."""

    @property
    def pending(self) -> tuple[Lesson, ...]:
        """Lessons that wait to be learned."""
        return self._lessons.pending

    async def run(self, text: str) -> AsyncGenerator[Event, None]:
        """Works on one request and narrates it. Raises BackendError when no proposal can be had."""
        try:
            async with aclosing(self._run(text)) as events:
                async for event in events:
                    self._narrate(event)
                    yield event
        finally:
            if self._ahead is not None:
                self._ahead.cancel()
                self._ahead = None

    async def _run(self, text: str) -> AsyncGenerator[Event, None]:
        await self.settle()
        self._lessons.close()
        self._say(Message("user", text))
        yield Asked(text)
        malformed = 0
        for _ in range(self.limits.turns):
            yield Thinking()
            turn = await self._proposal()
            problem = problem_of(turn.reply, self.tools.check)
            if problem is not None:
                malformed += 1
                self._say(Message("assistant", turn.reply.raw), Message("user", problem))
                yield Malformed(turn.reply, problem)
                if malformed >= self.limits.malformed:
                    yield Stopped("malformed", problem)
                    return
                continue
            malformed = 0
            yield Proposed(turn)
            if (call := turn.reply.call) is None:
                self._say(turn.reply.message)
                yield Stopped("answered", turn.reply.text)
                return
            async for event in self._act(turn, call):
                yield event
        yield Stopped("turn_limit", f"{self.limits.turns} proposals without an answer")

    def tell(self, text: str) -> None:
        """Tells the model something without asking for anything; it is read with the next request."""
        self._say(Message("user", text))

    def note(self, text: str) -> None:
        """Keeps a remark ("this project uses Poetry") for the corrections to come, whose teacher is shown it. The model
        itself is not told, so that it has something to learn."""
        if text := text.strip():
            self.notes += (text,)

    def clear(self) -> None:
        """Begins a new conversation, without notes. What was learned stays, and so do lessons still pending."""
        self.conversation, self.notes = Conversation(self._opening, self.tools.specs), ()
        self._lessons.close()
        self._conversations.clear()

    async def undo(self) -> Restored | None:
        """Takes back the newest call that changed files: what it changed, and the conversation from it on.

        None when there is none. A call of an earlier session, or from before `clear`, leaves the conversation as it is.
        What was learned stays. Raises WorkspaceError, having changed nothing, when the same files have changed since.
        """
        return await self._restore("undone", self.snapshots.undo) if self.snapshots is not None else None

    async def redo(self) -> Restored | None:
        """Takes the last `undo` back, in the same way; None when there is none or another call has changed files."""
        return await self._restore("redone", self.snapshots.redo) if self.snapshots is not None else None

    async def _restore(self, what: Literal["undone", "redone"], turn: Callable[[], Change | None]) -> Restored | None:
        if (change := await asyncio.to_thread(turn)) is None:
            return None
        if (then := self._conversations.get(change.id)) is not None:
            self._conversations[change.id], self.conversation = self.conversation, then
        count = len(self.conversation.messages)
        self._narrate(restored := Restored(what, change.call, change.said, count, change.left_out, change.interrupted))
        return restored

    async def _act(self, turn: Turn, call: ToolCall) -> AsyncIterator[Event]:
        async for step in decide(turn, call, self.gates, self.tools.check):
            if isinstance(step, Tried):
                yield step
                continue
            async for event in self._carry_out(turn, step):
                yield event

    async def _carry_out(self, turn: Turn, decision: Decision) -> AsyncIterator[Event]:
        call, verdict = decision.call, decision.verdict
        kept = len(self.pending)
        match verdict:
            case Deny():
                self._say(turn.reply.message, Message("tool", f"denied: {verdict.reason}", tool=call.name))
                if verdict.teach and call == turn.reply.call:
                    self._lessons.keep_open(Lesson(turn, verdict.reason, notes=self.notes), decision.index)
                yield Reviewed(turn, call, verdict, decision.gate)
            case Approve() | Edit():
                if isinstance(verdict, Edit):
                    self._lessons.keep(Lesson(turn, verdict.reason, demonstration=call, notes=self.notes))
                    self._lessons.resolve(decision.index, demonstration=call)
                yield Reviewed(turn, call, verdict, decision.gate)
                result = await self._run_tool(turn, call)
                yield ToolReturned(call, result)
                if isinstance(verdict, Approve):
                    reason = await criticise(self.critics, turn, result)
                    for tried in trials(self.critics):
                        yield tried
                    if reason is not None:
                        self._lessons.keep_open(Lesson(turn, reason, notes=self.notes), 0)
                        self._say(Message("user", reason))
                    elif result.ok:
                        self._approved(turn, decision.index)
            case _:
                assert_never(verdict)
        if self.learner is not None and len(self.pending) > kept:
            async for event in self._learn(self.learner):
                yield event

    async def _run_tool(self, turn: Turn, call: ToolCall) -> ToolResult:
        """Runs an approved call. The conversation records it in the same breath, also when it is interrupted."""
        ran, before = replace(turn.reply.message, calls=(call,)), self.conversation
        snapshots = self.snapshots if call.name not in READ_ONLY else None
        try:
            await announce(self.critics, call)
            if snapshots is not None:
                self._conversations[await asyncio.to_thread(snapshots.begin, call)] = before
            result = await self.tools.call(call)
        except WorkspaceError as error:  # of a look at the files before it: a tool's own is a result
            result = ToolResult(str(error), ok=False)
        except asyncio.CancelledError:
            self._say(ran, Message("tool", "interrupted by the user; it may have been half done", tool=call.name))
            raise
        self._say(ran, Message("tool", result.output, tool=call.name))
        if snapshots is not None:
            await asyncio.to_thread(snapshots.finish)
        return result

    def _approved(self, turn: Turn, gate: int) -> None:
        """A call that was right as it was proposed, and worked."""
        if isinstance(self.learner, Rehearser):
            self.learner.rehearse(turn)
        self._lessons.resolve(gate, resolution=turn)

    async def _proposal(self) -> Turn:
        """The one asked for ahead, unless the conversation has changed since."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and (turn := await ahead).context == self.conversation:
            return turn
        return await self.policy.propose(self.conversation)

    async def _learn(self, learner: Learner) -> AsyncIterator[Event]:
        yield Learning(self.pending)
        moved = asyncio.get_running_loop().create_future()
        self._step = asyncio.create_task(self._train(learner, moved))
        self._step.add_done_callback(_retrieve)
        await asyncio.wait({self._step, moved}, return_when=asyncio.FIRST_COMPLETED)
        if moved.done():
            self._ahead = asyncio.create_task(self.policy.propose(self.conversation))
            self._ahead.add_done_callback(_retrieve)
        try:
            report = await asyncio.shield(self._step)
        except BackendUnavailableError as error:
            yield LearnFailed(self.pending, str(error))
            return
        except ContinualCodeError as error:  # these lessons cannot be learned here; they must not block later ones
            refused, self._lessons.pending = self.pending, ()
            yield LearnFailed(refused, str(error))
            return
        if report is not None:
            yield Learned(report)

    async def _train(self, learner: Learner, moved: asyncio.Future[None]) -> TrainReport | None:
        """Goes on when the run is cancelled, so that a step is done whole or not at all. `moved`: the weights are final."""
        lessons = self.pending
        if isinstance(learner, EarlyLearner):
            learning = await learner.begin(lessons)
            moved.set_result(None)
            report = await learning
        else:
            report = await learner.learn(lessons)
        self._lessons.pending = self.pending[len(lessons) :]
        if report is not None:
            self.reports.append(report)
        return report

    async def settle(self) -> None:
        """Waits for a training step that a cancelled run left going."""
        if self._step is not None and not self._step.done():
            await asyncio.wait({self._step})

    def _narrate(self, event: Event) -> None:
        for observer in self.observers:
            observer(event)

    def _say(self, *messages: Message) -> None:
        self.conversation = self.conversation.add(*messages)


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Its failure is told by LearnFailed or raised by the run, unless that was cancelled meanwhile; a step's then shows in
    `pending`."""
    if not task.cancelled():
        task.exception()

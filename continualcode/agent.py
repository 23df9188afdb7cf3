"""The loop: propose, review, run or learn, again. Knows nothing of models, terminals or how learning is done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import assert_never

from continualcode.errors import BackendUnavailableError, ContinualCodeError, WorkspaceError
from continualcode.events import (
    Asked,
    Event,
    Learned,
    LearnFailed,
    Learning,
    Malformed,
    Proposed,
    Reviewed,
    Stopped,
    Thinking,
    ToolReturned,
)
from continualcode.protocols import ApprovalGate, Critic, Learner, Proposer, Rehearser
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
    Verdict,
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
        self.pending: tuple[Lesson, ...] = ()
        self.notes: tuple[str, ...] = ()
        """What the user said by the way; shown to the teacher with every correction from then on."""
        self._open: list[_Open] = []
        self.reports: list[TrainReport] = []
        self._step: asyncio.Task[TrainReport | None] | None = None

    async def run(self, text: str) -> AsyncGenerator[Event, None]:
        """Works on one request and narrates it. Raises BackendError when no proposal can be had."""
        async with aclosing(self._run(text)) as events:
            async for event in events:
                for observer in self.observers:
                    observer(event)
                yield event

    async def _run(self, text: str) -> AsyncGenerator[Event, None]:
        await self.settle()
        self._open.clear()
        self._say(Message("user", text))
        yield Asked(text)
        malformed = 0
        for _ in range(self.limits.turns):
            yield Thinking()
            turn = await self.policy.propose(self.conversation)
            problem = self._problem_of(turn)
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
        self._open.clear()
        self._conversations.clear()

    async def undo(self) -> Change | None:
        """Takes back the newest call that changed files: what it changed, and the conversation from it on.

        None when there is none. A call of an earlier session, or from before `clear`, leaves the conversation as it is.
        What was learned stays. Raises WorkspaceError, having changed nothing, when the same files have changed since.
        """
        return await self._restore(self.snapshots.undo) if self.snapshots is not None else None

    async def redo(self) -> Change | None:
        """Takes the last `undo` back, in the same way; None when there is none or another call has changed files."""
        return await self._restore(self.snapshots.redo) if self.snapshots is not None else None

    async def _restore(self, turn: Callable[[], Change | None]) -> Change | None:
        change = await asyncio.to_thread(turn)
        if change is not None and (then := self._conversations.get(change.id)) is not None:
            self._conversations[change.id], self.conversation = self.conversation, then
        return change

    async def _act(self, turn: Turn, call: ToolCall) -> AsyncIterator[Event]:
        decision = await self._review(turn, call, self.gates) or _Decision(
            call, Deny("no gate approved it", teach=False), len(self.gates)
        )
        call, verdict = decision.call, decision.verdict
        kept = len(self.pending)
        match verdict:
            case Deny():
                self._say(turn.reply.message, Message("tool", f"denied: {verdict.reason}", tool=call.name))
                if verdict.teach and call == turn.reply.call:
                    self._keep_open(Lesson(turn, verdict.reason, notes=self.notes), decision.index)
                yield Reviewed(turn, call, verdict, decision.gate)
            case Approve() | Edit():
                if isinstance(verdict, Edit):
                    self._keep(Lesson(turn, verdict.reason, demonstration=call, notes=self.notes))
                    self._resolve(decision.index, demonstration=call)
                yield Reviewed(turn, call, verdict, decision.gate)
                result = await self._run_tool(turn, call)
                yield ToolReturned(call, result)
                if isinstance(verdict, Approve):
                    if (reason := await self._criticism(turn, result)) is not None:
                        self._keep_open(Lesson(turn, reason, notes=self.notes), 0)
                    elif result.ok:
                        self._approved(turn, decision.index)
            case _:
                assert_never(verdict)
        if self.learner is not None and len(self.pending) > kept:
            async for event in self._learn(self.learner):
                yield event

    async def _review(self, turn: Turn, call: ToolCall, gates: Sequence[ApprovalGate]) -> _Decision | None:
        """The first verdict. The gate that edits vouches for its edit; those before it review the edited call anew."""
        for index, gate in enumerate(gates):
            name = type(gate).__name__
            try:
                verdict = await gate.review(turn, call)
            except Exception as error:  # a gate that fails denies, whatever it failed of, and never teaches
                denied = Deny(f"{name} failed: {type(error).__name__}: {error}", teach=False)
                return _Decision(call, denied, index, name)
            if isinstance(verdict, Edit):
                edited = verdict.apply(call)
                if (problem := self.tools.check(edited)) is not None:
                    return _Decision(edited, Deny(f"the edited call is not valid: {problem}", teach=False), index, name)
                again = await self._review(turn, edited, gates[:index])
                if again is None or isinstance(again.verdict, Approve):
                    return _Decision(edited, verdict, index, name)
                return again
            if verdict is not None:
                return _Decision(call, verdict, index, name)
        return None

    async def _run_tool(self, turn: Turn, call: ToolCall) -> ToolResult:
        """Runs an approved call. The conversation records it in the same breath, also when it is interrupted."""
        ran, before = replace(turn.reply.message, calls=(call,)), self.conversation
        snapshots = self.snapshots if call.name not in READ_ONLY else None
        try:
            if snapshots is not None:
                self._conversations[await asyncio.to_thread(snapshots.begin, call)] = before
            result = await self.tools.call(call)
        except WorkspaceError as error:  # the snapshot's: a tool's own is a result
            result = ToolResult(str(error), ok=False)
        except asyncio.CancelledError:
            self._say(ran, Message("tool", "interrupted by the user; it may have been half done", tool=call.name))
            raise
        self._say(ran, Message("tool", result.output, tool=call.name))
        if snapshots is not None:
            await asyncio.to_thread(snapshots.finish)
        return result

    async def _criticism(self, turn: Turn, result: ToolResult) -> str | None:
        for critic in self.critics:
            if (reason := await critic.critique(turn, result)) is not None:
                return reason
        return None

    def _keep(self, lesson: Lesson) -> None:
        """Before anything else can happen, so that a correction outlives a run that is closed or cancelled."""
        if self.learner is not None:
            self.pending += (lesson,)

    def _keep_open(self, lesson: Lesson, gate: int) -> None:
        """A lesson that a later approval may complete."""
        self._keep(lesson)
        self._open.append(_Open(lesson, gate))

    def _approved(self, turn: Turn, gate: int) -> None:
        """A call that was right as it was proposed, and worked."""
        if isinstance(self.learner, Rehearser):
            self.learner.rehearse(turn)
        self._resolve(gate, resolution=turn)

    def _resolve(self, gate: int, *, resolution: Turn | None = None, demonstration: ToolCall | None = None) -> None:
        """Completes the open lessons whose gate has seen, and let pass, what was right. One not learned yet is replaced."""
        done = [each for each in self._open if each.gate <= gate]
        self._open = [each for each in self._open if each.gate > gate]
        for lesson in (each.lesson for each in done):
            self.pending = tuple(waiting for waiting in self.pending if waiting is not lesson)
            self._keep(replace(lesson, resolution=resolution, demonstration=demonstration))

    async def _learn(self, learner: Learner) -> AsyncIterator[Event]:
        yield Learning(self.pending)
        self._step = asyncio.create_task(self._train(learner))
        self._step.add_done_callback(_retrieve)
        try:
            report = await asyncio.shield(self._step)
        except BackendUnavailableError as error:
            yield LearnFailed(self.pending, str(error))
            return
        except ContinualCodeError as error:  # these lessons cannot be learned here; they must not block later ones
            refused, self.pending = self.pending, ()
            yield LearnFailed(refused, str(error))
            return
        if report is not None:
            yield Learned(report)

    async def _train(self, learner: Learner) -> TrainReport | None:
        """Goes on when the run is cancelled, so that a step is done whole or not at all."""
        lessons = self.pending
        report = await learner.learn(lessons)
        self.pending = self.pending[len(lessons) :]
        if report is not None:
            self.reports.append(report)
        return report

    async def settle(self) -> None:
        """Waits for a training step that a cancelled run left going."""
        if self._step is not None and not self._step.done():
            await asyncio.wait({self._step})

    def _problem_of(self, turn: Turn) -> str | None:
        """What keeps this reply from being one valid call or an answer, said to the model."""
        reply = turn.reply
        if reply.problem is not None:
            return reply.problem
        if len(reply.calls) > 1:
            return f"You made {len(reply.calls)} calls. Make exactly one call in a reply."
        return self.tools.check(reply.calls[0]) if reply.calls else None

    def _say(self, *messages: Message) -> None:
        self.conversation = self.conversation.add(*messages)


@dataclass(frozen=True, slots=True)
class _Decision:
    call: ToolCall
    verdict: Verdict
    index: int
    """of the gate; as many as there are gates when none was left to ask"""
    gate: str = ""


@dataclass(frozen=True, slots=True)
class _Open:
    """A lesson without what would have been right, and the place of the gate that taught it."""

    lesson: Lesson
    gate: int


def _retrieve(step: asyncio.Task[TrainReport | None]) -> None:
    """Its failure is told by LearnFailed, or shows in `pending` when the run was cancelled meanwhile."""
    if not step.cancelled():
        step.exception()

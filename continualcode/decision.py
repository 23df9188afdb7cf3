"""What replies are calls, which gate decides on a call, and what critics say of it. Knows nothing of what that leads to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from continualcode.events import Tried
from continualcode.protocols import ApprovalGate, Critic, Examiner
from continualcode.types import Approve, Deny, Edit, Reply, ToolCall, ToolResult, Turn, Verdict

Check = Callable[[ToolCall], str | None]
"""What is wrong with a call, or None."""


@dataclass(frozen=True, slots=True)
class Decision:
    call: ToolCall
    verdict: Verdict
    index: int
    """of the gate; as many as there are gates when none was left to ask"""
    gate: str = ""


async def decide(
    turn: Turn, call: ToolCall, gates: Sequence[ApprovalGate], check: Check
) -> AsyncIterator[Tried | Decision]:
    """Asks the gates until one has a verdict; yields what they tried meanwhile, and the decision last.

    The gate that edits vouches for its edit; those before it review the edited call anew.
    """
    for index, gate in enumerate(gates):
        name, verdict = type(gate).__name__, await _verdict(gate, turn, call)
        for tried in trials(gates):
            yield tried
        if isinstance(verdict, Edit):
            edited = verdict.apply(call)
            if (problem := check(edited)) is not None:
                yield Decision(edited, Deny(f"the edited call is not valid: {problem}", teach=False), index, name)
                return
            async for step in decide(turn, edited, gates[:index], check):
                agreed = isinstance(step, Decision) and (not step.gate or isinstance(step.verdict, Approve))
                yield Decision(edited, verdict, index, name) if agreed else step
            return
        if verdict is not None:
            yield Decision(call, verdict, index, name)
            return
    yield Decision(call, Deny("no gate approved it", teach=False), len(gates))


def problem_of(reply: Reply, check: Check) -> str | None:
    """What keeps this reply from being one valid call or an answer, said to the model."""
    if reply.problem is not None:
        return reply.problem
    if len(reply.calls) > 1:
        return f"You made {len(reply.calls)} calls. Make exactly one call in a reply."
    return check(reply.calls[0]) if reply.calls else None


async def announce(critics: Sequence[Critic], call: ToolCall) -> None:
    """Lets the Examiners see how things are before an approved call runs. Raises WorkspaceError when one cannot."""
    for critic in critics:
        if isinstance(critic, Examiner):
            await critic.about_to_run(call)


async def criticise(critics: Sequence[Critic], turn: Turn, result: ToolResult) -> str | None:
    """The first reason that a critic has."""
    for critic in critics:
        if (reason := await critic.critique(turn, result)) is not None:
            return reason
    return None


def trials(parts: Iterable[object]) -> list[Tried]:
    """What these gates or critics, those that are Examiners, have tried since they were last asked."""
    return [tried for part in parts if isinstance(part, Examiner) for tried in part.trials()]


async def _verdict(gate: ApprovalGate, turn: Turn, call: ToolCall) -> Verdict | None:
    try:
        return await gate.review(turn, call)
    except Exception as error:  # a gate that fails denies, whatever it failed of, and never teaches
        return Deny(f"{type(gate).__name__} failed: {type(error).__name__}: {error}", teach=False)

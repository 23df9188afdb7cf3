"""Answers to a problem, and what is said of them. Knows nothing of training."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from continualcode.policy import Policy
from continualcode.protocols import Critic
from continualcode.types import Conversation, Lesson, Message, ToolResult, Turn
from livecode.feedback import code_of, feedback
from livecode.grader import Grader
from livecode.problem import Problem

NO_CODE = "Your answer has no ```python code block, so there was nothing to run."
EXPLAIN = (
    "A program that was written for the problem below fails. Say in a few sentences what is wrong with it and what the "
    "right approach is. Do not write the corrected program.\n\n# Problem\n{problem}\n\n# Answer\n{answer}\n\n"
    "# What happened\n{reason}"
)


Ask: TypeAlias = Callable[[Problem], Conversation]
"""How a problem is put."""


@dataclass(frozen=True, slots=True)
class Graded:
    """A Critic of programs for one problem: runs all its tests, and tells of the public ones."""

    problem: Problem
    grader: Grader

    async def critique(self, turn: Turn, result: ToolResult) -> str | None:
        code = code_of(answer(turn))
        if code is None:
            return f"{NO_CODE} {turn.reply.problem or ''}".strip()
        grade = await self.grader.grade(self.problem, code)
        return None if grade.passed else feedback(self.problem, grade)


@dataclass(frozen=True, slots=True)
class Explained:
    """A Critic around a Critic: a model explains what that found, knowing what that said and what the policy saw."""

    critic: Critic
    policy: Policy

    async def critique(self, turn: Turn, result: ToolResult) -> str | None:
        reason = await self.critic.critique(turn, result)
        if reason is None:
            return None
        asked = EXPLAIN.format(problem=turn.context.messages[-1].content, answer=answer(turn), reason=reason)
        said = await self.policy.propose(Conversation((Message("user", asked),)))
        return f"{reason}\n\n{said.reply.text}".strip()


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One answer; `reason` says why it is wrong, None that it passed."""

    turn: Turn
    reason: str | None

    @property
    def passed(self) -> bool:
        return self.reason is None

    @property
    def lesson(self) -> Lesson:
        return Lesson(self.turn, self.reason or "", reward=float(self.passed))


async def attempt(asked: Conversation, policy: Policy, critic: Critic, count: int) -> Sequence[Rollout]:
    """`count` answers to a problem as it is `asked`, each judged at once, while others are still being answered."""
    turns = await policy.propose_many(asked, count)
    reasons = await asyncio.gather(*(critic.critique(turn, ToolResult(answer(turn))) for turn in turns))
    return [Rollout(turn, reason) for turn, reason in zip(turns, reasons, strict=True)]


def answer(turn: Turn) -> str:
    """Without the thinking; all of it where a part was taken for a tool's call, of which there are none here."""
    return turn.reply.raw if turn.reply.calls else turn.reply.text

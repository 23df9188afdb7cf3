"""What an agent narrates while it runs; a closed union, so that `match` can be exhaustive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from continualcode.types import Lesson, Reply, ToolCall, ToolResult, TrainReport, Turn, Verdict


@dataclass(frozen=True, slots=True)
class Asked:
    """The user asked for something; the run begins."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """The policy is being asked for a proposal."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """The model proposed a call, or answered without one."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Malformed:
    """The reply was no single valid call; `problem` is what the model is told. Nothing is trained on it."""

    reply: Reply
    problem: str


@dataclass(frozen=True, slots=True)
class Reviewed:
    """The gates decided on this call; `gate` names who did ("" when nobody was left to ask)."""

    turn: Turn
    call: ToolCall
    verdict: Verdict
    gate: str = ""


@dataclass(frozen=True, slots=True)
class ToolReturned:
    """An approved call ran."""

    call: ToolCall
    result: ToolResult


@dataclass(frozen=True, slots=True)
class Learning:
    """A learner has been handed these lessons and is at work."""

    lessons: tuple[Lesson, ...]


@dataclass(frozen=True, slots=True)
class Learned:
    """The step is done and the newest weights are in use."""

    report: TrainReport


@dataclass(frozen=True, slots=True)
class LearnFailed:
    """The step could not be done. If nobody answered, the lessons wait in `Agent.pending` and go along with the next."""

    lessons: tuple[Lesson, ...]
    error: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run is over. `detail` is the answer, or what went wrong."""

    reason: Literal["answered", "malformed", "turn_limit"]
    detail: str = ""


Event: TypeAlias = (
    Asked | Thinking | Proposed | Malformed | Reviewed | ToolReturned | Learning | Learned | LearnFailed | Stopped
)

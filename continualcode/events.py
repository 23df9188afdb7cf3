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
class Tried:
    """A gate or critic has found out what a call breaks, by running its command in a copy of the workspace."""

    command: str
    when: Literal["before", "after"]
    """the call itself ran"""
    reason: str | None
    """What it breaks, or None."""
    summary: str = ""
    """What the command counted, as in "12 passed, 1 failed"."""
    seconds: float = 0.0
    runs: int = 0
    """How often the command had to be run; 0: the results were known."""
    blind: bool = False
    """Without the call nothing passes either, so that nothing can be broken."""


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


@dataclass(frozen=True, slots=True)
class Restored:
    """Between runs: the files that one call changed are as they were before it, or as it left them, again."""

    what: Literal["undone", "redone"]
    call: str
    """Its name and what it was about, to be shown."""
    said: str
    """What was done to the files."""
    messages: int
    """in the conversation from now on"""
    left_out: tuple[str, ...] = ()
    """What is not covered."""
    interrupted: bool = False
    """The call had not come to its end."""


Event: TypeAlias = (
    Asked
    | Thinking
    | Proposed
    | Malformed
    | Tried
    | Reviewed
    | ToolReturned
    | Learning
    | Learned
    | LearnFailed
    | Stopped
    | Restored
)

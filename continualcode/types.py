"""The frozen values that flow through the program; knows nothing of who makes or reads them.

Array names carry their axes: T completion positions, K candidate tokens per position.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Json: TypeAlias = "None | bool | int | float | str | Sequence[Json] | Mapping[str, Json]"
JsonObject: TypeAlias = Mapping[str, Json]
Tokens: TypeAlias = tuple[int, ...]
Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Metrics: TypeAlias = Mapping[str, float]


def beginning_shared_by(sequences: Sequence[Tokens]) -> int:
    """How many tokens all of them begin with."""
    first, last = min(sequences), max(sequences)
    return next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


def freeze(value: Json) -> Json:
    """A deeply read-only copy of a JSON value; raises TypeError on anything that is not JSON."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            if not all(isinstance(key, str) for key in value):
                raise TypeError(f"keys of a JSON object are strings, not {list(value)!r}")
            return MappingProxyType({key: freeze(item) for key, item in value.items()})
        case list() | tuple():
            return tuple(freeze(item) for item in value)
    raise TypeError(f"not a JSON value: {type(value).__name__} {value!r}")


def thaw(value: Json) -> Json:
    """The plain dict/list form of a frozen JSON value, for json.dumps and templates."""
    match value:
        case Mapping():
            return {key: thaw(item) for key, item in value.items()}
        case list() | tuple():
            return [thaw(item) for item in value]
        case _:
            return value


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the model proposes. Arguments are deeply read-only: what was approved is what runs."""

    name: str
    arguments: JsonObject

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", freeze(self.arguments))

    def to_json(self) -> str:
        """`{"name": ..., "arguments": {...}}`, keys in the order the model wrote them."""
        return json.dumps({"name": self.name, "arguments": thaw(self.arguments)}, ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What the model is told of a tool; `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: JsonObject

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", freeze(self.parameters))


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What the model is told a tool did; `ok` is False when the tool could not do what was asked."""

    output: str
    ok: bool = True


@dataclass(frozen=True, slots=True)
class Message:
    """One message. An assistant's has `calls`; a tool's names the `tool` that answers."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    tool: str = ""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages and the tools on offer."""

    messages: tuple[Message, ...] = ()
    tools: tuple[ToolSpec, ...] = ()

    def add(self, *messages: Message) -> Conversation:
        return replace(self, messages=self.messages + messages)


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. Temperature 1 is the one at which logprobs are those of the policy that sampled."""

    max_tokens: int = 1024
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    stop: Tokens = ()
    candidates: int = 0
    """K most likely tokens wanted with every sampled one, where the backend can; 0: none."""


@dataclass(frozen=True, slots=True, eq=False)
class Completion:
    """Exactly what was sampled, and from what. Nothing here is ever re-tokenised from text."""

    prompt: Tokens
    tokens: Tokens
    logprobs_T: Floats
    """log p(tokens[t] | prompt, tokens[:t]) in nats, untempered."""
    stop_reason: Literal["stop", "length"] = "stop"
    temperature: float = 1.0
    candidates: tuple[Ints, Floats] | None = None
    """ids [T, K] and logprobs [T, K] of the most likely tokens, if they came with the sample."""
    origin: object | None = None
    """The Sampler that made it: while that is still the newest, its logprobs need not be asked for again."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A completion, read. `problem` says why it is not exactly one valid call or an answer."""

    text: str
    thinking: str = ""
    calls: tuple[ToolCall, ...] = ()
    problem: str | None = None
    raw: str = ""

    @property
    def call(self) -> ToolCall | None:
        """The one call, or None when there is none, more than one, or a problem."""
        return self.calls[0] if len(self.calls) == 1 and self.problem is None else None

    @property
    def message(self) -> Message:
        return Message("assistant", self.text, self.thinking, self.calls)


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """One proposal with all that learning from it needs."""

    context: Conversation
    reply: Reply
    completion: Completion


@dataclass(frozen=True, slots=True)
class Approve:
    """Run the call exactly as proposed."""


@dataclass(frozen=True, slots=True)
class Edit:
    """Run the call with these arguments (and under this name) instead, and learn from the difference."""

    arguments: JsonObject
    reason: str = ""
    name: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "arguments", freeze(self.arguments))

    def apply(self, call: ToolCall) -> ToolCall:
        return ToolCall(self.name or call.name, self.arguments)


@dataclass(frozen=True, slots=True)
class Deny:
    """Do not run the call. With `teach` the reason becomes a lesson at once."""

    reason: str
    teach: bool = True


Verdict: TypeAlias = Approve | Edit | Deny


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """A correction: this turn was wrong, because.

    It may carry what was right: the `resolution` is the model's own later proposal that was approved, the
    `demonstration` a call or an answer that a person wrote. `notes` are what the user said beside it. A `reward` makes
    it a rollout among its siblings, the lessons on the same prompt: those that succeeded are solutions for the others.
    """

    turn: Turn
    reason: str
    demonstration: ToolCall | str | None = None
    resolution: Turn | None = None
    notes: tuple[str, ...] = ()
    reward: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """What a train step takes: loss = sum over t, k of -weights_TK * log p(ids_TK | prompt, tokens[:t])."""

    prompt: Tokens
    tokens: Tokens
    ids_TK: Ints
    weights_TK: Floats
    constant: int = 0
    """So many tokens of the prompt's beginning a backend may read as they are, without a gradient through them."""

    def __post_init__(self) -> None:
        if not self.ids_TK.shape == self.weights_TK.shape == (len(self.tokens), self.ids_TK.shape[-1]):
            raise ValueError(
                f"ids {self.ids_TK.shape} and weights {self.weights_TK.shape} must both be [T, K] with T = {len(self.tokens)}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class TokenView:
    """One lesson's tokens as the step saw them; the material of a heat-map."""

    tokens: Tokens
    student_T: Floats
    """log-probability of each token before the step."""
    teacher_T: Floats
    after_T: Floats
    """log-probability of each token after the step."""
    kind: Literal["rejected", "approved"] = "rejected"
    placebo_T: Floats | None = None
    """log-probability of each token under the teacher that was shown an unrelated feedback, where one was asked for."""

    @property
    def advantages_T(self) -> Floats:
        """log q - log p at each sampled token: what the teacher would have made more (+) or less (-) likely."""
        return self.teacher_T - self.student_T


Outcome: TypeAlias = Literal["trained", "taken", "drifted", "understood", "too weak"]
"""How a `learn` ended. trained: all steps it may take; taken: little of the gap to the teacher is left; drifted: what
was rehearsed moved as far as it may. Without a step: understood, the policy knows by now; too weak, the reason hardly
changes what the model would do, so there is nothing to distil and it works as context only."""


@dataclass(frozen=True, slots=True, eq=False)
class TrainReport:
    """What one `learn` did. `step` counts optimiser steps since the weights were made, `inner_steps` those of this one."""

    step: int
    lessons: int
    tokens: int
    loss: float
    """mean over tokens, in nats, before the first step"""
    seconds: float
    views: tuple[TokenView, ...] = ()
    metrics: Metrics = field(default_factory=dict)
    outcome: Outcome = "trained"
    inner_steps: int = 1
    gap: float = 0.0
    """nats between teacher and student over a whole completion before the first step, mean over completions"""
    left: float = 1.0
    """share of the gap that is left"""
    drift: float = 0.0
    """nats per token by which the policy moved on what was rehearsed"""
    cut: int = 0
    """characters of a reason that the teacher could not be shown for want of room"""

    @property
    def logprob_before(self) -> float:
        """log-probability in nats of the whole rejected completions before the step, mean over lessons."""
        return float(np.mean([view.student_T.sum() for view in self.rejected]))

    @property
    def logprob_after(self) -> float:
        return float(np.mean([view.after_T.sum() for view in self.rejected]))

    @property
    def rejected(self) -> tuple[TokenView, ...]:
        return tuple(view for view in self.views if view.kind == "rejected")

    @property
    def approved(self) -> tuple[TokenView, ...]:
        return tuple(view for view in self.views if view.kind == "approved")


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a backend can do, found out and not assumed. `notes` are for a person to read."""

    sample_candidates: int = 0
    """largest K that can be had with a sample; 0: none."""
    top_logprobs: int = 0
    """largest K that can be had at prompt positions; 0: none."""
    candidate_logprobs: bool = False
    """logprobs at chosen token ids."""
    weighted_candidates: bool = False
    """cross-entropy over [T, K] targets and not only [T]."""
    summed_cross_entropy: bool = True
    frozen_snapshots: bool = True
    context_length: int | None = None
    vocabulary: int | None = None
    """tokens in all, where every one of them can be scored at once; None: only some."""
    weight_averaging: bool = False
    """its samplers are Averaging."""
    null_space: bool = False
    """it is NullSpaced."""
    notes: tuple[str, ...] = ()

    @property
    def distillation_topk(self) -> int:
        """largest K for top-K distillation; 0: only the sampled token can be distilled on."""
        if not (self.candidate_logprobs and self.weighted_candidates):
            return 0
        return max(self.sample_candidates, self.top_logprobs)

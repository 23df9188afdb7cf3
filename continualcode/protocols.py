"""Every seam of the program, one or two methods each; knows only the values that cross it."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from continualcode.events import Tried
from continualcode.types import (
    Capabilities,
    Completion,
    Conversation,
    Example,
    Floats,
    Ints,
    Json,
    Lesson,
    Message,
    Metrics,
    Reply,
    Sampling,
    Tokens,
    ToolCall,
    ToolResult,
    ToolSpec,
    TrainReport,
    Turn,
    Verdict,
)

if TYPE_CHECKING:
    from continualcode.agent import Agent


class Sampler(Protocol):
    """One frozen set of weights. All logprobs are natural, untempered, and aligned with the completion's tokens."""

    async def sample(self, prompt: Tokens, sampling: Sampling, n: int = 1) -> list[Completion]:
        """n independent completions. Raises ContextLengthError when prompt and max_tokens do not fit."""
        ...

    async def logprobs(self, prompt: Tokens, completion: Tokens) -> Floats:
        """[T]: log p(completion[t] | prompt, completion[:t]); never shifted, never None."""
        ...

    async def candidate_logprobs(self, prompt: Tokens, completion: Tokens, ids_TK: Ints) -> Floats:
        """[T, K]: log p at the given ids of each position. Raises CapabilityError where it cannot be had."""
        ...

    async def top_logprobs(self, prompt: Tokens, completion: Tokens, k: int) -> tuple[Ints, Floats]:
        """ids [T, k] and logprobs [T, k], most likely first. Raises CapabilityError where it cannot be had."""
        ...


@runtime_checkable
class Averaging(Protocol):
    """A Sampler whose weights can be averaged with those of another of the same model."""

    async def averaged(self, newer: Sampler, rate: float) -> Sampler:
        """The sampler of (1 - rate) own + rate newer, weight by weight."""
        ...


@runtime_checkable
class NullSpaced(Protocol):
    """A Backend that can keep what it trains out of the way of what is known."""

    async def into_null_space(self, sequences: Sequence[Tokens]) -> None:
        """Draws LoRA weights anew, away from what the layers read in these sequences; those that were trained stay."""
        ...


class Backend(Protocol):
    """A model whose weights can be trained."""

    @property
    def sampler(self) -> Sampler:
        """Always the newest weights; a reference kept from before stays the weights of then."""
        ...

    @property
    def initial_sampler(self) -> Sampler:
        """The weights this backend was made with."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    async def train_step(self, examples: Sequence[Example], *, learning_rate: float, refresh: bool = True) -> Metrics:
        """One optimiser step on the sum of the examples' weighted cross-entropies; all of it or nothing.

        Without `refresh`, `sampler` stays as it was, because another step follows at once.
        """
        ...

    async def refresh(self) -> None:
        """Makes `sampler` the newest weights after steps that did not."""
        ...

    async def forward(self, examples: Sequence[Example]) -> list[Floats]:
        """[T, K] log-probabilities of each example's ids at the newest weights, whatever `sampler` is."""
        ...

    async def save(self, name: str) -> str:
        """Keep weights and optimiser state; returns the path that loads them again."""
        ...


class Renderer(Protocol):
    """Conversation to tokens and tokens to reply, for one family of models."""

    @property
    def stop(self) -> Tokens:
        """Token ids that end a completion."""
        ...

    def prompt(self, conversation: Conversation) -> Tokens:
        """Token ids of everything up to where the assistant begins to write."""
        ...

    def parse(self, tokens: Tokens) -> Reply:
        """Reads a completion; what does not parse keeps its raw text and says why in `problem`."""
        ...

    def completion(self, message: Message) -> Tokens:
        """The tokens with which the model itself would have written this assistant message, stop included."""
        ...

    def decode(self, token: int) -> str:
        """One token as text, to be shown."""
        ...


class Proposer(Protocol):
    async def propose(self, conversation: Conversation) -> Turn: ...


@runtime_checkable
class Tool(Protocol):
    """Something the model may call. Blocking work belongs in asyncio.to_thread."""

    @property
    def spec(self) -> ToolSpec: ...

    def check(self, call: ToolCall) -> str | None:
        """What is wrong with the call's arguments, in words the model can act on, or None."""
        ...

    async def __call__(self, **arguments: Json) -> ToolResult:
        """Raises ToolError to tell the model that it could not be done."""
        ...


class ApprovalGate(Protocol):
    async def review(self, turn: Turn, call: ToolCall) -> Verdict | None:
        """A verdict, or None to leave it to the next gate. `call` may differ from `turn.reply.call` after an edit."""
        ...


@runtime_checkable
class Critic(Protocol):
    async def critique(self, turn: Turn, result: ToolResult) -> str | None:
        """Why an approved call was wrong after all, or None."""
        ...


@runtime_checkable
class Examiner(Protocol):
    """A gate or Critic that finds out what a call does by trying."""

    async def about_to_run(self, call: ToolCall) -> None:
        """The call is approved: a `critique` that follows blames it for what is worse than now."""
        ...

    def trials(self) -> Sequence[Tried]:
        """What was tried since this was last asked."""
        ...


class Learner(Protocol):
    async def learn(self, lessons: Sequence[Lesson]) -> TrainReport | None:
        """Learns from the corrections; None when there was nothing to learn from them."""
        ...


@runtime_checkable
class EarlyLearner(Protocol):
    """A Learner whose weights are final before it has found out what has become of them."""

    async def begin(self, lessons: Sequence[Lesson]) -> Awaitable[TrainReport | None]:
        """Learns, and returns when the next proposal can be asked for; what is returned gives what `learn` would, and
        is to be awaited before anything else is learned."""
        ...


@runtime_checkable
class Rehearser(Protocol):
    """A Learner that also wants to know what was right as it was."""

    def rehearse(self, turn: Turn) -> None:
        """An approved proposal: learning should leave it as likely as it is."""
        ...


class Teacher(Protocol):
    """The policy under a richer prompt, scored on the student's own tokens."""

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        """[T] at the completion's tokens when ids_TK is None, else [T, K] at the ids."""
        ...

    async def update(self) -> None:
        """Called after the optimiser steps of one `learn`."""
        ...


class Frontend(ApprovalGate, Critic, Protocol):
    """The last gate, a critic, and what drives the agent."""

    async def run(self, agent: Agent) -> None: ...

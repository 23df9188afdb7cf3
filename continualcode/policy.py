"""Policy: asks the newest weights for the next message. Knows nothing of gates, tools or training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from continualcode.errors import ConfigError
from continualcode.protocols import Renderer, Sampler
from continualcode.types import Completion, Conversation, Reply, Sampling, Turn

DEFAULT_SAMPLING = Sampling()


class Model(Protocol):
    """Whatever holds the weights to ask: a Backend, whose `sampler` is always the newest."""

    @property
    def sampler(self) -> Sampler: ...


class Policy:
    """Proposes the next message of a conversation: render, sample, parse.

    Args:
        model: a Backend, or anything with a `sampler`.
        renderer: turns conversations to tokens and tokens to replies for this model's family.
        sampling: temperature 1 is what training needs; `stop` defaults to the renderer's. A seed makes the series of
            proposals repeatable, each with a seed of its own, so that a retry is not the same draw again.
    """

    def __init__(self, model: Model, renderer: Renderer, sampling: Sampling = DEFAULT_SAMPLING) -> None:
        if sampling.max_tokens < 1 or sampling.temperature < 0 or not 0 < sampling.top_p <= 1:
            raise ConfigError(f"max_tokens >= 1, temperature >= 0 and 0 < top_p <= 1 are needed, not {sampling}")
        self.model, self.renderer = model, renderer
        self.sampling = sampling if sampling.stop else replace(sampling, stop=renderer.stop)
        self._asked = 0

    async def propose(self, conversation: Conversation) -> Turn:
        """One proposal. Raises BackendError when the model cannot be asked."""
        return (await self.propose_many(conversation, 1))[0]

    async def propose_many(self, conversation: Conversation, n: int) -> Sequence[Turn]:
        """n independent proposals for the same conversation."""
        prompt = self.renderer.prompt(conversation)
        completions = await self.model.sampler.sample(prompt, self._next_sampling(), n)
        return [Turn(conversation, self._read(completion), completion) for completion in completions]

    def _next_sampling(self) -> Sampling:
        if self.sampling.seed is None:
            return self.sampling
        self._asked += 1
        return replace(self.sampling, seed=self.sampling.seed + self._asked - 1)

    def _read(self, completion: Completion) -> Reply:
        reply = self.renderer.parse(completion.tokens)
        if completion.stop_reason == "stop" or reply.call is not None:
            return reply
        cut = f"Your reply was cut off after {len(completion.tokens)} tokens. Write a shorter one."
        return replace(reply, problem=cut)

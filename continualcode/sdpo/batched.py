"""Batched: a learner around a learner that takes one step on several lessons. Knows nothing of how they are learned."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from continualcode.errors import ConfigError
from continualcode.protocols import Learner, Rehearser
from continualcode.types import Lesson, TrainReport, Turn


class Batched:
    """Collects lessons over calls and hands them to `learner` together, all that it has, as soon as there are `size`.

    Gradient accumulation over lessons: an SDPOTrainer's loss is then a mean over all their tokens, its rewards are
    centred and its solutions looked for among all of them. `collected` are those that wait.
    """

    def __init__(self, learner: Learner, size: int) -> None:
        if size < 1:
            raise ConfigError(f"a batch is 1 lesson or more, not {size}")
        self.learner, self.size = learner, size
        self.collected: tuple[Lesson, ...] = ()
        self._one_at_a_time = asyncio.Lock()

    async def learn(self, lessons: Sequence[Lesson]) -> TrainReport | None:
        """None while it collects. What the learner within raises is raised, and its lessons stay collected."""
        self.collected += tuple(lessons)
        return await self._hand_over(self.size)

    async def flush(self) -> TrainReport | None:
        """Learns from what is collected, however few; None when that is nothing. Raises as `learn` does."""
        return await self._hand_over(1)

    def rehearse(self, turn: Turn) -> None:
        """Passed on to a learner within that wants to know."""
        if isinstance(self.learner, Rehearser):
            self.learner.rehearse(turn)

    async def _hand_over(self, at_least: int) -> TrainReport | None:
        """Calls that come during a step wait for its end, and then see what it has left."""
        async with self._one_at_a_time:
            batch = self.collected
            if len(batch) < at_least:
                return None
            report = await self.learner.learn(batch)
            self.collected = self.collected[len(batch) :]
            return report

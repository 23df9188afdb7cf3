"""SaveEvery: a learner around a learner, so that nothing learned is lost. Knows nothing of where weights are kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from continualcode.errors import BackendError, ConfigError
from continualcode.protocols import Backend, EarlyLearner, Learner, Rehearser
from continualcode.types import Lesson, TrainReport, Turn

_log = logging.getLogger(__name__)


class SaveEvery:
    """Saves weights and optimiser state after every Nth step of `learner`, and the rest with `close`.

    A save that fails does not undo the step: it is reported in the log and tried again after the next one.

    Args:
        every: steps between saves; 0: only `close` and `save_now` save.
        name: of the session; checkpoints are called name-STEP.
        discard: removes a checkpoint's path; with it only the newest `keep` of this session stay, and the newest
            alone once closed.
    """

    def __init__(
        self,
        learner: Learner,
        backend: Backend,
        *,
        every: int,
        name: str,
        discard: Callable[[str], None] | None = None,
        keep: int = 2,
    ) -> None:
        if every < 0 or keep < 1:
            raise ConfigError(f"save_every is 0 or more and at least one checkpoint is kept, not {every} and {keep}")
        self.learner, self.backend, self.every, self.name = learner, backend, every, name
        self.discard, self.keep = discard, keep
        self.steps = 0
        self.unsaved = 0
        """Steps done since the last save."""
        self.paths: list[str] = []
        """Checkpoints that still exist, the newest last."""

    async def learn(self, lessons: Sequence[Lesson]) -> TrainReport | None:
        """What the learner within does, and a save when it is due."""
        return await (await self.begin(lessons))

    async def begin(self, lessons: Sequence[Lesson]) -> Awaitable[TrainReport | None]:
        """The same for who need not wait for the report of a learner within that is early. A save that is sure to be due
        is waited for: behind the next proposal, on a backend that does one thing at a time, it would come late."""
        if isinstance(self.learner, EarlyLearner):
            learning = self._saved(await self.learner.begin(lessons))
        else:
            learning = self._saved(_known(await self.learner.learn(lessons)))
        return _known(await learning) if self.every and self.unsaved + 1 >= self.every else learning

    async def _saved(self, learning: Awaitable[TrainReport | None]) -> TrainReport | None:
        report = await learning
        if report is not None and report.inner_steps:
            self.steps += report.inner_steps
            self.unsaved += report.inner_steps
            if self.every and self.unsaved >= self.every:
                await self._try_to_save()
        return report

    def rehearse(self, turn: Turn) -> None:
        """Passed on to a learner within that wants to know."""
        if isinstance(self.learner, Rehearser):
            self.learner.rehearse(turn)

    async def save_now(self) -> str:
        """Saves whether due or not; returns the path that `load_checkpoint_path` takes. Raises BackendError."""
        if self.paths and not self.unsaved:
            return self.paths[-1]
        saved = self.unsaved
        path = await self.backend.save(f"{self.name}-{self.steps}")
        self.unsaved -= saved
        self.paths.append(path)
        await self._discard_down_to(self.keep)
        return path

    async def close(self) -> str | None:
        """Saves what is not saved yet; the newest path, or None when nothing was ever learned. Raises BackendError."""
        if self.unsaved:
            await self.save_now()
        await self._discard_down_to(1)
        return self.paths[-1] if self.paths else None

    async def _try_to_save(self) -> None:
        try:
            await self.save_now()
        except (BackendError, OSError) as error:
            _log.warning("learned, but not saved yet (%s); tried again after the next step", error)

    async def _discard_down_to(self, count: int) -> None:
        if self.discard is None:
            return
        while len(self.paths) > count:
            await asyncio.to_thread(self.discard, self.paths.pop(0))


async def _known(report: TrainReport | None) -> TrainReport | None:
    """Waits for nothing."""
    return report

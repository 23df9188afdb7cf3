"""Ready-made teachers: which weights score the student's tokens under the richer prompt. Knows nothing of losses.

`teacher_regularization` of the paper's reference implementation: "none" (newest weights), "frozen" (initial weights),
"ema" (teacher <- (1 - r) teacher + r student after the steps of every `learn`) and "trust-region" (logits between initial and newest,
r of the way), with r = `teacher_update_rate`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from continualcode.errors import CapabilityError
from continualcode.protocols import Averaging, Backend, Sampler, Teacher
from continualcode.sdpo.mixture import Snapshot, average_in, geometric_mixture
from continualcode.types import Floats, Ints, Tokens

TeacherFactory: TypeAlias = Callable[[Backend, float], Teacher]
"""Makes a teacher of a backend and `teacher_update_rate` in [0, 1]."""


class CurrentTeacher:
    """The newest weights: teacher and student differ by their prompt alone."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        return await _score(self._backend.sampler, prompt, completion, ids_TK)

    async def update(self) -> None:
        """Nothing to do: the backend's sampler already is the newest."""


class FrozenTeacher:
    """The weights the backend was made with: never drifts, never gets better."""

    def __init__(self, backend: Backend) -> None:
        self._sampler = backend.initial_sampler

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        return await _score(self._sampler, prompt, completion, ids_TK)

    async def update(self) -> None:
        """Nothing to do: frozen."""


class EMATeacher:
    """The exponential moving average of the weights so far, by log-probabilities where weights cannot be averaged.

    The initial model and at most `bound` - 1 snapshots, mixed geometrically with the weights r (1 - r)^i of an EMA; past
    the bound neighbours are merged, and no weight is dropped. Costs one scoring per snapshot, all at once.
    """

    def __init__(self, backend: Backend, rate: float, bound: int = 8) -> None:
        self._backend, self._rate, self._bound = backend, rate, bound
        self.snapshots: tuple[Snapshot[Sampler], ...] = (Snapshot(backend.initial_sampler, 0, 1.0),)

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        weighted = {s.item: s.weight for s in self.snapshots if s.weight > 0}
        return await _mix(weighted, prompt, completion, ids_TK)

    async def update(self) -> None:
        self.snapshots = average_in(self.snapshots, self._backend.sampler, self._rate, self._bound)


class ExactEMATeacher:
    """The exponential moving average itself, of the LoRA's weights, where the backend can average them."""

    def __init__(self, backend: Backend, rate: float) -> None:
        self._backend, self._rate = backend, rate
        self._averaged: Sampler | None = None

    @property
    def sampler(self) -> Sampler:
        """Up to the first update the backend's initial one, which may be drawn anew until then."""
        return self._averaged or self._backend.initial_sampler

    @sampler.setter
    def sampler(self, kept: Sampler) -> None:
        self._averaged = kept

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        return await _score(self.sampler, prompt, completion, ids_TK)

    async def update(self) -> None:
        if not isinstance(self.sampler, Averaging):
            raise CapabilityError("this backend cannot average weights; EMATeacher averages log-probabilities")
        self.sampler = await self.sampler.averaged(self._backend.sampler, self._rate)


class TrustRegionTeacher:
    """Logits r of the way from the initial to the newest model: log q = (1 - r) log p_initial + r log p_newest - log Z."""

    def __init__(self, backend: Backend, rate: float) -> None:
        self._backend, self._rate = backend, rate

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        initial, newest = self._backend.initial_sampler, self._backend.sampler
        weighted = {initial: 1.0} if newest is initial else {initial: 1 - self._rate, newest: self._rate}
        return await _mix(weighted, prompt, completion, ids_TK)

    async def update(self) -> None:
        """Nothing to do: both ends are at hand."""


def ema_teacher(backend: Backend, rate: float) -> Teacher:
    """The exact average where the backend can, the one by log-probabilities elsewhere."""
    return (ExactEMATeacher if backend.capabilities.weight_averaging else EMATeacher)(backend, rate)


TEACHERS: Mapping[str, TeacherFactory] = {
    "none": lambda backend, rate: CurrentTeacher(backend),
    "frozen": lambda backend, rate: FrozenTeacher(backend),
    "ema": ema_teacher,
    "trust-region": TrustRegionTeacher,
}
NEED_FROZEN = frozenset({"frozen", "ema", "trust-region"})
"""Those that score with older weights."""


async def _mix(weighted: Mapping[Sampler, float], prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
    """The geometric mixture; over the sampled token and the rest of the vocabulary when there are no ids."""
    scores = await asyncio.gather(*(_score(sampler, prompt, completion, ids_TK) for sampler in weighted))
    if len(scores) == 1:
        return scores[0]
    weights_M = np.array(list(weighted.values()))
    if ids_TK is not None:
        return geometric_mixture(np.stack(scores), weights_M, ids_TK)
    own_T1 = np.asarray(completion, dtype=np.int64)[:, None]
    return geometric_mixture(np.stack(scores)[:, :, None], weights_M, own_T1)[:, 0]


async def _score(sampler: Sampler, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
    if ids_TK is None:
        return await sampler.logprobs(prompt, completion)
    return await sampler.candidate_logprobs(prompt, completion, ids_TK)

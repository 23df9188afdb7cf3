"""Ready-made teachers: which weights score the student's tokens under the richer prompt. Knows nothing of losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from continualcode.protocols import Backend, Sampler, Teacher
from continualcode.types import Floats, Ints, Tokens

TeacherFactory: TypeAlias = Callable[[Backend], Teacher]


class CurrentTeacher:
    """The newest weights (`teacher_regularization` "none"): teacher and student differ by their prompt alone."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        return await _score(self._backend.sampler, prompt, completion, ids_TK)

    async def update(self) -> None:
        """Nothing to do: the backend's sampler already is the newest."""


class FrozenTeacher:
    """The weights the backend was made with ("frozen"): never drifts, never gets better."""

    def __init__(self, backend: Backend) -> None:
        self._sampler = backend.initial_sampler

    async def score(self, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
        return await _score(self._sampler, prompt, completion, ids_TK)

    async def update(self) -> None:
        """Nothing to do: frozen."""


TEACHERS: Mapping[str, TeacherFactory] = {"none": CurrentTeacher, "frozen": FrozenTeacher}


async def _score(sampler: Sampler, prompt: Tokens, completion: Tokens, ids_TK: Ints | None) -> Floats:
    if ids_TK is None:
        return await sampler.logprobs(prompt, completion)
    return await sampler.candidate_logprobs(prompt, completion, ids_TK)

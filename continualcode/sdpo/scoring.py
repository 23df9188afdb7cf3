"""A lesson as the sequences to distil on, and their scores by student and teacher. Knows nothing of losses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from continualcode.errors import ConfigError
from continualcode.protocols import Renderer, Sampler, Teacher
from continualcode.sdpo.reprompt import RepromptTemplate, teacher_context
from continualcode.types import Completion, Floats, Ints, Lesson, Message, Tokens


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """Tokens to distil on: the student sees `prompt`, the teacher `teacher_prompt`.

    `sampled` is the completion when they are the policy's own sample under `prompt`; what was approved or written under
    another prompt has none, and is not importance-weighted.
    """

    kind: Literal["rejected", "approved"]
    prompt: Tokens
    tokens: Tokens
    teacher_prompt: Tokens
    sampled: Completion | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Natural log-probabilities of a passage. The ids hold every sampled token; K = 1 is the sampled token alone."""

    passage: Passage
    ids_TK: Ints
    student_TK: Floats
    teacher_TK: Floats

    @property
    def student_T(self) -> Floats:
        return self._own(self.student_TK)

    @property
    def teacher_T(self) -> Floats:
        return self._own(self.teacher_TK)

    def _own(self, values_TK: Floats) -> Floats:
        """The column of the token itself."""
        own_T = (self.ids_TK == np.asarray(self.passage.tokens)[:, None]).argmax(axis=1)
        values_T: Floats = values_TK[np.arange(len(own_T)), own_T]
        return values_T


def passages_of(lesson: Lesson, renderer: Renderer, template: RepromptTemplate) -> Sequence[Passage]:
    """The rejected tokens, and the approved ones where there are any; none when there is nothing to tell the teacher.

    Raises ConfigError for a completion not sampled at temperature 1: its tokens are not the policy's own.
    """
    completion = lesson.turn.completion
    if completion.temperature != 1.0:
        raise ConfigError(
            f"this completion was sampled at temperature {completion.temperature}; its tokens are not the policy's own. "
            "Sample at temperature 1 to train"
        )
    context = teacher_context(lesson, template)
    if context is None or not completion.tokens:
        return ()
    teacher_prompt = renderer.prompt(context)
    rejected = Passage("rejected", completion.prompt, completion.tokens, teacher_prompt, completion)
    if not (approved := _approved_tokens(lesson, renderer)):
        return (rejected,)
    return rejected, Passage("approved", completion.prompt, approved, teacher_prompt)


async def score(passage: Passage, newest: Sampler, teacher: Teacher, k: int | None) -> Scores:
    """Student and teacher at the student's k most likely ids and the token itself, or at the token alone (k None)."""
    ids_TK, student_TK = await _student(passage, newest, k)
    if k is None:
        return Scores(passage, ids_TK, student_TK, (await teacher.score(*_under(passage), None))[:, None])
    return Scores(passage, ids_TK, student_TK, await teacher.score(*_under(passage), ids_TK))


async def _student(passage: Passage, newest: Sampler, k: int | None) -> tuple[Ints, Floats]:
    own_T1 = np.asarray(passage.tokens, dtype=np.int64)[:, None]
    fresh = passage.sampled if passage.sampled is not None and passage.sampled.origin is newest else None
    if k is None:
        own_T = fresh.logprobs_T if fresh else await newest.logprobs(passage.prompt, passage.tokens)
        return own_T1, own_T[:, None]
    if fresh and fresh.candidates is not None and fresh.candidates[0].shape[1] >= k:
        ids_TK, top_TK, own_T = fresh.candidates[0][:, :k], fresh.candidates[1][:, :k], fresh.logprobs_T
    else:
        (ids_TK, top_TK), own_T = await asyncio.gather(
            newest.top_logprobs(passage.prompt, passage.tokens, k), newest.logprobs(passage.prompt, passage.tokens)
        )
    return _with_own(ids_TK, top_TK, own_T1, own_T)


def _with_own(ids_TK: Ints, top_TK: Floats, own_T1: Ints, own_T: Floats) -> tuple[Ints, Floats]:
    """The least likely candidate gives way to the token itself wherever that is not among them."""
    missing_T = ~(ids_TK == own_T1).any(axis=1)
    ids_TK, top_TK = ids_TK.copy(), top_TK.copy()
    ids_TK[missing_T, -1], top_TK[missing_T, -1] = own_T1[missing_T, 0], own_T[missing_T]
    return ids_TK, top_TK


def _under(passage: Passage) -> tuple[Tokens, Tokens]:
    return passage.teacher_prompt, passage.tokens


def _approved_tokens(lesson: Lesson, renderer: Renderer) -> Tokens:
    if lesson.demonstration is not None:
        return renderer.completion(Message("assistant", "", calls=(lesson.demonstration,)))
    return lesson.resolution.completion.tokens if lesson.resolution is not None else ()

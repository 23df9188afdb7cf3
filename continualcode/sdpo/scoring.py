"""Lessons as the sequences to distil on, and their scores by student and teacher. Knows nothing of losses."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from continualcode.errors import ConfigError, ContextLengthError
from continualcode.protocols import Renderer, Sampler, Teacher
from continualcode.sdpo.mixture import geometric_mixture
from continualcode.sdpo.reprompt import Hints, RepromptTemplate, context_with, hints_of
from continualcode.sdpo.settings import SDPOConfig
from continualcode.types import Completion, Floats, Ints, Lesson, Message, Tokens, beginning_shared_by

Width: TypeAlias = int | None | range
"""Candidates per position: the K most likely, None for the sampled token alone, or range(V), all of them."""


@dataclass(frozen=True, slots=True, eq=False)
class Passage:
    """Tokens to distil on: the student sees `prompt`, the teacher `teacher_prompt` (None: there is no teacher).

    `sampled` is the completion when they are the policy's own sample under `prompt`; what was approved or written under
    another prompt has none, and is not importance-weighted. `advantage` is the reward less its siblings' mean. Beside
    a new lesson's, earlier ones are "rehearsed" and approved turns "kept": their teacher is what is remembered.
    `constant`: tokens of the prompt's beginning that no gradient has to run through. `cut`: characters of the reason that
    there was no room for.
    """

    kind: Literal["rejected", "approved", "rehearsed", "kept"]
    prompt: Tokens
    tokens: Tokens
    teacher_prompt: Tokens | None = None
    sampled: Completion | None = None
    placebo_prompt: Tokens | None = None
    advantage: float = 0.0
    constant: int = 0
    cut: int = 0

    @property
    def is_new(self) -> bool:
        return self.kind in ("rejected", "approved")


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """Natural log-probabilities of a passage. The ids hold every sampled token; K = 1 is the sampled token alone."""

    passage: Passage
    ids_TK: Ints
    student_TK: Floats
    teacher_TK: Floats
    placebo_TK: Floats | None = None

    @property
    def student_T(self) -> Floats:
        return self.own(self.student_TK)

    @property
    def teacher_T(self) -> Floats:
        return self.own(self.teacher_TK)

    @property
    def own_T(self) -> Ints:
        """The column of the token itself."""
        column_T: Ints = (self.ids_TK == np.asarray(self.passage.tokens)[:, None]).argmax(axis=1)
        return column_T

    def own(self, values_TK: Floats) -> Floats:
        """The values at the token itself."""
        values_T: Floats = values_TK[np.arange(len(values_TK)), self.own_T]
        return values_T


@dataclass(frozen=True, slots=True)
class Rendering:
    """How lessons become tokens. `context_length`: what prompt and completion have to fit; None: unknown."""

    renderer: Renderer
    config: SDPOConfig
    template: RepromptTemplate
    context_length: int | None

    def passages(self, lessons: Sequence[Lesson]) -> list[Passage]:
        """The rejected tokens of each, and the approved ones where there are any; none of a lesson that says nothing.

        Raises ConfigError for a completion not sampled at temperature 1, whose tokens are not the policy's own, and
        ContextLengthError where what the teacher is to be shown does not fit.
        """
        return [passage for lesson in lessons for passage in self._of(lesson, _siblings(lesson, lessons))]

    def _of(self, lesson: Lesson, siblings: Sequence[Lesson]) -> Sequence[Passage]:
        completion = lesson.turn.completion
        if completion.temperature != 1.0:
            raise ConfigError(
                f"this completion was sampled at temperature {completion.temperature}; its tokens are not the policy's "
                "own. Sample at temperature 1 to train"
            )
        hints, advantage = hints_of(lesson, self.config, siblings), _advantage(lesson, siblings)
        rewarded = self.config.reward_weight > 0 and advantage != 0
        if not completion.tokens or not (hints or rewarded):
            return ()
        constant = self._instructions(lesson) if self.config.constant_instructions else 0
        prompt, tokens = completion.prompt, completion.tokens
        rejected = Passage("rejected", prompt, tokens, sampled=completion, advantage=advantage, constant=constant)
        if not hints:
            return (rejected,)
        approved = Passage("approved", prompt, self._approved(lesson), constant=constant)
        return [self._told(passage, hints, lesson) for passage in (rejected, approved) if passage.tokens]

    def _told(self, passage: Passage, hints: Hints, lesson: Lesson) -> Passage:
        placebo = None
        if self.config.placebo is not None:
            placebo, _ = self._prompt(Hints(feedback=self.config.placebo), lesson, len(passage.tokens))
        prompt, cut = self._prompt(hints, lesson, len(passage.tokens))
        return replace(passage, teacher_prompt=prompt, placebo_prompt=placebo, cut=cut)

    def _prompt(self, hints: Hints, lesson: Lesson, completion: int) -> tuple[Tokens, int]:
        """The teacher's, with as much of the feedback as there is room for, and how many characters are left out."""
        room = len(lesson.turn.completion.prompt) + self.config.max_reprompt_len
        if self.context_length is not None:
            room = min(room, self.context_length - completion)
        whole = self._render(hints, lesson)
        if len(whole) <= room:
            return whole, 0
        if self.config.reprompt_truncation == "error" or len(self._render(self._cut(hints, 0), lesson)) > room:
            raise ContextLengthError(
                f"what the teacher is to be shown makes its prompt {len(whole)} tokens; there is room for {room}. "
                "Shorten the reason or the solution, or the conversation (max_reprompt_len, reprompt_truncation)"
            )
        fits, too_long = 0, len(hints.feedback)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if len(self._render(self._cut(hints, middle), lesson)) <= room:
                fits = middle
            else:
                too_long = middle
        return self._render(self._cut(hints, fits), lesson), len(hints.feedback) - fits

    def _instructions(self, lesson: Lesson) -> int:
        """Tokens that the prompt shares with one of the same instructions whatever is asked."""
        said = lesson.turn.context.messages
        told = [message for message in said[:1] if message.role == "system"]
        others = [replace(lesson.turn.context, messages=(*told, Message("user", text))) for text in ("a", "b")]
        return beginning_shared_by([lesson.turn.completion.prompt, *map(self.renderer.prompt, others)])

    def _cut(self, hints: Hints, characters: int) -> Hints:
        kept = slice(-characters or len(hints.feedback), None)
        if self.config.reprompt_truncation == "right":
            kept = slice(characters)
        return replace(hints, feedback=hints.feedback[kept])

    def _render(self, hints: Hints, lesson: Lesson) -> Tokens:
        return self.renderer.prompt(context_with(hints, lesson.turn.context, self.template))

    def _approved(self, lesson: Lesson) -> Tokens:
        match lesson.demonstration:
            case None:
                return lesson.resolution.completion.tokens if lesson.resolution is not None else ()
            case str() as text:
                return self.renderer.completion(Message("assistant", text))
            case call:
                return self.renderer.completion(Message("assistant", "", calls=(call,)))


async def score(passage: Passage, newest: Sampler, teacher: Teacher, width: Width) -> Scores:
    """Student and teacher at the student's candidates and the token itself, or at the token alone."""
    ids_TK, student_TK = await student(passage, newest, width)
    if passage.teacher_prompt is None:
        return Scores(passage, ids_TK, student_TK, student_TK)
    wanted = [prompt for prompt in (passage.teacher_prompt, passage.placebo_prompt) if prompt is not None]
    at = None if width is None else ids_TK
    told = await asyncio.gather(*(teacher.score(prompt, passage.tokens, at) for prompt in wanted))
    teacher_TK, *placebo = [scores if width is not None else scores[:, None] for scores in told]
    if not placebo:
        return Scores(passage, ids_TK, student_TK, teacher_TK)
    pure_TK = geometric_mixture(np.stack([teacher_TK, placebo[0], student_TK]), np.array([1.0, -1.0, 1.0]), ids_TK)
    return Scores(passage, ids_TK, student_TK, pure_TK, placebo[0])


async def student(passage: Passage, newest: Sampler, width: Width) -> tuple[Ints, Floats]:
    """The ids to distil over and the student's log-probabilities there, [T, K] each."""
    prompt, tokens = passage.prompt, passage.tokens
    own_T1 = np.asarray(tokens, dtype=np.int64)[:, None]
    fresh = passage.sampled if passage.sampled is not None and passage.sampled.origin is newest else None
    if width is None:
        own_T = fresh.logprobs_T if fresh else await newest.logprobs(prompt, tokens)
        return own_T1, own_T[:, None]
    if isinstance(width, range):
        ids_TK = np.tile(np.asarray(width, dtype=np.int64), (len(tokens), 1))
        return ids_TK, await newest.candidate_logprobs(prompt, tokens, ids_TK)
    if fresh and fresh.candidates is not None and fresh.candidates[0].shape[1] >= width:
        ids_TK, top_TK, own_T = fresh.candidates[0][:, :width], fresh.candidates[1][:, :width], fresh.logprobs_T
        return with_own(ids_TK, top_TK, own_T1, own_T)
    ids_TK, top_TK = await newest.top_logprobs(prompt, tokens, width)
    if (ids_TK == own_T1).any(axis=1).all():
        return ids_TK, top_TK
    return with_own(ids_TK, top_TK, own_T1, await newest.logprobs(prompt, tokens))


def with_own(ids_TK: Ints, top_TK: Floats, own_T1: Ints, own_T: Floats) -> tuple[Ints, Floats]:
    """The least likely candidate gives way to the token itself wherever that is not among them."""
    missing_T = ~(ids_TK == own_T1).any(axis=1)
    ids_TK, top_TK = ids_TK.copy(), top_TK.copy()
    ids_TK[missing_T, -1], top_TK[missing_T, -1] = own_T1[missing_T, 0], own_T[missing_T]
    return ids_TK, top_TK


def _siblings(lesson: Lesson, lessons: Sequence[Lesson]) -> list[Lesson]:
    """The rewarded lessons on the same prompt, this one among them; none when it has no reward itself."""
    if lesson.reward is None:
        return []
    prompt = lesson.turn.completion.prompt
    return [other for other in lessons if other.reward is not None and other.turn.completion.prompt == prompt]


def _advantage(lesson: Lesson, siblings: Sequence[Lesson]) -> float:
    if lesson.reward is None:
        return 0.0
    return lesson.reward - float(np.mean([sibling.reward for sibling in siblings]))

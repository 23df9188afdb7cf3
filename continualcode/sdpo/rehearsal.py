"""What must not be unlearned while something new is: earlier lessons and approved turns. Knows nothing of models.

A lesson is rehearsed towards the distributions its teacher gave then, an approved turn towards those it was sampled
from, so that at the weights they were kept at there is nothing to correct, and after a step only what it moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from continualcode.protocols import Renderer, Sampler
from continualcode.sdpo.scoring import Passage, Scores, Width, student, with_own
from continualcode.types import Conversation, Floats, Message, Tokens, Turn

MOST = 100
"""Candidates remembered per position, so that whole vocabularies are not."""
BEGINNING = 32
"""Tokens of an approved turn that are rehearsed: they hold the tool and its first argument, and half the cost."""


Exchange: TypeAlias = tuple[Conversation, Message]


class Rehearsal:
    """The newest `limit` lessons' passages and as many approved turns, each with its target distributions, beside
    `ordinary` conversations and replies."""

    def __init__(self, renderer: Renderer, ordinary: Sequence[Exchange] = (), limit: int = 32) -> None:
        self._renderer, self._limit = renderer, limit
        self._ordinary: list[Scores | Exchange] = list(ordinary)
        self._lessons: list[Scores] = []
        self._approved: list[Scores] = []

    def keep_turn(self, turn: Turn) -> None:
        """An approved turn, with the candidates that came with the sample, or its own tokens alone."""
        completion = turn.completion
        if not completion.tokens or completion.temperature != 1.0:
            return
        ids_TK, target_TK = np.asarray(completion.tokens, np.int64)[:, None], completion.logprobs_T[:, None]
        if completion.candidates is not None:
            ids_TK, target_TK = with_own(*completion.candidates, ids_TK, completion.logprobs_T)
        begun = slice(BEGINNING)
        passage = Passage("kept", completion.prompt, completion.tokens[begun])
        self._approved.append(Scores(passage, ids_TK[begun], target_TK[begun], target_TK[begun]))
        del self._approved[: -self._limit]

    def keep_lesson(self, scored: Sequence[Scores]) -> None:
        """A lesson's passages, as they were scored before its first step."""
        told = [scores for scores in scored if scores.passage.teacher_prompt is not None]
        kept = [_remembered(scores) for scores in told]
        newer = {s.passage.tokens for s in kept}
        self._lessons = [s for s in self._lessons if s.passage.tokens not in newer] + kept
        del self._lessons[: -self._limit]

    async def draw(
        self, count: int, seed: int, first: Sampler, width: Width, besides: Sequence[Scores] = ()
    ) -> list[Scores]:
        """At most `count`, half of them lessons and half approved turns where there are enough of each; nothing of
        `besides`. An ordinary reply is scored by the `first` policy when it is drawn for the first time."""
        rng = np.random.default_rng(seed)
        known = {(scores.passage.prompt, scores.passage.tokens) for scores in besides}
        lessons = [s for s in self._lessons if (s.passage.prompt, s.passage.tokens) not in known]
        approved = [*self._approved, *self._ordinary]
        rng.shuffle(lessons)
        rng.shuffle(approved)
        of_lessons = min(len(lessons), max((count + 1) // 2, count - len(approved)))
        drawn = lessons[:of_lessons]
        for each in approved[: count - of_lessons]:
            drawn.append(each if isinstance(each, Scores) else await self._scored(each, first, width))
        return drawn

    async def _scored(self, ordinary: Exchange, first: Sampler, width: Width) -> Scores:
        passage = Passage("kept", *beginning_of(ordinary, self._renderer))
        ids_TK, policy_TK = await student(passage, first, MOST if isinstance(width, range) else width)
        scores = Scores(passage, ids_TK, policy_TK, policy_TK)
        self._ordinary = [scores if each is ordinary else each for each in self._ordinary]
        return scores


def beginning_of(ordinary: Exchange, renderer: Renderer) -> tuple[Tokens, Tokens]:
    """Its prompt, and as much of the reply as is rehearsed."""
    return renderer.prompt(ordinary[0]), renderer.completion(ordinary[1])[:BEGINNING]


def rescored(scored: Sequence[Scores], student: Sequence[Floats]) -> list[Scores]:
    """The same passages with the student's log-probabilities of now."""
    return [replace(scores, student_TK=now_TK) for scores, now_TK in zip(scored, student, strict=True)]


def _remembered(scores: Scores) -> Scores:
    """At the teacher's `MOST` most likely ids and the token itself."""
    passage = Passage("rehearsed", scores.passage.prompt, scores.passage.tokens)
    if scores.ids_TK.shape[1] <= MOST:
        return Scores(passage, scores.ids_TK, scores.student_TK, scores.teacher_TK)
    best_TK = np.argpartition(-scores.teacher_TK, MOST, axis=1)[:, :MOST]
    ids_TK = np.take_along_axis(scores.ids_TK, best_TK, axis=1)
    teacher_TK = np.take_along_axis(scores.teacher_TK, best_TK, axis=1)
    own_T1 = np.asarray(passage.tokens, np.int64)[:, None]
    ids_TK, teacher_TK = with_own(ids_TK, teacher_TK, own_T1, scores.teacher_T)
    return Scores(passage, ids_TK, teacher_TK, teacher_TK)

"""SDPOTrainer: corrections in, optimiser steps out. Knows the Backend protocol and nothing of agents or terminals.

Self-Distillation Policy Optimization (Hübotter et al., arXiv 2601.20802): the same model, shown the feedback, scores
the tokens it sampled without it; the gap per token is the training signal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from continualcode.errors import CapabilityError, ConfigError
from continualcode.protocols import Backend, NullSpaced, Renderer, Teacher
from continualcode.sdpo import objective
from continualcode.sdpo.attempt import Attempt
from continualcode.sdpo.rehearsal import Rehearsal, beginning_of, rescored
from continualcode.sdpo.reprompt import DEFAULT_TEMPLATE, RepromptTemplate
from continualcode.sdpo.scoring import Rendering, Scores, Width, score
from continualcode.sdpo.settings import SDPOConfig
from continualcode.sdpo.teachers import NEED_FROZEN, TEACHERS
from continualcode.types import (
    Capabilities,
    Conversation,
    Floats,
    Lesson,
    Message,
    TrainReport,
    Turn,
)


class SDPOTrainer:
    """A Learner: `await trainer.learn([Lesson(turn, "why it was wrong")])` moves the backend's weights once.

    A turn comes from `Policy(backend, renderer, Sampling(candidates=trainer.topk)).propose(conversation)`, or is
    `Turn(conversation, reply, completion)` of a completion that a sampler of this model made at temperature 1.

    Args:
        backend: holds the weights; afterwards `backend.sampler` is the new ones.
        renderer: renders the teacher's context into tokens.
        config: see SDPOConfig.
        teacher: overrides `config.teacher_regularization`.
        template: the texts that tell the teacher what went wrong. What it will be shown is
            `teacher_context(lesson, template)`: where the model does not do what that asks, nothing can be distilled.
        ordinary: conversations and replies that learning should leave as likely as they are, by the weights the backend
            was made with: rehearsed beside the turns that `rehearse` is told of, or with `null_space` kept clear of.

    `notes` says, for a person, where the backend made the trainer take less than was asked for.

    Raises ConfigError for an unknown teacher, CapabilityError where the backend lacks what the config needs.
    """

    def __init__(
        self,
        backend: Backend,
        renderer: Renderer,
        config: SDPOConfig = SDPOConfig(),
        *,
        teacher: Teacher | None = None,
        template: RepromptTemplate = DEFAULT_TEMPLATE,
        ordinary: Sequence[tuple[Conversation, Message]] = (),
    ) -> None:
        self.backend, self.renderer, self.template = backend, renderer, template
        _refuse_moving_snapshots(config, backend.capabilities)
        if config.null_space and not (backend.capabilities.null_space and isinstance(backend, NullSpaced)):
            raise CapabilityError(
                "only the embedded engine trains in the null space of ordinary turns; set null_space=False"
            )
        self.teacher = teacher or _teacher_named(config, backend)
        self._width, self.notes = _candidates_to_use(config, backend)
        self.config = config if self._width is not None else replace(config, distillation_topk=None)
        self._rehearsal = Rehearsal(renderer, () if config.null_space else ordinary)
        self._apart_from = ordinary if config.null_space else ()
        self.steps = 0

    @property
    def topk(self) -> int:
        """Candidates wanted with every sample, so that they need not be asked for again; 0: none."""
        return self._width if isinstance(self._width, int) else 0

    def rehearse(self, turn: Turn) -> None:
        """An approved turn: mixed into later steps where `config.rehearse` says so, and what drift is measured on."""
        if self.config.rehearse:
            self._rehearsal.keep_turn(turn)

    async def learn(self, lessons: Sequence[Lesson]) -> TrainReport | None:
        """At most `max_inner_steps` optimiser steps on all lessons together; None when none says anything to learn from.

        The loss is the mean over all their tokens (token-mean) of rho_t D_t, the teacher scored once, before the first
        step. Nothing is trained where that gap is below `min_gap`: the report's `outcome` says why. Raises
        BackendError, with the weights as they were unless a step before had succeeded, when the backend cannot do it;
        ConfigError for a completion not sampled at temperature 1.
        """
        return await (await self.begin(lessons))

    async def begin(self, lessons: Sequence[Lesson]) -> Awaitable[TrainReport | None]:
        """`learn` in two parts: the sampler is final when this returns, and what it returns is yet to be awaited. It
        scores what was learned once more, for the report, which the next proposal need not wait for."""
        started = time.perf_counter()
        able = self.backend.capabilities
        _refuse_moving_snapshots(self.config, able)
        passages = Rendering(self.renderer, self.config, self.template, able.context_length).passages(lessons)
        if not passages:
            return _known(None)
        before = self.backend.sampler
        new = list(await asyncio.gather(*(score(p, before, self.teacher, self._width) for p in passages)))
        attempt = Attempt(new, self.config)
        if (known := attempt.nothing_to_learn()) is not None:
            return _known(attempt.report(known, self.steps, time.perf_counter() - started))
        # What a denial limited to one step moves is pulled back when the lesson is completed, and costs no waiting here.
        if attempt.most > 1 or self.config.max_inner_steps == 1:
            attempt.rehearse(await self._rehearsed(new))
        await self._take_steps(attempt)
        await self.teacher.update()
        if self.config.rehearse:
            self._rehearsal.keep_lesson(new)
        return self._reported(attempt, started)

    async def _reported(self, attempt: Attempt, started: float) -> TrainReport:
        if attempt.outcome is None:
            attempt.scored(await self._now(attempt))
        return attempt.report(attempt.outcome, self.steps, time.perf_counter() - started)

    async def _rehearsed(self, besides: Sequence[Scores]) -> list[Scores]:
        """What is mixed into the steps, scored at the weights before them."""
        first = self.backend.initial_sampler
        drawn = await self._rehearsal.draw(self.config.rehearse, self.steps, first, self._width, besides)
        return rescored(drawn, await self.backend.forward(objective.examples(drawn, self.config))) if drawn else []

    async def _take_steps(self, attempt: Attempt) -> None:
        """Until the correction has taken, or may go no further; not scored again after the last step that it may take.
        The sampler is the newest weights in the end, always."""
        fresh = True
        await self._into_null_space()
        try:
            while attempt.outcome is None:
                batch = objective.examples(attempt.worth_a_step, self.config)
                last = attempt.steps + 1 == attempt.most
                attempt.metrics = await self.backend.train_step(
                    batch, learning_rate=self.config.learning_rate, refresh=last
                )
                fresh = last
                self.steps, attempt.steps = self.steps + 1, attempt.steps + 1
                if last:
                    return
                attempt.scored(await self._now(attempt))
        finally:
            if not fresh:
                await self.backend.refresh()

    async def _into_null_space(self) -> None:
        if self._apart_from and isinstance(self.backend, NullSpaced):
            begun = (beginning_of(turn, self.renderer) for turn in self._apart_from)
            await self.backend.into_null_space([prompt + reply for prompt, reply in begun])
            self._apart_from = ()

    async def _now(self, attempt: Attempt) -> list[Floats]:
        return await self.backend.forward(objective.examples(attempt.now, self.config))


async def _known(report: TrainReport | None) -> TrainReport | None:
    """Waits for nothing."""
    return report


def _teacher_named(config: SDPOConfig, backend: Backend) -> Teacher:
    if (name := config.teacher_regularization) not in TEACHERS:
        raise ConfigError(f"no teacher '{name}'; there are: {', '.join(sorted(TEACHERS))}")
    return TEACHERS[name](backend, config.teacher_update_rate)


def _refuse_moving_snapshots(config: SDPOConfig, able: Capabilities) -> None:
    """A service's samplers may turn out to follow the live weights only after its first step."""
    if not able.frozen_snapshots and config.teacher_regularization in NEED_FROZEN:
        raise CapabilityError(
            f"teacher_regularization={config.teacher_regularization} scores with older weights, and this service's "
            "samplers follow the newest: use none"
        )


def _candidates_to_use(config: SDPOConfig, backend: Backend) -> tuple[Width, tuple[str, ...]]:
    """How many candidates are distilled over here, and what a person should know about it."""
    able, wanted = backend.capabilities, config.distillation_topk
    if wanted is None:
        return None, ()
    if wanted == "all":
        if able.vocabulary is None or not (able.candidate_logprobs and able.weighted_candidates):
            raise CapabilityError(
                "this backend does not score the whole vocabulary: set distillation_topk to a number "
                f"({able.distillation_topk or 'or None'} at most here); the embedded engine does"
            )
        return range(able.vocabulary), ()
    if able.distillation_topk >= wanted:
        return wanted, ()
    if able.distillation_topk > 0:
        most = able.distillation_topk
        return most, (f"distilling over {most} candidates per token, the most this backend gives",)
    if config.alpha != 1.0:
        raise CapabilityError(
            "this backend gives no candidate log-probabilities, so only the sampled token can be distilled on: "
            "set distillation_topk=None and alpha=1"
        )
    return None, ("distilling on the sampled token alone: this backend gives no candidate log-probabilities",)

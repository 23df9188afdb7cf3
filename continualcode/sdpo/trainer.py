"""SDPOTrainer: corrections in, one optimiser step out. Knows the Backend protocol and nothing of agents or terminals.

Self-Distillation Policy Optimization (Hübotter et al., arXiv 2601.20802): the same model, shown the feedback, scores
the tokens it sampled without it; the gap per token is the training signal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from continualcode.errors import CapabilityError, ConfigError
from continualcode.protocols import Backend, Renderer, Teacher
from continualcode.sdpo.divergence import Distilled, distill_candidates, distill_sampled, importance_ratio
from continualcode.sdpo.reprompt import DEFAULT_TEMPLATE, RepromptTemplate, teacher_context
from continualcode.sdpo.teachers import TEACHERS
from continualcode.types import Example, Floats, Ints, Lesson, Tokens, TokenView, TrainReport


@dataclass(frozen=True, slots=True)
class SDPOConfig:
    """Names and meaning as in the paper's reference implementation. Raises ConfigError on values that cannot work."""

    learning_rate: float = 1e-4
    alpha: float = 0.5
    """0 forward KL(q||p), 1 reverse KL(p||q), between: generalised Jensen-Shannon. Sampled-token mode is reverse."""
    distillation_topk: int | None = 20
    """K candidates per position; None: the sampled token alone. Capped, with a note, at what the backend can give."""
    distillation_add_tail: bool = True
    """One bucket for the rest of the vocabulary; otherwise the K are renormalised."""
    is_clip: float | None = 2.0
    """Upper bound of the importance ratio p_now / p_sampling; None: no importance weighting."""
    teacher_regularization: str = "none"
    """Which teacher: "none" (newest weights), "frozen" (initial), "ema", "trust-region", or one a plug-in registers."""
    teacher_update_rate: float = 0.05
    """r of "ema" and "trust-region": 0 frozen, 1 newest."""

    def __post_init__(self) -> None:
        checks = {
            f"learning_rate must be > 0, not {self.learning_rate}": self.learning_rate > 0,
            f"alpha must lie in [0, 1], not {self.alpha}": 0 <= self.alpha <= 1,
            f"distillation_topk must be at least 1 or None, not {self.distillation_topk}": (
                self.distillation_topk is None or self.distillation_topk >= 1
            ),
            f"is_clip must be > 0 or None, not {self.is_clip}": self.is_clip is None or self.is_clip > 0,
            f"teacher_update_rate must lie in [0, 1], not {self.teacher_update_rate}": 0
            <= self.teacher_update_rate
            <= 1,
        }
        for message, holds in checks.items():
            if not holds:
                raise ConfigError(message)


class SDPOTrainer:
    """A Learner: `await trainer.learn([Lesson(turn, "why it was wrong")])` is one optimiser step on the backend.

    Args:
        backend: holds the weights; afterwards `backend.sampler` is the new ones.
        renderer: renders the teacher's context into tokens.
        config: see SDPOConfig.
        teacher: overrides `config.teacher_regularization`.
        template: the texts that tell the teacher what went wrong.

    `notes` says, for a person, where the backend made the trainer take less than was asked for.

    Raises ConfigError for an unknown teacher, CapabilityError where alpha needs candidates the backend cannot give.
    """

    def __init__(
        self,
        backend: Backend,
        renderer: Renderer,
        config: SDPOConfig = SDPOConfig(),
        *,
        teacher: Teacher | None = None,
        template: RepromptTemplate = DEFAULT_TEMPLATE,
    ) -> None:
        self.backend, self.renderer, self.config, self.template = backend, renderer, config, template
        self.teacher = teacher or _teacher_named(config, backend)
        self.topk, self.notes = _candidates_to_use(config, backend)
        self.steps = 0

    async def learn(self, lessons: Sequence[Lesson]) -> TrainReport | None:
        """One optimiser step on all lessons together; None when none of them says anything to learn from.

        The loss is the mean over all their tokens (token-mean) of rho_t D_t. Raises BackendError, with the weights as
        they were, when the backend cannot do it; ConfigError for a completion not sampled at temperature 1.
        """
        started = time.perf_counter()
        tasks = [task for lesson in lessons if (task := self._task_of(lesson)) is not None]
        if not tasks:
            return None
        scored = await asyncio.gather(*(self._score(task) for task in tasks))
        distilled = [self._distill(score) for score in scored]
        total = sum(len(score.task.tokens) for score in scored)
        examples = [_example(score, part, total) for score, part in zip(scored, distilled, strict=True)]
        metrics = await self.backend.train_step(examples, learning_rate=self.config.learning_rate)
        self.steps += 1
        await self.teacher.update()
        newest = self.backend.sampler
        after = await asyncio.gather(*(newest.logprobs(task.prompt, task.tokens) for task in tasks))
        loss = sum(
            float((score.ratio_T * part.divergence_T).sum()) for score, part in zip(scored, distilled, strict=True)
        )
        return TrainReport(
            step=self.steps,
            lessons=len(tasks),
            tokens=total,
            loss=loss / total,
            seconds=time.perf_counter() - started,
            views=tuple(
                TokenView(s.task.tokens, s.student_T, s.teacher_T, after_T)
                for s, after_T in zip(scored, after, strict=True)
            ),
            metrics=metrics,
        )

    def _task_of(self, lesson: Lesson) -> _Task | None:
        completion = lesson.turn.completion
        if completion.temperature != 1.0:
            raise ConfigError(
                f"this completion was sampled at temperature {completion.temperature}; its tokens are not the policy's own. "
                "Sample at temperature 1 to train"
            )
        context = teacher_context(lesson, self.template)
        if context is None or not completion.tokens:
            return None
        return _Task(lesson, completion.prompt, completion.tokens, self.renderer.prompt(context))

    async def _score(self, task: _Task) -> _Scored:
        """Student and teacher at the same ids. Column 0 is the sampled token; the candidates follow in top-K mode."""
        completion, newest = task.lesson.turn.completion, self.backend.sampler
        fresh = completion.origin is newest
        if self.topk is None:
            now = _known(completion.logprobs_T) if fresh else newest.logprobs(task.prompt, task.tokens)
            student_T, teacher_T = await asyncio.gather(now, self.teacher.score(task.teacher_prompt, task.tokens, None))
            return _Scored(task, student_T, teacher_T, self._ratio(student_T, completion.logprobs_T))
        if fresh and completion.candidates is not None and completion.candidates[0].shape[1] >= self.topk:
            ids_TK, student_TK = completion.candidates[0][:, : self.topk], completion.candidates[1][:, : self.topk]
            student_T = completion.logprobs_T
        else:
            (ids_TK, student_TK), student_T = await asyncio.gather(
                newest.top_logprobs(task.prompt, task.tokens, self.topk), newest.logprobs(task.prompt, task.tokens)
            )
        columns = np.concatenate([np.asarray(task.tokens, dtype=np.int64)[:, None], ids_TK], axis=1)
        teacher = await self.teacher.score(task.teacher_prompt, task.tokens, columns)
        ratio_T = self._ratio(student_T, completion.logprobs_T)
        return _Scored(task, student_T, teacher[:, 0], ratio_T, _Candidates(ids_TK, student_TK, teacher[:, 1:]))

    def _ratio(self, now_T: Floats, sampling_T: Floats) -> Floats:
        return importance_ratio(now_T, sampling_T, self.config.is_clip)

    def _distill(self, score: _Scored) -> Distilled:
        if (found := score.candidates) is None:
            return distill_sampled(score.student_T, score.teacher_T)
        return distill_candidates(
            found.student_TK, found.teacher_TK, alpha=self.config.alpha, add_tail=self.config.distillation_add_tail
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    lesson: Lesson
    prompt: Tokens
    tokens: Tokens
    teacher_prompt: Tokens


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    ids_TK: Ints
    student_TK: Floats
    teacher_TK: Floats


@dataclass(frozen=True, slots=True, eq=False)
class _Scored:
    task: _Task
    student_T: Floats
    teacher_T: Floats
    ratio_T: Floats
    candidates: _Candidates | None = None


async def _known(logprobs_T: Floats) -> Floats:
    return logprobs_T


def _example(score: _Scored, distilled: Distilled, total: int) -> Example:
    task = score.task
    ids = np.asarray(task.tokens, dtype=np.int64)[:, None] if score.candidates is None else score.candidates.ids_TK
    return Example(task.prompt, task.tokens, ids, distilled.weights_TK * score.ratio_T[:, None] / total)


def _teacher_named(config: SDPOConfig, backend: Backend) -> Teacher:
    if (name := config.teacher_regularization) not in TEACHERS:
        raise ConfigError(f"no teacher '{name}'; there are: {', '.join(sorted(TEACHERS))}")
    return TEACHERS[name](backend, config.teacher_update_rate)


def _candidates_to_use(config: SDPOConfig, backend: Backend) -> tuple[int | None, tuple[str, ...]]:
    """How many candidates are distilled over here, and what a person should know about it."""
    if config.distillation_topk is None:
        if config.alpha != 1.0:
            raise ConfigError(f"the sampled token alone estimates the reverse KL: alpha must be 1, not {config.alpha}")
        return None, ()
    able = backend.capabilities.distillation_topk
    if able >= config.distillation_topk:
        return config.distillation_topk, ()
    if able > 0:
        return able, (f"distilling over {able} candidates per token, the most this backend gives",)
    if config.alpha != 1.0:
        raise CapabilityError(
            "this backend gives no candidate log-probabilities, so only the sampled token can be distilled on: "
            "set distillation_topk=None and alpha=1"
        )
    return None, ("distilling on the sampled token alone: this backend gives no candidate log-probabilities",)

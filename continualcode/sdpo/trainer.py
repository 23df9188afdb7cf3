"""SDPOTrainer: corrections in, one optimiser step out. Knows the Backend protocol and nothing of agents or terminals.

Self-Distillation Policy Optimization (Hübotter et al., arXiv 2601.20802): the same model, shown the feedback, scores
the tokens it sampled without it; the gap per token is the training signal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from continualcode.errors import CapabilityError, ConfigError
from continualcode.protocols import Backend, Renderer, Teacher
from continualcode.sdpo.divergence import Distilled, distill_candidates, distill_sampled, importance_ratio
from continualcode.sdpo.reprompt import DEFAULT_TEMPLATE, RepromptTemplate
from continualcode.sdpo.scoring import Scores, passages_of, score
from continualcode.sdpo.teachers import TEACHERS
from continualcode.types import Example, Floats, Lesson, TokenView, TrainReport


@dataclass(frozen=True, slots=True)
class SDPOConfig:
    """Names and meaning as in the paper's reference implementation. Raises ConfigError on values that cannot work."""

    learning_rate: float = 1e-4
    alpha: float = 0.0
    """0 forward KL(q||p), 1 reverse KL(p||q), between: generalised Jensen-Shannon. Sampled-token mode is reverse.

    The reference's default is 0.5. Forward KL moved more of a corrected habit in one step wherever it was measured
    (docs/benchmarks.md)."""
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
        passages = [p for lesson in lessons for p in passages_of(lesson, self.renderer, self.template)]
        if not passages:
            return None
        before = self.backend.sampler
        scored = await asyncio.gather(*(score(passage, before, self.teacher, self.topk) for passage in passages))
        parts = [self._distill(scores) for scores in scored]
        total = sum(len(passage.tokens) for passage in passages)
        examples = [_example(*pair, total) for pair in zip(scored, parts, strict=True)]
        metrics = await self.backend.train_step(examples, learning_rate=self.config.learning_rate)
        self.steps += 1
        await self.teacher.update()
        newest = self.backend.sampler
        after = await asyncio.gather(*(newest.logprobs(passage.prompt, passage.tokens) for passage in passages))
        return TrainReport(
            step=self.steps,
            lessons=sum(passage.kind == "rejected" for passage in passages),
            tokens=total,
            loss=sum(float(part.divergence_T.sum()) for part in parts) / total,
            seconds=time.perf_counter() - started,
            views=tuple(_view(scores, after_T) for scores, after_T in zip(scored, after, strict=True)),
            metrics=metrics,
        )

    def _distill(self, scores: Scores) -> Distilled:
        """Divergence and weights, importance ratio included."""
        if self.topk is None:
            part = distill_sampled(scores.student_T, scores.teacher_T)
        else:
            part = distill_candidates(
                scores.student_TK,
                scores.teacher_TK,
                alpha=self.config.alpha,
                add_tail=self.config.distillation_add_tail,
            )
        if (sampled := scores.passage.sampled) is None:
            return part
        ratio_T = importance_ratio(scores.student_T, sampled.logprobs_T, self.config.is_clip)
        return Distilled(part.divergence_T * ratio_T, part.weights_TK * ratio_T[:, None])


def _example(scores: Scores, part: Distilled, total: int) -> Example:
    return Example(scores.passage.prompt, scores.passage.tokens, scores.ids_TK, part.weights_TK / total)


def _view(scores: Scores, after_T: Floats) -> TokenView:
    return TokenView(scores.passage.tokens, scores.student_T, scores.teacher_T, after_T, scores.passage.kind)


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

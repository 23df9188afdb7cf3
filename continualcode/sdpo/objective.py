"""What one optimiser step is taken on: the divergence of every passage, its weights, and how they add up to one loss.

Knows nothing of where the scores come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from continualcode.sdpo.divergence import Distilled, distill_candidates, distill_sampled, importance_ratio
from continualcode.sdpo.scoring import Scores
from continualcode.sdpo.settings import SDPOConfig
from continualcode.types import Example, Floats


def distilled(scores: Scores, config: SDPOConfig) -> Distilled:
    """Divergence [T] of student from teacher and weights [T, K], with importance ratio, skipped tokens and reward."""
    part, ratio_T = _divergence(scores, config), _ratio(scores, config)
    distilled_T = ratio_T.copy()
    if scores.passage.is_new:
        distilled_T[: config.skip_first_tokens] = 0.0
    weights_TK = config.distillation_weight * part.weights_TK * distilled_T[:, None]
    weights_TK[np.arange(len(ratio_T)), scores.own_T] += config.reward_weight * scores.passage.advantage * ratio_T
    return Distilled(part.divergence_T * distilled_T, weights_TK)


def examples(scored: Sequence[Scores], config: SDPOConfig) -> list[Example]:
    """Their weighted cross-entropies add up to the loss: the mean over the new passages by `loss_agg_mode`, and
    `rehearsal_weight` times the same mean over the others."""
    made = []
    constant = max((scores.passage.constant for scores in scored), default=0)
    beginning = next((s.passage.prompt[:constant] for s in scored if s.passage.constant == constant), ())
    for scores in scored:
        passage = scores.passage
        like = [len(s.passage.tokens) for s in scored if s.passage.is_new == passage.is_new]
        per_token = sum(like) if config.loss_agg_mode == "token-mean" else len(like) * len(passage.tokens)
        factor = (1.0 if passage.is_new else config.rehearsal_weight) / per_token
        weights_TK = distilled(scores, config).weights_TK * factor
        shared = constant if passage.prompt[:constant] == beginning else 0
        made.append(Example(passage.prompt, passage.tokens, scores.ids_TK, weights_TK, shared))
    return made


def mean_divergence(scored: Sequence[Scores], config: SDPOConfig) -> float:
    """Nats per token by `loss_agg_mode`, importance ratio included; 0 of nothing."""
    parts = [distilled(scores, config).divergence_T for scores in scored]
    if config.loss_agg_mode == "token-mean":
        return float(np.concatenate(parts).mean()) if parts else 0.0
    return float(np.mean([part.mean() for part in parts])) if parts else 0.0


def gap(scores: Scores, config: SDPOConfig) -> float:
    """Nats between teacher and student over a whole completion; 0 without a teacher."""
    return float(np.abs(_divergence(scores, config).divergence_T).sum())


def gaps(scored: Sequence[Scores], config: SDPOConfig) -> list[float]:
    """The gap of each that has a teacher."""
    return [gap(scores, config) for scores in scored if scores.passage.teacher_prompt is not None]


def drift(before: Sequence[Floats], now: Sequence[Scores]) -> float:
    """KL(before || now) in nats per token on the turns that are kept; 0 of none."""
    parts = []
    for old_TK, scores in zip(before, now, strict=True):
        if scores.passage.kind != "kept":
            continue
        parts.append(distill_candidates(scores.student_TK, old_TK, alpha=0.0, add_tail=True).divergence_T)
    return float(np.concatenate(parts).mean()) if parts else 0.0


def _divergence(scores: Scores, config: SDPOConfig) -> Distilled:
    if config.distillation_topk is None:
        part = distill_sampled(scores.student_T, scores.teacher_T)
        if not config.center_advantages:
            return part
        return Distilled(part.divergence_T, part.weights_TK - part.weights_TK.mean())
    tail = config.distillation_add_tail and config.distillation_topk != "all"
    return distill_candidates(scores.student_TK, scores.teacher_TK, alpha=config.alpha, add_tail=tail)


def _ratio(scores: Scores, config: SDPOConfig) -> Floats:
    if (sampled := scores.passage.sampled) is None:
        return np.ones(len(scores.passage.tokens))
    return importance_ratio(scores.student_T, sampled.logprobs_T, config.is_clip)

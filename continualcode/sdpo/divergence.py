"""What a lesson trains on: weights per token such that one weighted cross-entropy call has SDPO's exact gradient.

Knows nothing of models: numpy in, numpy out. Student p, teacher q (detached), sampled tokens y. The loss is the mean
over positions of rho_t D_t (SDPO, arXiv 2601.20802, section 3; the reference's `alpha`, `add_tail` and `is_clip`):

    alpha 0      D = KL(q || p)                                     forward
    alpha 1      D = KL(p || q)                                     reverse
    between      D = (1 - alpha) KL(p || m) + alpha KL(q || m),     m = (1 - alpha) p + alpha q

over K candidate tokens and one bucket for the rest of the vocabulary, or over the K renormalised. A cross-entropy
sum of -w log p has the gradient of the loss at the current weights when w = -dLoss/dlog p, derived here by hand:
with g_b = dD/dp_b per bucket, dD/dlog p_k = p_k (g_k - g_tail), since p_tail = 1 - sum p_k moves along.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from continualcode.types import Floats

TAIL_CLAMP = -1e-7
"""The log of the candidates' mass is kept below this, so that the tail's probability is never 0 (the reference's value)."""


@dataclass(frozen=True, slots=True, eq=False)
class Distilled:
    """One completion's divergence [T] in nats and its cross-entropy weights [T, K] (= -dD/dlog p)."""

    divergence_T: Floats
    weights_TK: Floats


def distill_candidates(student_TK: Floats, teacher_TK: Floats, *, alpha: float, add_tail: bool = True) -> Distilled:
    """Divergence over K candidates per position.

    Args:
        student_TK, teacher_TK: log-probabilities at the same token ids, natural log.
        alpha: 0 forward KL, 1 reverse KL, between: the generalised Jensen-Shannon divergence.
        add_tail: one bucket for the rest of the vocabulary; otherwise both sides are renormalised over the K.
    """
    if student_TK.shape != teacher_TK.shape or student_TK.ndim != 2:
        raise ValueError(f"student {student_TK.shape} and teacher {teacher_TK.shape} must both be [T, K]")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], not {alpha}")
    buckets = _with_tail if add_tail else _renormalised
    log_p, log_q = buckets(student_TK), buckets(teacher_TK)
    p, q = np.exp(log_p), np.exp(log_q)
    if alpha == 0:
        divergence, slope = _sum(q * (log_q - log_p)), -q
    elif alpha == 1:
        divergence, slope = _sum(p * (log_p - log_q)), p * (log_p - log_q + 1)
    else:
        log_m = np.logaddexp(np.log1p(-alpha) + log_p, np.log(alpha) + log_q)
        divergence = (1 - alpha) * _sum(p * (log_p - log_m)) + alpha * _sum(q * (log_q - log_m))
        slope = (1 - alpha) * p * (log_p - log_m)
    return Distilled(divergence, -(_chain_tail if add_tail else _chain_softmax)(slope, log_p, student_TK))


def distill_sampled(student_T: Floats, teacher_T: Floats) -> Distilled:
    """The sampled-token estimate of the reverse KL: D_t = stopgrad(log p - log q) log p, weights = log q - log p. [T, 1]."""
    if student_T.shape != teacher_T.shape or student_T.ndim != 1:
        raise ValueError(f"student {student_T.shape} and teacher {teacher_T.shape} must both be [T]")
    gap_T = student_T - teacher_T
    return Distilled(gap_T, -gap_T[:, None])


def importance_ratio(now_T: Floats, sampling_T: Floats, clip: float | None) -> Floats:
    """rho_t = min(exp(clamp(log p_now - log p_sampling, -20, 20)), clip), detached; all ones when clip is None."""
    if clip is None:
        return np.ones_like(now_T)
    return np.minimum(np.exp(np.clip(now_T - sampling_T, -20.0, 20.0)), clip)


def _with_tail(logprobs_TK: Floats) -> Floats:
    """[T, K + 1]: the candidates, then log(1 - sum of their probabilities)."""
    mass_T1 = np.minimum(_log_mass(logprobs_TK), TAIL_CLAMP)
    return np.concatenate([logprobs_TK, np.log(-np.expm1(mass_T1))], axis=1)


def _renormalised(logprobs_TK: Floats) -> Floats:
    normalised: Floats = logprobs_TK - _log_mass(logprobs_TK)
    return normalised


def _log_mass(logprobs_TK: Floats) -> Floats:
    """[T, 1]: the log of their probabilities' sum; np.logaddexp.reduce takes four to seven times as long."""
    most_T1 = logprobs_TK.max(axis=1, keepdims=True)
    mass_T1: Floats = most_T1 + np.log(np.exp(logprobs_TK - most_T1).sum(axis=1, keepdims=True))
    return mass_T1


def _chain_tail(slope: Floats, log_p: Floats, student_TK: Floats) -> Floats:
    """dD/dlog p_k from the slopes dD/dlog p_b of K buckets and the tail; dlog p_tail/dlog p_k = -p_k / p_tail.

    Where the mass is clamped the tail is constant, so it contributes nothing there (as autograd has it).
    """
    moves_T1 = _log_mass(student_TK) < TAIL_CLAMP
    through_tail = slope[:, -1:] * np.exp(student_TK - log_p[:, -1:])
    chained: Floats = slope[:, :-1] - np.where(moves_T1, through_tail, 0.0)
    return chained


def _chain_softmax(slope: Floats, log_p: Floats, student_TK: Floats) -> Floats:
    """Through the renormalisation: dlog p_b/dlog p_k = [b = k] - p_k."""
    chained: Floats = slope - np.exp(log_p) * slope.sum(axis=1, keepdims=True)
    return chained


def _sum(values_TB: Floats) -> Floats:
    total: Floats = values_TB.sum(axis=1)
    return total

"""The weights are the exact gradient: against torch autograd on the written-out loss, and against cases done by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from continualcode.sdpo import distill_candidates, distill_sampled, importance_ratio

ALPHAS = [0.0, 0.1, 0.5, 0.9, 1.0]


def written_out(student_TK, teacher_TK, alpha, add_tail):
    """The reference's loss in torch, as the paper has it: the distributions, then their divergence [T]."""

    def distribution(logprobs):
        if not add_tail:
            return logprobs - torch.logsumexp(logprobs, dim=1, keepdim=True)
        mass = torch.clamp(torch.logsumexp(logprobs, dim=1, keepdim=True), max=-1e-7)
        return torch.cat([logprobs, torch.log(-torch.expm1(mass))], dim=1)

    log_p, log_q = distribution(student_TK), distribution(teacher_TK)
    p, q = log_p.exp(), log_q.exp()
    if alpha == 0:
        return (q * (log_q - log_p)).sum(1)
    if alpha == 1:
        return (p * (log_p - log_q)).sum(1)
    log_m = torch.log((1 - alpha) * p + alpha * q)
    return (1 - alpha) * (p * (log_p - log_m)).sum(1) + alpha * (q * (log_q - log_m)).sum(1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    length=st.integers(1, 5),
    k=st.integers(1, 6),
    vocabulary=st.integers(7, 30),
    spread=st.floats(0.1, 6.0),
    alpha=st.one_of(st.sampled_from(ALPHAS), st.floats(0.01, 0.99)),
    add_tail=st.booleans(),
)
def test_value_and_gradient_at_the_logits_equal_autograd(seed, length, k, vocabulary, spread, alpha, add_tail):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(length, vocabulary, generator=generator, dtype=torch.float64) * spread
    teacher_logits = torch.randn(length, vocabulary, generator=generator, dtype=torch.float64) * spread
    ids = torch.topk(logits, k, dim=1).indices
    teacher_TK = torch.log_softmax(teacher_logits, 1).gather(1, ids)

    exact = logits.clone().requires_grad_()
    loss_T = written_out(torch.log_softmax(exact, 1).gather(1, ids), teacher_TK, alpha, add_tail)
    loss_T.sum().backward()

    student_TK = torch.log_softmax(logits, 1).gather(1, ids)
    ours = distill_candidates(student_TK.numpy(), teacher_TK.numpy(), alpha=alpha, add_tail=add_tail)
    through = logits.clone().requires_grad_()
    (-torch.from_numpy(ours.weights_TK) * torch.log_softmax(through, 1).gather(1, ids)).sum().backward()

    np.testing.assert_allclose(ours.divergence_T, loss_T.detach().numpy(), atol=1e-5)
    np.testing.assert_allclose(through.grad.numpy(), exact.grad.numpy(), atol=1e-5)


def test_forward_kl_of_two_buckets_by_hand():
    # p = (1/2, tail 1/2), q = (1/4, tail 3/4): KL(q||p) = 1/4 log 1/2 + 3/4 log 3/2; weight = q - q_tail p / p_tail
    found = distill_candidates(np.log([[0.5]]), np.log([[0.25]]), alpha=0.0)
    np.testing.assert_allclose(found.divergence_T, [0.25 * np.log(0.5) + 0.75 * np.log(1.5)], atol=1e-12)
    np.testing.assert_allclose(found.weights_TK, [[0.25 - 0.75 * 0.5 / 0.5]], atol=1e-12)


def test_reverse_kl_of_two_buckets_by_hand():
    # weight = -p (g - g_tail) with g = log p/q: log 2 and log 2/3
    found = distill_candidates(np.log([[0.5]]), np.log([[0.25]]), alpha=1.0)
    np.testing.assert_allclose(found.divergence_T, [0.5 * np.log(2) + 0.5 * np.log(2 / 3)], atol=1e-12)
    np.testing.assert_allclose(found.weights_TK, [[-0.5 * (np.log(2) - np.log(2 / 3))]], atol=1e-12)


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("add_tail", [True, False])
def test_a_teacher_equal_to_the_student_teaches_nothing(alpha, add_tail):
    logprobs_TK = np.log([[0.5, 0.2, 0.1], [0.3, 0.3, 0.3]])
    same = distill_candidates(logprobs_TK, logprobs_TK, alpha=alpha, add_tail=add_tail)
    np.testing.assert_allclose(same.divergence_T, 0, atol=1e-9)
    # forward KL's weights are q_k - q_tail p_k / p_tail: not zero each, but without effect on any logit
    effect = same.weights_TK - np.exp(logprobs_TK) * same.weights_TK.sum(1, keepdims=True)
    np.testing.assert_allclose(effect, 0, atol=1e-6)


def test_the_sampled_token_weighs_log_q_minus_log_p():
    found = distill_sampled(np.array([-1.0, -3.0]), np.array([-2.0, -0.5]))
    np.testing.assert_allclose(found.weights_TK, [[-1.0], [2.5]])
    np.testing.assert_allclose(found.divergence_T, [1.0, -2.5])


@pytest.mark.parametrize("alpha", ALPHAS)
def test_a_candidate_mass_of_one_stays_finite(alpha):
    sure = distill_candidates(np.log([[1.0 - 1e-12]]), np.log([[0.5]]), alpha=alpha)
    assert np.isfinite(sure.divergence_T).all()
    assert np.isfinite(sure.weights_TK).all()


@pytest.mark.parametrize("alpha", ALPHAS)
def test_candidates_far_too_unlikely_for_a_float_are_still_told_apart(alpha):
    near, far = (np.log([[0.7, 0.2, 0.1]]) - away for away in (0.0, 800.0))
    other = np.log([[0.2, 0.5, 0.3]])
    found, same = (distill_candidates(each, other, alpha=alpha, add_tail=False) for each in (far, near))
    np.testing.assert_allclose(found.divergence_T, same.divergence_T, atol=1e-9)
    np.testing.assert_allclose(found.weights_TK, same.weights_TK, atol=1e-9)


def test_the_importance_ratio_is_clipped_and_can_be_off():
    now, then = np.array([-1.0, -1.0, -1.0]), np.array([-1.0, -3.0, -0.5])
    np.testing.assert_allclose(importance_ratio(now, then, 2.0), [1.0, 2.0, np.exp(-0.5)])
    np.testing.assert_allclose(importance_ratio(now, then, None), 1.0)
    assert importance_ratio(np.array([0.0]), np.array([-1e6]), 1e30)[0] == pytest.approx(np.exp(20))


def test_shapes_and_alpha_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match=r"student \(1, 2\) and teacher \(1, 3\)"):
        distill_candidates(np.zeros((1, 2)), np.zeros((1, 3)), alpha=0.5)
    with pytest.raises(ValueError, match="alpha must lie in"):
        distill_candidates(np.zeros((1, 2)), np.zeros((1, 2)), alpha=1.5)
    with pytest.raises(ValueError, match="must both be"):
        distill_sampled(np.zeros(2), np.zeros(3))

"""The loss as a whole against torch autograd on the written-out definition, for every combination of its choices."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from continualcode.sdpo import SDPOConfig, objective
from continualcode.sdpo.scoring import Passage, Scores
from continualcode.types import Completion

V = 7
TAIL_CLAMP = -1e-7


def divergence(log_p, log_q, alpha):
    """D [T] over whatever buckets the two are normalised over."""
    p, q = log_p.exp(), log_q.exp()
    if alpha == 0:
        return (q * (log_q - log_p)).sum(-1)
    if alpha == 1:
        return (p * (log_p - log_q)).sum(-1)
    log_m = ((1 - alpha) * p + alpha * q).log()
    return (1 - alpha) * (p * (log_p - log_m)).sum(-1) + alpha * (q * (log_q - log_m)).sum(-1)


def buckets(log_TV, ids_TK, tail):
    chosen = log_TV.gather(-1, ids_TK)
    mass = chosen.logsumexp(-1, keepdim=True)
    if not tail:
        return chosen - mass
    return torch.cat([chosen, torch.log(-torch.expm1(mass.clamp(max=TAIL_CLAMP)))], -1)


def random_case(rng, lengths, topk, kinds):
    """Logits of student and teacher, and the passages' scores at candidates that hold the sampled token."""
    logits, scored = [], []
    for length, kind in zip(lengths, kinds, strict=True):
        student = torch.tensor(rng.normal(size=(length, V)) * 2, requires_grad=True)
        teacher = torch.tensor(rng.normal(size=(length, V)) * 2).log_softmax(-1)
        tokens = rng.integers(V, size=length)
        k = {None: 1, "all": V}.get(topk, topk)
        order = np.argsort(rng.random((length, V)) + (np.arange(V) == tokens[:, None]) * -9, axis=1)
        ids = np.tile(np.arange(V), (length, 1)) if topk == "all" else order[:, :k]
        log_p = student.detach().log_softmax(-1)
        sampled_T = log_p.gather(-1, torch.tensor(tokens)[:, None])[:, 0].numpy() + rng.normal(size=length) * 0.5
        completion = Completion((1,), tuple(tokens.tolist()), sampled_T) if kind == "rejected" else None
        reward = float(rng.normal()) if kind == "rejected" else 0.0
        passage = Passage(kind, (1,), tuple(tokens.tolist()), (2,), completion, None, reward)
        at = torch.tensor(ids)
        scored.append(Scores(passage, ids, log_p.gather(-1, at).numpy(), teacher.gather(-1, at).numpy()))
        logits.append((student, teacher))
    return logits, scored


def written_out(logits, scored, config):
    """The loss by its definition. Importance ratios and the sampled-token gap are detached."""
    groups = {True: [], False: []}
    for (student, teacher), scores in zip(logits, scored, strict=True):
        log_TV, ids = student.log_softmax(-1), torch.tensor(scores.ids_TK)
        own = torch.tensor(scores.passage.tokens)[:, None]
        log_own, teacher_own = log_TV.gather(-1, own)[:, 0], teacher.gather(-1, own)[:, 0]
        if config.distillation_topk is None:
            advantage = (teacher_own - log_own).detach()
            if config.center_advantages:
                advantage = advantage - advantage.mean()
            loss_T = -advantage * log_own
        else:
            tail = config.distillation_add_tail and config.distillation_topk != "all"
            loss_T = divergence(buckets(log_TV, ids, tail), buckets(teacher, ids, tail), config.alpha)
        ratio_T = torch.ones(len(own))
        if scores.passage.sampled is not None and config.is_clip is not None:
            sampled_T = torch.tensor(scores.passage.sampled.logprobs_T)
            ratio_T = (log_own.detach() - sampled_T).clamp(-20, 20).exp().clamp(max=config.is_clip)
        kept_T = torch.ones(len(own))
        if scores.passage.is_new:
            kept_T[: config.skip_first_tokens] = 0
        loss_T = config.distillation_weight * ratio_T * kept_T * loss_T
        loss_T = loss_T - config.reward_weight * scores.passage.advantage * ratio_T * log_own
        groups[scores.passage.is_new].append(loss_T)

    def aggregated(losses):
        if not losses:
            return torch.tensor(0.0)
        if config.loss_agg_mode == "token-mean":
            return torch.cat(losses).mean()
        return torch.stack([loss.mean() for loss in losses]).mean()

    return aggregated(groups[True]) + config.rehearsal_weight * aggregated(groups[False])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    topk=st.sampled_from([None, 1, 2, 4, "all"]),
    alpha=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    tail=st.booleans(),
    clip=st.sampled_from([None, 0.8, 2.0]),
    mode=st.sampled_from(["token-mean", "seq-mean-token-mean"]),
    skip=st.integers(0, 2),
    rewarded=st.sampled_from([(1.0, 0.0), (1.0, 0.7), (0.0, 1.0)]),
    center=st.booleans(),
    data=st.data(),
)
def test_the_gradient_of_one_weighted_cross_entropy_is_that_of_the_whole_loss(
    seed, lengths, topk, alpha, tail, clip, mode, skip, rewarded, center, data
):
    config = SDPOConfig(
        distillation_topk=topk,
        alpha=1.0 if topk is None else alpha,
        distillation_add_tail=tail,
        is_clip=clip,
        loss_agg_mode=mode,
        skip_first_tokens=skip,
        distillation_weight=rewarded[0],
        reward_weight=rewarded[1],
        center_advantages=center and topk is None,
        rehearsal_weight=0.6,
    )
    kinds = data.draw(
        st.lists(
            st.sampled_from(["rejected", "approved", "rehearsed", "kept"]), min_size=len(lengths), max_size=len(lengths)
        )
    )
    logits, scored = random_case(np.random.default_rng(seed), lengths, topk, kinds)
    loss = written_out(logits, scored, config)
    expected = torch.autograd.grad(loss, [student for student, _ in logits], allow_unused=True)
    for (student, _), example, gradient in zip(logits, objective.examples(scored, config), expected, strict=True):
        log_TV = student.log_softmax(-1)
        weighted = -(torch.tensor(example.weights_TK) * log_TV.gather(-1, torch.tensor(example.ids_TK))).sum()
        [found] = torch.autograd.grad(weighted, [student])
        wanted = torch.zeros_like(found) if gradient is None else gradient
        np.testing.assert_allclose(found.numpy(), wanted.numpy(), atol=1e-5)


def test_the_mean_over_sequences_weighs_a_short_completion_like_a_long_one():
    _, scored = random_case(np.random.default_rng(0), [1, 4], 3, ["approved", "approved"])
    short, long = (objective.distilled(s, SDPOConfig()).divergence_T for s in scored)
    tokens, sequences = (SDPOConfig(loss_agg_mode=mode) for mode in ("token-mean", "seq-mean-token-mean"))
    assert objective.mean_divergence(scored, tokens) == pytest.approx((short.sum() + long.sum()) / 5)
    assert objective.mean_divergence(scored, sequences) == pytest.approx((short.mean() + long.mean()) / 2)


def test_drift_is_the_kl_from_before_on_kept_turns_alone():
    _, scored = random_case(np.random.default_rng(1), [3, 2], 4, ["kept", "rehearsed"])
    before = [scored[0].teacher_TK, scored[1].teacher_TK]
    p, q = (torch.tensor(values) for values in (scored[0].student_TK, scored[0].teacher_TK))
    ids = torch.arange(4).expand(3, 4)
    expected = divergence(buckets(p, ids, True), buckets(q, ids, True), 0.0).mean()
    assert objective.drift(before, scored) == pytest.approx(float(expected))
    assert objective.drift([s.student_TK for s in scored], scored) == 0

"""Teachers as mixtures: against the logit line written out, and against an EMA of a model that is linear in its weights."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from continualcode.sdpo import EMATeacher, FrozenTeacher, TrustRegionTeacher
from continualcode.sdpo.mixture import Snapshot, average_in, geometric_mixture
from continualcode.testing import VOCABULARY, ScriptedBackend
from continualcode.types import Example

PROMPT, TOKENS = (10, 20), (30, 40, 50)
EVERY_ID = np.tile(np.arange(VOCABULARY), (len(TOKENS), 1))


async def push(backend, token):
    """One step that makes `token` likelier at every position."""
    ids = np.full((len(TOKENS), 1), token)
    await backend.train_step([Example(PROMPT, TOKENS, ids, np.ones(ids.shape))], learning_rate=1e-4)


def log_softmax(logits):
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


async def test_trust_region_is_the_line_between_the_logits():
    backend = ScriptedBackend()
    teacher = TrustRegionTeacher(backend, 0.3)
    initial = backend.sampler.forward(PROMPT, TOKENS)[2]
    np.testing.assert_allclose(await teacher.score(PROMPT, TOKENS, EVERY_ID), initial, atol=1e-9)
    for token in (65, 66, 65):
        await push(backend, token)
        await teacher.update()
    newest = backend.sampler.forward(PROMPT, TOKENS)[2]
    found = await teacher.score(PROMPT, TOKENS, EVERY_ID)
    np.testing.assert_allclose(found, log_softmax(0.7 * initial + 0.3 * newest), atol=1e-5)


async def test_ema_by_log_probabilities_is_the_ema_of_the_weights_where_logits_are_linear_in_them():
    backend, rate = ScriptedBackend(), 0.2
    teacher = EMATeacher(backend, rate, bound=100)
    average = backend.initial_sampler.weights
    for step in range(12):
        await push(backend, 65 + step % 3)
        await teacher.update()
        average = (1 - rate) * average + rate * backend.sampler.weights
    table_T, previous_T, _ = backend.sampler.forward(PROMPT, TOKENS)
    exact = log_softmax(average[table_T, previous_T])
    np.testing.assert_allclose(await teacher.score(PROMPT, TOKENS, EVERY_ID), exact, atol=1e-5)


async def test_ema_of_eight_snapshots_stays_near_the_exact_one_after_a_hundred_steps():
    backend, rate = ScriptedBackend(), 0.05
    teacher = EMATeacher(backend, rate)
    average = backend.initial_sampler.weights
    rng = np.random.default_rng(0)
    for _ in range(100):
        await push(backend, int(rng.integers(VOCABULARY)))
        await teacher.update()
        average = (1 - rate) * average + rate * backend.sampler.weights
    assert len(teacher.snapshots) == 8
    table_T, previous_T, student = backend.sampler.forward(PROMPT, TOKENS)
    exact = log_softmax(average[table_T, previous_T])
    found = await teacher.score(PROMPT, TOKENS, EVERY_ID)
    assert np.corrcoef((found - student).ravel(), (exact - student).ravel())[0, 1] > 0.98


async def test_a_rate_of_zero_is_frozen_and_a_rate_of_one_is_the_newest():
    backend = ScriptedBackend()
    frozen = FrozenTeacher(backend)
    still, newest = EMATeacher(backend, 0.0), EMATeacher(backend, 1.0)
    for _ in range(3):
        await push(backend, 65)
        await still.update()
        await newest.update()
    ids = EVERY_ID[:, 60:70]
    np.testing.assert_allclose(
        await still.score(PROMPT, TOKENS, ids), await frozen.score(PROMPT, TOKENS, ids), atol=1e-12
    )
    expected = await backend.sampler.candidate_logprobs(PROMPT, TOKENS, ids)
    np.testing.assert_allclose(await newest.score(PROMPT, TOKENS, ids), expected, atol=1e-12)


async def test_with_the_sampled_token_alone_the_mixture_is_over_it_and_the_rest():
    backend = ScriptedBackend()
    teacher = TrustRegionTeacher(backend, 0.5)
    await push(backend, 65)
    p = np.exp(await backend.initial_sampler.logprobs(PROMPT, TOKENS))
    q = np.exp(await backend.sampler.logprobs(PROMPT, TOKENS))
    own, rest = np.sqrt(p * q), np.sqrt((1 - p) * (1 - q))
    np.testing.assert_allclose(await teacher.score(PROMPT, TOKENS, None), np.log(own / (own + rest)), atol=1e-9)


def test_an_id_that_stands_twice_counts_once():
    logprobs = np.log(np.array([[[0.5, 0.2]], [[0.1, 0.6]]]))
    weights = np.array([0.5, 0.5])
    once = geometric_mixture(logprobs, weights, np.array([[7, 9]]))
    doubled = geometric_mixture(logprobs[:, :, [0, 1, 0]], weights, np.array([[7, 9, 7]]))
    np.testing.assert_allclose(doubled[:, :2], once)
    np.testing.assert_allclose(doubled[:, 2], once[:, 0])
    assert np.exp(once).sum() < 1


@given(st.integers(1, 60), st.floats(0.0, 1.0), st.integers(2, 9))
def test_no_weight_of_the_average_is_ever_lost(steps, rate, bound):
    snapshots = (Snapshot("initial", 0, 1.0),)
    for step in range(1, steps + 1):
        snapshots = average_in(snapshots, f"after {step}", rate, bound)
    assert len(snapshots) <= bound
    assert sum(s.weight for s in snapshots) == pytest.approx(1.0)
    assert [s.step for s in snapshots] == sorted({s.step for s in snapshots})

import asyncio
import threading

import numpy as np
import pytest

from continualcode.backends import TinkerBackend, diagnose
from continualcode.errors import BackendError, CapabilityError, ConfigError
from continualcode.types import Example

PROMPT, TOKENS = (3, 1, 4), (1, 5, 9)
IDS_TK = np.array([[1, 7], [5, 2], [9, 0]])
WEIGHTS_TK = np.array([[0.5, -1.0], [0.0, 2.0], [-0.25, 0.75]])


@pytest.fixture
def example():
    return Example(PROMPT, TOKENS, IDS_TK, WEIGHTS_TK)


def stepped(bigram, logits, examples, learning_rate):
    """The logits after Adam's first step, which moves every weight with a gradient by the learning rate."""
    gradient = np.zeros_like(logits)
    for example in examples:
        previous = (example.prompt + example.tokens)[len(example.prompt) - 1 : -1]
        for row, ids, weights in zip(previous, example.ids_TK, example.weights_TK, strict=True):
            gradient[row] += weights.sum() * np.exp(bigram.log_softmax(logits)[row])
            np.subtract.at(gradient[row], ids, weights)
    return logits - learning_rate * np.sign(gradient)


async def test_a_step_follows_the_summed_weighted_cross_entropy(bigram, bigram_service, example):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    single = Example((2,), (6, 8), np.array([[6], [8]]), np.array([[1.0], [-3.0]]))
    metrics = await backend.train_step([example, single], learning_rate=0.1)
    before, after = (
        bigram.log_softmax(logits)
        for logits in (service.logits, stepped(bigram, service.logits, [example, single], 0.1))
    )
    logprobs_TK, single_TK = await backend.forward([example, single])
    np.testing.assert_allclose(logprobs_TK, np.take_along_axis(after[[4, 1, 5]], IDS_TK, axis=1), atol=1e-5)
    np.testing.assert_allclose(single_TK[:, 0], after[[2, 6], [6, 8]], atol=1e-5)
    np.testing.assert_allclose(await backend.sampler.logprobs(PROMPT, TOKENS), after[[4, 1, 5], TOKENS], atol=1e-5)
    loss = -(WEIGHTS_TK * np.take_along_axis(before[[4, 1, 5]], IDS_TK, axis=1)).sum()
    assert metrics["loss"] == pytest.approx(loss - before[2, 6] + 3 * before[6, 8], abs=1e-5)
    assert backend.step == 1


@pytest.mark.parametrize("futures", ["awaitable", "concurrent", "blocking"])
async def test_a_step_is_the_same_with_every_kind_of_future(bigram, bigram_service, example, futures):
    service = bigram_service(futures=futures)
    backend = await TinkerBackend.connect(service, model_name="bigram")
    await backend.train_step([example], learning_rate=0.1)
    after = bigram.log_softmax(stepped(bigram, service.logits, [example], 0.1))
    np.testing.assert_allclose(await backend.sampler.logprobs(PROMPT, TOKENS), after[[4, 1, 5], TOKENS], atol=1e-5)


async def test_the_sampler_is_the_newest_and_the_old_ones_stay_what_they_were(bigram_service, example):
    backend = await TinkerBackend.connect(bigram_service(), model_name="bigram")
    initial = backend.sampler
    assert initial is backend.initial_sampler
    before_T = await initial.logprobs(PROMPT, TOKENS)
    await backend.train_step([example], learning_rate=0.1)
    assert backend.sampler is not initial
    assert backend.initial_sampler is initial
    np.testing.assert_array_equal(await initial.logprobs(PROMPT, TOKENS), before_T)
    assert np.abs(await backend.sampler.logprobs(PROMPT, TOKENS) - before_T).max() > 0.01


def trained_T(bigram, backend):
    """Of TOKENS, by the weights that the service trains."""
    return bigram.log_softmax(backend._training.logits)[[PROMPT[-1], *TOKENS[:-1]], TOKENS]


async def test_a_cancelled_step_is_carried_through_and_switches_the_sampler_only_when_done(
    bigram, bigram_service, example
):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    initial, service.gate = backend.sampler, threading.Event()
    step = asyncio.ensure_future(backend.train_step([example], learning_rate=0.1))
    await asyncio.sleep(0.05)
    step.cancel()
    with pytest.raises(asyncio.CancelledError):
        await step
    assert (backend.step, backend.sampler) == (0, initial)
    service.gate.set()
    await backend.close()
    assert service.log[-3:] == ["forward_backward", "optim_step", "save_weights"]
    assert backend.step == 1
    np.testing.assert_allclose(await backend.sampler.logprobs(PROMPT, TOKENS), trained_T(bigram, backend), atol=1e-5)


async def test_a_step_cancelled_while_it_waits_for_another_never_happens(bigram_service, example):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    service.gate = threading.Event()
    first = asyncio.ensure_future(backend.train_step([example], learning_rate=0.1))
    await asyncio.sleep(0.01)
    second = asyncio.ensure_future(backend.train_step([example], learning_rate=0.1))
    await asyncio.sleep(0.01)
    second.cancel()
    service.gate.set()
    await first
    await backend.close()
    assert backend.step == 1
    assert service.log.count("optim_step") == 1


async def test_what_a_sampler_can_score_is_not_asked_of_the_trainer(bigram, bigram_service, example):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    await backend.train_step([example], learning_rate=0.1)
    (fresh_TK,) = await backend.forward([example])
    assert service.log[-1] == "save_weights"
    np.testing.assert_allclose(fresh_TK[:, 0], trained_T(bigram, backend), atol=1e-5)
    await backend.train_step([example], learning_rate=0.1, refresh=False)
    (newer_TK,) = await backend.forward([example])
    assert service.log[-1] == "forward", "the sampler is a step behind"
    np.testing.assert_allclose(newer_TK[:, 0], trained_T(bigram, backend), atol=1e-5)


async def test_a_failed_gradient_leaves_the_sampler_on_the_weights_there_are(bigram, bigram_service, example):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    await backend.train_step([example], learning_rate=0.1)
    service.quirks = frozenset([bigram.OUT_OF_STEP])
    with pytest.raises(BackendError, match="out of memory"):
        await backend.train_step([example], learning_rate=0.1)
    assert backend.step == 1
    np.testing.assert_allclose(await backend.sampler.logprobs(PROMPT, TOKENS), trained_T(bigram, backend), atol=1e-5)
    service.quirks = frozenset()
    await backend.train_step([example], learning_rate=0.1)
    assert backend.step == 2


async def test_a_loss_divided_by_its_positions_is_made_up_for(bigram, bigram_service, example):
    longer = Example((2, 2, 2, 2, 2), (6,), np.array([[6, 8]]), np.array([[1.0, -3.0]]))
    norms = []
    for quirks in ([], [bigram.MEAN_LOSS]):
        backend = await TinkerBackend.connect(bigram_service(quirks=quirks), model_name="bigram")
        assert backend.capabilities.summed_cross_entropy
        metrics = await backend.train_step([example, longer], learning_rate=0.1)
        norms.append(metrics["grad_norm:mean"])
    assert norms[1] == pytest.approx(norms[0], rel=1e-5)
    assert "number of positions" in backend.capabilities.notes[0]


async def test_a_loss_divided_by_the_sum_of_its_weights_is_refused(bigram, bigram_service, example):
    backend = await TinkerBackend.connect(bigram_service(quirks=[bigram.WEIGHTED_MEAN_LOSS]), model_name="bigram")
    assert not backend.capabilities.summed_cross_entropy
    with pytest.raises(CapabilityError, match="sum of its weights"):
        await backend.train_step([example], learning_rate=0.1)
    assert backend.step == 0


async def test_a_service_that_reports_no_loss_is_trusted_and_said_to_be(bigram, bigram_service, example):
    backend = await TinkerBackend.connect(bigram_service(quirks=[bigram.SILENT_LOSS]), model_name="bigram")
    assert not backend.capabilities.summed_cross_entropy
    assert "taken to be a sum" in backend.capabilities.notes[0]
    assert "loss" in await backend.train_step([example], learning_rate=0.1)


async def test_k_targets_are_refused_where_a_server_mangles_them(bigram, bigram_service, example):
    backend = await TinkerBackend.connect(bigram_service(quirks=[bigram.MANGLED]), model_name="bigram")
    for refused in (backend.train_step([example], learning_rate=0.1), backend.forward([example])):
        with pytest.raises(CapabilityError, match="one target per position"):
            await refused
    single = Example(PROMPT, TOKENS, IDS_TK[:, :1], WEIGHTS_TK[:, :1])
    await backend.train_step([single], learning_rate=0.1)
    assert backend.step == 1


async def test_weights_that_are_not_finite_are_never_sent(bigram_service):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    bad = Example(PROMPT, TOKENS, IDS_TK, WEIGHTS_TK * np.nan)
    with pytest.raises(BackendError, match="not finite"):
        await backend.train_step([bad], learning_rate=0.1)
    assert "forward_backward" not in service.log


async def test_a_saved_model_goes_on_where_it_was(bigram_service, example):
    service = bigram_service()
    backend = await TinkerBackend.connect(service, model_name="bigram")
    await backend.train_step([example], learning_rate=0.1)
    path = await backend.save("after one")
    again = await TinkerBackend.connect(service, model_name="bigram", load_checkpoint_path=path)
    for trained in (backend, again):
        await trained.train_step([example], learning_rate=0.1)
    np.testing.assert_array_equal(
        await again.sampler.logprobs(PROMPT, TOKENS), await backend.sampler.logprobs(PROMPT, TOKENS)
    )


async def test_wrong_models_and_checkpoints_are_named_with_what_to_do(bigram_service):
    service = bigram_service()
    with pytest.raises(ConfigError, match=r"no model 'bigrm'.*did you mean 'bigram'\?"):
        await TinkerBackend.connect(service, model_name="bigrm")
    with pytest.raises(ConfigError, match="checkpoint 'nowhere' cannot be loaded: no checkpoint at nowhere"):
        await TinkerBackend.connect(service, model_name="bigram", load_checkpoint_path="nowhere")
    path = await (await TinkerBackend.connect(service, model_name="bigram")).save("x")
    with pytest.raises(ConfigError, match="is of 'bigram', not 'trigram'; set model_name=bigram"):
        await TinkerBackend.connect(service, model_name="trigram", load_checkpoint_path=path)


async def test_a_known_model_that_cannot_be_had_is_not_called_unknown(bigram_service, monkeypatch):
    service = bigram_service()

    def refuse(**asked):
        raise ValueError("lora_rank 3 is no power of 2")

    monkeypatch.setattr(service, "create_lora_training_client", refuse)
    with pytest.raises(BackendError, match="could not do it: lora_rank 3 is no power of 2"):
        await TinkerBackend.connect(service, model_name="bigram", lora_rank=3)


async def test_the_tokenizer_is_the_given_one_or_the_models(bigram_service):
    service = bigram_service()
    assert (await TinkerBackend.connect(service, model_name="bigram")).tokenizer == "the bigram tokenizer"
    assert (await TinkerBackend.connect(service, model_name="bigram", tokenizer="mine")).tokenizer == "mine"


async def test_the_doctor_finds_a_good_service_good_and_leaves_its_weights_alone(bigram_service, example):
    backend = await TinkerBackend.connect(bigram_service(), model_name="bigram")
    before_T = await backend.sampler.logprobs(PROMPT, TOKENS)
    report = await diagnose(backend)
    assert report.ok
    assert {finding.outcome for finding in report.findings} == {"ok"}
    timed = {finding.check for finding in report.findings if finding.seconds is not None}
    assert {"service", "sample", "logprobs", "forward pass", "training step", "old samplers stay frozen"} <= timed
    np.testing.assert_array_equal((await backend.forward([example]))[0][:, 0], np.float32(before_T))
    assert backend.step == 0


@pytest.mark.parametrize(
    ("quirk", "check", "outcome"),
    [
        ("WEIGHTED_MEAN_LOSS", "training step", "failed"),
        ("LIVE_SAMPLERS", "old samplers stay frozen", "limited"),
        ("NO_TARGETS", "logprobs at chosen tokens", "limited"),
        ("MANGLED", "K weighted targets a position", "limited"),
        ("NO_CANDIDATES", "top-K distillation", "limited"),
    ],
)
async def test_the_doctor_names_what_a_service_lacks(bigram, bigram_service, quirk, check, outcome):
    backend = await TinkerBackend.connect(bigram_service(quirks=[getattr(bigram, quirk)]), model_name="bigram")
    report = await diagnose(backend)
    assert {finding.check: finding.outcome for finding in report.findings}[check] == outcome
    assert report.ok == (outcome != "failed")

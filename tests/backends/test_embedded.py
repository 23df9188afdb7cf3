"""The embedded engine behind the wire format: the official client must give the numbers it has in process."""

import gc
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from continualcode import CapabilityError, Config, ConfigError, assemble
from continualcode.backends import TinkerBackend
from continualcode.local import ServiceClient
from continualcode.sdpo import EMATeacher, ExactEMATeacher, SDPOConfig, SDPOTrainer
from continualcode.sdpo.teachers import ema_teacher
from continualcode.types import Conversation, Example, Lesson, Message, Reply, Sampling, Turn

PROMPT, TOKENS = (7, 3, 11, 2, 30), (5, 9, 40, 1)
EXAMPLE = Example(
    PROMPT,
    TOKENS,
    np.array([[5, 6, 7], [9, 2, 3], [40, 41, 42], [1, 8, 12]]),
    np.array([[1.0, -0.5, 0.0], [-2.0, 0.3, 0.7], [0.0, 0.0, 0.0], [0.5, 0.25, -1.0]]),
)


@pytest.fixture(scope="module")
def tiny_llama(tmp_path_factory):
    """Folder of a random Llama small enough to be exact and quick."""
    folder = tmp_path_factory.mktemp("llama")
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.4,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def engine(tmp_path):
    """Makes embedded engines."""
    made = []

    def make():
        made.append(ServiceClient(state_dir=tmp_path / str(len(made)), device="cpu", dtype="float32"))
        return made[-1]

    yield make
    for service in made:
        service.close()


@pytest.fixture
async def pair(engine, wire_server, official_client, tiny_llama):
    """The same model with the same seed, in process and over HTTP."""
    remote = official_client(wire_server(engine()).url)
    return [await TinkerBackend.connect(service, model_name=tiny_llama, seed=3) for service in (engine(), remote)]


async def test_every_token_has_the_same_logprobs_over_http_and_in_process(pair):
    local, remote = pair
    beyond = {"vocabulary": None, "weight_averaging": False, "null_space": False, "notes": ()}
    assert replace(local.capabilities, **beyond) == replace(remote.capabilities, notes=())
    assert local.capabilities.distillation_topk == 20, "of a vocabulary of 64, in which 100 cannot be had"
    (most,) = await remote.sampler.sample(PROMPT, Sampling(max_tokens=2, candidates=100, seed=1))
    assert most.candidates[0].shape == (2, 20), "no more is asked for than can be had"
    (completion,) = await local.sampler.sample(PROMPT, Sampling(max_tokens=6, candidates=4, seed=1))
    local_T, remote_T = [await backend.sampler.logprobs(PROMPT, completion.tokens) for backend in pair]
    np.testing.assert_allclose(remote_T, local_T, atol=1e-4)
    np.testing.assert_allclose(remote_T, completion.logprobs_T, atol=1e-4)
    assert np.abs(np.diff(remote_T)).min() > 1e-2, "a shift by one would show"
    ids_TK, candidates_TK = completion.candidates
    chosen_TK = await remote.sampler.candidate_logprobs(PROMPT, completion.tokens, ids_TK)
    np.testing.assert_allclose(chosen_TK, candidates_TK, atol=1e-4)
    top_ids_TK, top_TK = await remote.sampler.top_logprobs(PROMPT, completion.tokens, 4)
    np.testing.assert_array_equal(top_ids_TK, ids_TK)
    np.testing.assert_allclose(top_TK, candidates_TK, atol=1e-4)


async def test_the_trainer_agrees_with_the_sampler_token_by_token(pair):
    for backend in pair:
        (trained_TK,) = await backend.forward([EXAMPLE])
        scored_TK = await backend.sampler.candidate_logprobs(PROMPT, TOKENS, EXAMPLE.ids_TK)
        np.testing.assert_allclose(trained_TK, scored_TK, atol=1e-4)


async def test_a_step_over_http_gives_the_logprobs_it_gives_in_process(pair):
    before_T = await pair[0].sampler.logprobs(PROMPT, TOKENS)
    after = []
    for backend in pair:
        for _ in range(2):
            metrics = await backend.train_step([EXAMPLE], learning_rate=1e-3)
        after.append((await backend.sampler.logprobs(PROMPT, TOKENS), metrics["loss"]))
        np.testing.assert_allclose(await backend.initial_sampler.logprobs(PROMPT, TOKENS), before_T, atol=1e-4)
    np.testing.assert_allclose(after[1][0], after[0][0], atol=1e-4)
    assert after[1][1] == pytest.approx(after[0][1], abs=1e-4)
    assert np.abs(after[0][0] - before_T).max() > 1e-2


async def test_a_state_saved_over_http_goes_on_in_a_new_client(pair, engine, wire_server, official_client, tiny_llama):
    _, remote = pair
    await remote.train_step([EXAMPLE], learning_rate=1e-3)
    path = await remote.save("one")
    again = await TinkerBackend.connect(
        official_client(wire_server(engine()).url), model_name=tiny_llama, load_checkpoint_path=path
    )
    for backend in (remote, again):
        await backend.train_step([EXAMPLE], learning_rate=1e-3)
    np.testing.assert_allclose(
        await again.sampler.logprobs(PROMPT, TOKENS), await remote.sampler.logprobs(PROMPT, TOKENS), atol=1e-4
    )


async def test_a_model_that_is_not_there_is_one_error_and_no_second_is_reported_later(tmp_path, caplog):
    config = Config(backend="local", model_name="no/such/model", workspace=tmp_path, state_dir=tmp_path)
    with pytest.raises(ConfigError, match="neither a folder nor a Hugging Face hub id"):
        await assemble(config)
    gc.collect()
    assert caplog.records == []


async def test_inner_steps_without_a_new_sampler_are_the_same_over_http_and_in_process(pair):
    forwarded = []
    for backend in pair:
        first = backend.sampler
        for _ in range(2):
            await backend.train_step([EXAMPLE], learning_rate=1e-3, refresh=False)
        assert backend.sampler is first
        (now_TK,) = await backend.forward([EXAMPLE])
        await backend.refresh()
        fresh_TK = await backend.sampler.candidate_logprobs(PROMPT, TOKENS, EXAMPLE.ids_TK)
        np.testing.assert_allclose(now_TK, fresh_TK, atol=1e-4)
        old_TK = await first.candidate_logprobs(PROMPT, TOKENS, EXAMPLE.ids_TK)
        assert np.abs(now_TK - old_TK).max() > 1e-2
        forwarded.append(now_TK)
    np.testing.assert_allclose(forwarded[1], forwarded[0], atol=1e-4)


async def test_the_embedded_engines_ema_is_of_the_weights_and_elsewhere_of_the_logprobs(pair):
    local, remote = pair
    exact, mixed = (ema_teacher(backend, 0.3) for backend in pair)
    assert (type(exact), type(mixed)) == (ExactEMATeacher, EMATeacher)
    average = local.initial_sampler._client._weights.flat.clone()
    for _ in range(3):
        for backend, teacher in ((local, exact), (remote, mixed)):
            await backend.train_step([EXAMPLE], learning_rate=1e-3)
            await teacher.update()
        average.lerp_(local.sampler._client._weights.flat, 0.3)
    torch.testing.assert_close(exact.sampler._client._weights.flat, average)
    exact_TK, mixed_TK = [await t.score(PROMPT, TOKENS, EXAMPLE.ids_TK) for t in (exact, mixed)]
    first_TK, newest_TK = [
        await s.candidate_logprobs(PROMPT, TOKENS, EXAMPLE.ids_TK) for s in (local.initial_sampler, local.sampler)
    ]
    assert np.abs(exact_TK - mixed_TK).mean() < np.abs(newest_TK - first_TK).mean() / 4
    with pytest.raises(CapabilityError, match="embedded engine"):
        await remote.sampler.averaged(remote.initial_sampler, 0.5)


async def test_the_whole_vocabulary_is_distilled_over_on_the_embedded_engine_and_refused_elsewhere(pair):
    local, remote = pair
    everything = SDPOConfig(distillation_topk="all", learning_rate=1e-3)
    (completion,) = await local.sampler.sample(PROMPT, Sampling(max_tokens=4, seed=1))
    context = Conversation((Message("user", "x"),))
    lesson = Lesson(Turn(context, Reply(""), completion), "no")

    class Fixed:
        """Renders any conversation as the same few tokens."""

        def prompt(self, conversation):
            return (9, 8, 7)

    report = await SDPOTrainer(local, Fixed(), everything).learn([lesson])
    every_TV = np.tile(np.arange(64), (len(completion.tokens), 1))
    p, q = [
        np.exp(await local.initial_sampler.candidate_logprobs(prompt, completion.tokens, every_TV))
        for prompt in (PROMPT, (9, 8, 7))
    ]
    assert report.loss == pytest.approx(float((q * np.log(q / p)).sum(axis=1).mean()), abs=1e-4)
    assert report.left < 1
    with pytest.raises(CapabilityError, match="whole vocabulary"):
        SDPOTrainer(remote, Fixed(), everything)


async def test_saved_weights_are_loaded_into_a_backend_whose_first_weights_stay_what_they_are(engine, tiny_llama):
    backends = [await TinkerBackend.connect(engine(), model_name=tiny_llama, lora_rank=4, seed=1) for _ in range(2)]
    first, second = backends
    await first.train_step([EXAMPLE], learning_rate=1e-2)
    path = await first.save("one")
    await second.load(path)
    old_T = await first.initial_sampler.logprobs(PROMPT, TOKENS)
    for _ in range(2):  # the second step shows the optimiser's state
        logprobs = [await backend.sampler.logprobs(PROMPT, TOKENS) for backend in backends]
        assert np.allclose(*logprobs, atol=1e-4)
        assert not np.allclose(logprobs[0], old_T, atol=1e-3)
        assert np.allclose(await second.initial_sampler.logprobs(PROMPT, TOKENS), old_T, atol=1e-4)
        for backend in backends:
            await backend.train_step([EXAMPLE], learning_rate=1e-2)


async def test_an_averaged_samplers_weights_are_saved_and_found_again(engine, tiny_llama, tmp_path):
    backend = await TinkerBackend.connect(engine(), model_name=tiny_llama, lora_rank=4, seed=1)
    await backend.train_step([EXAMPLE], learning_rate=1e-2)
    teacher = ExactEMATeacher(backend, 0.3)
    await teacher.update()
    await teacher.sampler.save(tmp_path / "teacher")
    again = await backend.sampler_at(str(tmp_path / "teacher"))
    saved_T, kept_T = [await sampler.logprobs(PROMPT, TOKENS) for sampler in (again, teacher.sampler)]
    assert np.allclose(saved_T, kept_T, atol=1e-4)  # how many threads add up is not the same each time
    await again.averaged(backend.sampler, 0.3)


async def test_only_the_engine_in_process_draws_its_weights_clear_of_sequences(pair):
    local, remote = pair
    assert local.capabilities.null_space
    with pytest.raises(CapabilityError, match="null_space=False"):
        await remote.into_null_space([PROMPT])
    before_T = await local.sampler.logprobs(PROMPT, (5, 6, 7))
    await local.into_null_space([PROMPT])
    local_path, remote_path = [Path(await backend.save("drawn")) for backend in pair]
    np.testing.assert_array_equal(await local.sampler.logprobs(PROMPT, (5, 6, 7)), before_T)
    assert json.loads((local_path / "state.json").read_text())["null_space"] is True
    assert json.loads((remote_path / "state.json").read_text())["null_space"] is False


async def test_the_average_of_weights_begins_with_those_drawn_clear_of_sequences(engine, tiny_llama):
    backend = await TinkerBackend.connect(engine(), model_name=tiny_llama, seed=3)
    teacher = ExactEMATeacher(backend, 0.5)
    await backend.into_null_space([PROMPT])
    await backend.train_step([EXAMPLE], learning_rate=0.1)
    await teacher.update()
    average, newest = (sampler._client._weights for sampler in (teacher.sampler, backend.sampler))
    for part, newer in zip(average.parts, newest.parts, strict=True):
        if part is not None:
            torch.testing.assert_close(part.a, newer.a, rtol=0, atol=1e-7)
            torch.testing.assert_close(part.bs[0], newer.bs[0] / 2)

"""The clients as a Tinker program uses them."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import numpy as np
import pytest
import tinker
import torch
from tinker import types

from continualcode.errors import (
    AlignmentError,
    BackendError,
    CapabilityError,
    ConfigError,
    ContextLengthError,
    MissingExtraError,
)
from continualcode.local import ServiceClient

Ids = Callable[[int], list[int]]


def text(tokens: list[int]) -> types.ModelInput:
    return types.ModelInput.from_ints(tokens)


def sft(tokens: list[int], prompt: int) -> types.Datum:
    """The right-shifted datum that trains on everything behind the prompt."""
    weights = [0.0] * (prompt - 1) + [1.0] * (len(tokens) - prompt)
    return types.Datum(text(tokens[:-1]), {"target_tokens": tokens[1:], "weights": weights})


def reference(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logprobs: torch.Tensor = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return logprobs


def test_futures_can_be_awaited_or_waited_for_and_clients_used_before_they_exist(
    service: ServiceClient, tiny: str
) -> None:
    future = service.create_lora_training_client(tiny, rank=4)
    assert isinstance(future, tinker.APIFuture)
    info = future.get_info()
    assert (info.model_data.model_name, info.lora_rank) == (tiny, 4)

    async def awaited() -> Any:
        return await service.create_lora_training_client(tiny, rank=4)

    assert asyncio.run(awaited()).get_info().is_lora
    assert future.result(timeout=60).get_tokenizer().encode("ab") == [68, 69]


async def test_async_names_are_coroutines(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    training = await service.create_lora_training_client_async(tiny, rank=4)
    output = await (await training.forward_backward_async([sft(tokens(9), 4)], "cross_entropy"))
    await (await training.optim_step_async(types.AdamParams()))
    sampling = await training.save_weights_and_get_sampling_client_async()
    assert len(await sampling.compute_logprobs_async(text(tokens(9)))) == 9
    assert np.isfinite(output.metrics["loss:sum"])


def test_prompt_logprobs_are_aligned_with_the_tokens_they_score(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids
) -> None:
    ids = tokens(20)
    sampling = service.create_sampling_client(base_model=tiny)
    got = sampling.compute_logprobs(text(ids)).result()
    expected = reference(llama, ids)[range(19), ids[1:]]
    assert got[0] is None
    np.testing.assert_allclose(got[1:], expected, atol=1e-4)
    shifted = reference(llama, ids)[range(1, 20), ids[1:]]
    assert not np.allclose(got[1:], shifted, atol=0.1)

    last = sampling.compute_logprobs(text(ids), prompt_logprobs_last_n=5).result()
    assert last[:15] == [None] * 15
    np.testing.assert_allclose(last[15:], expected[14:], atol=1e-4)


def test_top_and_target_logprobs_score_the_position_after_their_row(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids
) -> None:
    ids = tokens(12)
    wanted = torch.full((11, 2), -1)
    wanted[7], wanted[10, 1] = torch.tensor([5, 6]), 9
    sampling = service.create_sampling_client(base_model=tiny)
    expected = reference(llama, ids)
    for target in (types.TensorData.from_torch(wanted), types.TensorData.from_torch_sparse(wanted, pad_value=-1)):
        response = sampling.sample(
            text(ids),
            1,
            types.SamplingParams(max_tokens=1),
            include_prompt_logprobs=True,
            topk_prompt_logprobs=3,
            target_prompt_logprobs=target,
            prompt_logprobs_last_n=4,
        ).result()
        scored = response.target_prompt_logprobs
        assert scored is not None
        assert (scored.sparse_crow_indices, scored.shape) == (target.sparse_crow_indices, [11, 2])
        dense = scored.to_numpy()
        np.testing.assert_allclose(dense[7], expected[7, [5, 6]], atol=1e-4)
        np.testing.assert_allclose(dense[10], [0.0, expected[10, 9]], atol=1e-4)
        assert not dense[:7].any()
        top = response.topk_prompt_logprobs
        assert top is not None
        assert top[:8] == [None] * 8
        values, best = expected[7].topk(3)
        assert [token for token, _ in top[8] or []] == best.tolist()
        np.testing.assert_allclose([lp for _, lp in top[8] or []], values, atol=1e-4)


def test_samples_carry_the_untempered_logprobs_that_scoring_gives(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids
) -> None:
    ids = tokens(10)
    params = types.SamplingParams(max_tokens=8, temperature=0.5, seed=7, stop=[])
    sampling = service.create_sampling_client(base_model=tiny)
    response = sampling.sample(text(ids), 3, params, topk_sample_logprobs=4).result()
    again = sampling.sample(text(ids), 3, params).result()
    assert [s.tokens for s in response.sequences] == [s.tokens for s in again.sequences]
    assert len({tuple(s.tokens) for s in response.sequences}) > 1
    for sequence in response.sequences:
        full = reference(llama, ids + sequence.tokens)[9:-1]
        np.testing.assert_allclose(sequence.logprobs, full[range(8), sequence.tokens], atol=1e-4)
        scored = sampling.compute_logprobs(text(ids + sequence.tokens), prompt_logprobs_last_n=8).result()
        np.testing.assert_allclose(sequence.logprobs, scored[-8:], atol=1e-4)
        assert sequence.topk_logprobs is not None
        np.testing.assert_allclose([lp for _, lp in sequence.topk_logprobs[5] or []], full[5].topk(4).values, atol=1e-4)
        assert (sequence.stop_reason, len(sequence.tokens)) == ("length", 8)


def test_sampling_follows_the_distribution_its_settings_leave(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids
) -> None:
    ids = tokens(6)
    sampling = service.create_sampling_client(base_model=tiny)
    probabilities = (reference(llama, ids)[-1] / 2.0).softmax(-1)

    def counts(**settings: Any) -> torch.Tensor:
        params = types.SamplingParams(max_tokens=1, temperature=2.0, seed=1, stop=[], **settings)
        drawn = [s.tokens[0] for s in sampling.sample(text(ids), 2000, params).result().sequences]
        return torch.bincount(torch.tensor(drawn), minlength=len(probabilities)) / 2000

    assert (counts() - probabilities).abs().max() < 0.04
    top = probabilities.topk(3).indices
    assert counts(top_k=3).nonzero()[:, 0].tolist() == sorted(top.tolist())
    ordered, order = probabilities.sort(descending=True)
    nucleus = order[: int((ordered.cumsum(0) < 0.5).sum()) + 1]
    assert set(counts(top_p=0.5).nonzero()[:, 0].tolist()) <= set(nucleus.tolist())
    greedy = sampling.sample(text(ids), 1, types.SamplingParams(max_tokens=1, temperature=0, stop=[])).result()
    assert greedy.sequences[0].tokens == [int(probabilities.argmax())]


def test_stopping_by_id_by_string_and_by_the_models_own_end(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    sampling = service.create_sampling_client(base_model=tiny)
    tokenizer = sampling.get_tokenizer()
    free = types.SamplingParams(max_tokens=40, seed=3, stop=[], temperature=3.0)
    run = sampling.sample(text(tokens(5)), 1, free).result().sequences[0]
    third = run.tokens[2]
    by_id = sampling.sample(text(tokens(5)), 1, free.model_copy(update={"stop": [third]})).result().sequences[0]
    assert (by_id.tokens, by_id.stop_reason) == (run.tokens[: run.tokens.index(third) + 1], "stop")
    string = tokenizer.decode(run.tokens[3:5])
    by_string = sampling.sample(text(tokens(5)), 1, free.model_copy(update={"stop": string})).result().sequences[0]
    assert (by_string.tokens, by_string.stop_reason) == (run.tokens[:5], "stop")
    ends = [
        s.tokens[-1]
        for s in sampling.sample(text(tokens(5)), 60, free.model_copy(update={"stop": None})).result().sequences
        if s.stop_reason == "stop"
    ]
    assert ends
    assert set(ends) == {tokenizer.eos_token_id}


def test_alternatives_are_drawn_from_each_positions_distribution(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids
) -> None:
    ids = tokens(5)
    response = (
        service.create_sampling_client(base_model=tiny)
        .sample(text(ids), 1, types.SamplingParams(max_tokens=1, seed=0), prompt_alt_tokens_k=1500)
        .result()
    )
    assert response.prompt_alt_tokens is not None
    drawn = response.prompt_alt_tokens.tokens.to_torch()
    expected = reference(llama, ids)
    for row in range(4):
        frequency = torch.bincount(drawn[row], minlength=expected.shape[1]) / 1500
        assert (frequency - expected[row].exp()).abs().max() < 0.05
        np.testing.assert_allclose(
            response.prompt_alt_tokens.logprobs.to_torch()[row], expected[row][drawn[row]], atol=1e-4
        )


def test_a_snapshot_stays_bitwise_what_it_was_while_training_goes_on(
    service: ServiceClient, tiny: str, tokens: Ids
) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    step = types.AdamParams(learning_rate=0.05)
    training.forward_backward([sft(tokens(12), 5)], "cross_entropy").result()
    training.optim_step(step).result()
    snapshot = training.save_weights_and_get_sampling_client().result()
    # other prompts in between, so that the prefix cache does not answer
    before = snapshot.compute_logprobs(text(tokens(15))).result()
    training.forward_backward([sft(tokens(12), 5)], "cross_entropy")
    training.optim_step(step).result()
    service._models[tiny].engine.prefix.clear()
    assert snapshot.compute_logprobs(text(tokens(15))).result() == before
    newer = training.save_weights_and_get_sampling_client().result().compute_logprobs(text(tokens(15))).result()
    assert not np.allclose(newer[1:], before[1:], atol=1e-3)


def test_training_makes_the_completion_likelier_and_reports_the_loss_as_a_sum(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids
) -> None:
    ids = tokens(12)
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    first = training.forward_backward([sft(ids, 5)], "cross_entropy").result()
    expected = reference(llama, ids)[range(11), ids[1:]][4:]
    assert first.metrics["loss:sum"] == pytest.approx(-float(expected.sum()), abs=1e-3)
    logprobs = first.loss_fn_outputs[0]["logprobs"].to_numpy()
    np.testing.assert_allclose(logprobs[4:], expected, atol=1e-4)
    assert not logprobs[:4].any()
    everything = training.forward([sft(ids, 5)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_numpy()
    np.testing.assert_allclose(everything, reference(llama, ids)[range(11), ids[1:]], atol=1e-4)
    losses = []
    for _ in range(5):
        losses.append(training.forward_backward([sft(ids, 5)], "cross_entropy").result().metrics["loss:sum"])
        training.optim_step(types.AdamParams(learning_rate=0.01)).result()
    assert losses == sorted(losses, reverse=True)


def test_a_step_without_a_gradient_is_refused(service: ServiceClient, tiny: str) -> None:
    training = service.create_lora_training_client(tiny, rank=4).result()
    with pytest.raises(BackendError, match="without a gradient"):
        training.optim_step(types.AdamParams()).result()


def test_a_failed_backward_leaves_the_gradient_as_it_was(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    training.forward_backward([sft(tokens(9), 4)], "cross_entropy").result()
    kept = training._adapter.grad.clone()

    def broken(data: list[types.Datum], logprobs: list[torch.Tensor]) -> Any:
        raise RuntimeError("no loss today")

    with pytest.raises(RuntimeError, match="no loss today"):
        training.forward_backward_custom([sft(tokens(9), 4)], broken).result()
    assert torch.equal(training._adapter.grad, kept)


def test_an_infinite_gradient_changes_nothing(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    datum = types.Datum(text(tokens(4)), {"target_tokens": tokens(4), "weights": [float("inf")] * 4})
    training.forward_backward([datum], "cross_entropy").result()
    before = training._adapter.flat.clone()
    with pytest.raises(BackendError, match="not taken"):
        training.optim_step(types.AdamParams()).result()
    assert torch.equal(training._adapter.flat, before)
    assert training._adapter.step == 0


def test_jobs_run_in_order_and_a_cancelled_one_never_begins(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    long = types.SamplingParams(max_tokens=200, stop=[])
    sampling = training.save_weights_and_get_sampling_client().result()
    running = sampling.sample(text(tokens(5)), 1, long)
    training.forward_backward([sft(tokens(9), 4)], "cross_entropy")
    unwanted = training.optim_step(types.AdamParams())
    assert unwanted.future().cancel()
    training.forward([sft(tokens(9), 4)], "cross_entropy").result()
    assert running.future().done()
    assert training._adapter.step == 0
    assert training._adapter.has_gradient


async def test_cancelling_a_task_stops_sampling_at_the_next_token(
    service: ServiceClient, tiny: str, tokens: Ids
) -> None:
    sampling = await service.create_sampling_client(base_model=tiny)
    future = sampling.sample(text(tokens(5)), 1, types.SamplingParams(max_tokens=250, stop=[]))
    task = asyncio.create_task(future.coroutine())
    while not future.future().running():  # noqa: ASYNC110 (it is a thread that starts it)
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert isinstance(await asyncio.to_thread(future.future().exception), CancelledError)


def test_what_cannot_be_done_is_refused_in_words(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    training = service.create_lora_training_client(tiny, rank=4).result()
    sampling = training.save_weights_and_get_sampling_client().result()
    datum = types.Datum(text(tokens(5)), {"target_tokens": tokens(4), "weights": [1.0] * 4})
    with pytest.raises(AlignmentError, match="one row per token"):
        training.forward_backward([datum], "cross_entropy")
    with pytest.raises(CapabilityError, match="gspo"):
        training.forward_backward([sft(tokens(9), 4)], "gspo")
    with pytest.raises(ConfigError, match="takes no loss_fn_config beta"):
        training.forward([sft(tokens(9), 4)], "cross_entropy", {"beta": 0.1})
    with pytest.raises(ConfigError, match="token ids and targets"):
        training.forward([types.Datum(text([1]), {"target_tokens": [500], "weights": [1.0]})], "cross_entropy")
    with pytest.raises(ContextLengthError, match="room for 256"):
        sampling.sample(text(tokens(10)), 1, types.SamplingParams(max_tokens=250)).result()
    with pytest.raises(ConfigError, match=r"shape \[4, K\]"):
        sampling.sample(
            text(tokens(5)),
            1,
            types.SamplingParams(max_tokens=1),
            target_prompt_logprobs=types.TensorData.from_torch(torch.zeros(5, 1, dtype=torch.int64)),
        )
    with pytest.raises(CapabilityError, match="snapshots"):
        training.save_weights_and_get_sampling_client(kind="inflight")
    with pytest.raises(ConfigError, match="base_url"):
        ServiceClient(base_url="http://localhost")
    with pytest.raises(ConfigError, match="no saved weights"):
        service.create_sampling_client(base_model=tiny, model_path="/nowhere").result()


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import continualcode.local as local

    monkeypatch.setattr(local, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="local"):
        _ = local.SamplingClient


ENDS_AT_WORK = """
import sys, threading, torch
from tinker import types
from continualcode.local import ServiceClient

started = threading.Event()

def long(data, logprobs):
    started.set()
    square = torch.rand(1000, 1000)
    for _ in range(20):
        square = torch.linalg.qr(square).Q
    return logprobs[0].sum(), {}

training = ServiceClient(device="cpu").create_lora_training_client(sys.argv[1], rank=2).result()
datum = types.Datum(types.ModelInput.from_ints([5, 6]), {"target_tokens": [6, 7], "weights": [1.0, 1.0]})
futures = [training.forward_backward_custom([datum], long) for _ in range(50)]
started.wait()
"""


def test_a_program_that_ends_while_its_engine_works_ends_without_a_crash(tiny: str) -> None:
    ended = subprocess.run([sys.executable, "-c", ENDS_AT_WORK, tiny], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")

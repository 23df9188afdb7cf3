"""Every loss against the formula written out, through the client."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tinker import types

from continualcode.errors import ConfigError
from continualcode.local import ServiceClient, TrainingClient
from continualcode.local.gradients import packs
from continualcode.local.lora import Weights
from continualcode.local.losses import elementwise

Ids = Callable[[int], list[int]]
N = 9


def gradient_of(training: TrainingClient, loss: Callable[[torch.Tensor], torch.Tensor], ids: list[int]) -> torch.Tensor:
    """By autograd: the gradient of loss(log-probabilities [N, V]) with respect to the flat LoRA tensor."""
    network = training._model.engine.network
    adapter = training._adapter
    adapter.clear_gradient()
    with torch.enable_grad():
        weights = adapter.trainable()
        features = network.read(weights, torch.tensor([ids]), None, torch.arange(len(ids)))
        loss(network.logits(weights, features)[0].log_softmax(-1)).backward()  # type: ignore[no-untyped-call]
    gradient = adapter.grad.clone()
    adapter.clear_gradient()
    return gradient


def assert_same_gradient(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Up to rounding, which differs with the threads that are free, and is as large as the largest numbers make it."""
    assert float((found - expected).norm()) < 1e-5 * float(expected.norm())


@pytest.fixture
def training(service: ServiceClient, tiny: str) -> TrainingClient:
    client = service.create_lora_training_client(tiny, rank=3, seed=0).result()
    client._adapter.flat.add_(0.1 * torch.randn(len(client._adapter.flat), generator=torch.Generator().manual_seed(4)))
    return client


def policy_datum(ids: list[int], **extra: Any) -> tuple[types.Datum, torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    targets = torch.randint(3, 100, (N,), generator=generator)
    sampled = -3 - 2 * torch.rand(N, generator=generator)
    advantages = torch.randn(N, generator=generator)
    inputs = {"target_tokens": targets, "logprobs": sampled, "advantages": advantages, **extra}
    return types.Datum(types.ModelInput.from_ints(ids), inputs), targets, sampled, advantages


def test_cross_entropy_by_hand() -> None:
    logprobs = torch.log(torch.tensor([0.5, 0.25, 0.125]))
    loss = elementwise("cross_entropy", logprobs, {"weights": torch.tensor([1.0, 0.0, 2.0])})
    torch.testing.assert_close(loss, torch.tensor([math.log(2), 0.0, 2 * math.log(8)]))


def test_policy_losses_by_hand() -> None:
    logprobs = torch.log(torch.tensor([0.6, 0.1, 0.9]))
    inputs = {"logprobs": torch.log(torch.tensor([0.3, 0.2, 0.1])), "advantages": torch.tensor([1.0, -1.0, 2.0])}
    # ratios 2, 0.5 and 9
    torch.testing.assert_close(elementwise("importance_sampling", logprobs, inputs), torch.tensor([-2.0, 0.5, -18.0]))
    torch.testing.assert_close(elementwise("ppo", logprobs, inputs), torch.tensor([-1.2, 0.8, -2.4]))
    cispo = torch.tensor([-2 * math.log(0.6), 0.5 * math.log(0.1), -4 * 2 * math.log(0.9)])
    torch.testing.assert_close(elementwise("cispo", logprobs, inputs), cispo)
    dro = elementwise("dro", logprobs, inputs, {"beta": 0.1})
    assert dro[0].item() == pytest.approx(-(math.log(0.6) - 0.05 * math.log(2) ** 2))


@pytest.mark.parametrize("shape", [(N,), (N, 4)])
def test_cross_entropy_has_the_gradient_of_its_formula(
    training: TrainingClient, tokens: Ids, shape: tuple[int, ...]
) -> None:
    ids = tokens(N)
    generator = torch.Generator().manual_seed(5)
    targets = torch.randint(3, 100, shape, generator=generator)
    weights = torch.randn(shape, generator=generator)
    weights[:4] = 0
    wide, wide_weights = targets.reshape(N, -1), weights.reshape(N, -1)
    expected = gradient_of(training, lambda lp: -(lp.gather(-1, wide) * wide_weights).sum(), ids)
    shifted = gradient_of(training, lambda lp: -(lp[:-1].gather(-1, wide[1:]) * wide_weights[1:]).sum(), ids)

    datum = types.Datum(types.ModelInput.from_ints(ids), {"target_tokens": targets, "weights": weights})
    output = training.forward_backward([datum], "cross_entropy").result()
    assert_same_gradient(training._adapter.grad, expected)
    assert not torch.allclose(training._adapter.grad, shifted, atol=1e-2)

    logprobs = output.loss_fn_outputs[0]["logprobs"].to_numpy()
    assert logprobs.shape == shape
    every = training.forward([datum], "cross_entropy").result()
    np.testing.assert_allclose(logprobs[4:], every.loss_fn_outputs[0]["logprobs"].to_numpy()[4:], atol=1e-4)
    assert output.metrics["loss:sum"] == pytest.approx(every.metrics["loss:sum"], abs=1e-3)


@pytest.mark.parametrize("name", ["importance_sampling", "ppo", "cispo", "dro"])
def test_policy_losses_have_the_gradient_of_their_formula(training: TrainingClient, tokens: Ids, name: str) -> None:
    ids = tokens(N)
    datum, targets, sampled, advantages = policy_datum(ids)

    def formula(logprobs_NV: torch.Tensor) -> torch.Tensor:
        logprobs = logprobs_NV[range(N), targets]
        ratio = torch.exp(logprobs - sampled)
        match name:
            case "importance_sampling":
                return -(ratio * advantages).sum()
            case "ppo":
                return -torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).sum()
            case "cispo":
                return -(ratio.clamp(0.0, 4.0).detach() * logprobs * advantages).sum()
        return -(logprobs * advantages - 0.025 * (logprobs - sampled) ** 2).sum()

    expected = gradient_of(training, formula, ids)
    training.forward_backward([datum], name).result()
    assert_same_gradient(training._adapter.grad, expected)
    assert expected.abs().max() > 1e-3


def test_clip_thresholds_come_from_the_config_or_from_each_position(training: TrainingClient, tokens: Ids) -> None:
    ids = tokens(N)
    datum, *_ = policy_datum(ids)
    low, high = torch.full((N,), 0.5), torch.full((N,), 1.5)
    each, *_ = policy_datum(ids, clip_low_threshold=low, clip_high_threshold=high)
    config = {"clip_low_threshold": 0.5, "clip_high_threshold": 1.5}
    default = training.forward([datum], "ppo").result().metrics["loss:sum"]
    from_config = training.forward([datum], "ppo", config).result().metrics["loss:sum"]
    assert training.forward([each], "ppo").result().metrics["loss:sum"] == pytest.approx(from_config, rel=1e-5)
    assert from_config != pytest.approx(default, rel=1e-3)


def test_gradients_of_several_datums_and_calls_add_up(training: TrainingClient, tokens: Ids) -> None:
    data = [policy_datum(tokens(N))[0], policy_datum(tokens(N)[::-1])[0]]
    training.forward_backward(data, "importance_sampling").result()
    together = training._adapter.grad.clone()
    training._adapter.clear_gradient()
    for datum in data:
        training.forward_backward([datum], "importance_sampling").result()
    assert_same_gradient(training._adapter.grad, together)


@pytest.mark.parametrize("name", ["cross_entropy", "importance_sampling"])
def test_data_that_begin_alike_are_read_together_with_the_gradient_of_each_alone(
    training: TrainingClient, tokens: Ids, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = tokens(20)
    ends = [[3, 4, 5], [3, 9, 8, 7, 6, 11], [], [50], [3, 4, 5]]
    data = [datum_of(begin + end, name, seed, trained=20 if seed % 2 else 12) for seed, end in enumerate(ends)]
    data.append(datum_of(tokens(20)[::-1], name, 9, trained=3))
    together = training.forward_backward(data, name).result()
    gradient = training._adapter.grad.clone()
    training._adapter.clear_gradient()
    monkeypatch.setattr("continualcode.local.gradients.PACKED", 0)
    alone = training.forward_backward(data, name).result()
    assert_same_gradient(gradient, training._adapter.grad)
    for one, other in zip(together.loss_fn_outputs, alone.loss_fn_outputs, strict=True):
        np.testing.assert_allclose(one["logprobs"].to_numpy(), other["logprobs"].to_numpy(), atol=1e-4)
    assert together.metrics["loss:sum"] == pytest.approx(alone.metrics["loss:sum"], rel=1e-4)


def datum_of(ids: list[int], name: str, seed: int, trained: int) -> types.Datum:
    """Random targets; cross_entropy on the positions from `trained` on, two targets each."""
    rng = np.random.default_rng(seed)
    if name == "cross_entropy":
        weights = rng.normal(size=(len(ids), 2)).astype(np.float32)
        weights[: min(trained, len(ids) - 1)] = 0
        inputs = {"target_tokens": rng.integers(3, 100, (len(ids), 2)), "weights": weights}
    else:
        sampled, advantages = rng.normal(size=(2, len(ids))).astype(np.float32)
        inputs = {"target_tokens": rng.integers(3, 100, len(ids)), "logprobs": sampled - 3, "advantages": advantages}
    return types.Datum(types.ModelInput.from_ints(ids), {k: types.TensorData.from_numpy(v) for k, v in inputs.items()})


def test_constant_tokens_are_read_as_they_are_and_the_gradient_is_that_of_the_rest(
    training: TrainingClient, tokens: Ids
) -> None:
    """Against finite differences of the loss with the beginning's keys and values held."""
    begin, constant = tokens(20), 15
    data = [
        datum_of(begin + end, "cross_entropy", seed, trained=19) for seed, end in enumerate(([3, 4, 5], [3, 9, 8, 7]))
    ]
    adapter, network = training._adapter, training._model.engine.network

    def loss(flat: torch.Tensor) -> float:
        moved, total = Weights(adapter.layout, flat, 0, adapter.layout.parts(flat)), 0.0
        for datum in data:
            ids, cache = list(datum.model_input.to_ints()), network.new_cache(64)
            network.read(adapter.weights, torch.tensor([ids[:constant]]), cache, torch.tensor([0]))
            rows = torch.arange(len(ids) - constant)
            logits = network.logits(moved, network.read(moved, torch.tensor([ids[constant:]]), cache, rows)[0])
            targets, weights = (datum.loss_fn_inputs[key].to_torch()[constant:] for key in ("target_tokens", "weights"))
            total -= float((logits.double().log_softmax(-1).gather(-1, targets) * weights).sum())
        return total

    output = training.forward_backward(data, "cross_entropy", {"constant_tokens": constant}).result()
    held = adapter.grad.clone()
    assert output.metrics["loss:sum"] == pytest.approx(loss(adapter.flat), rel=1e-4)
    for seed in range(3):
        along = torch.randn(len(adapter.flat), generator=torch.Generator().manual_seed(seed))
        moved = 2e-4 * along
        slope = (loss(adapter.flat + moved) - loss(adapter.flat - moved)) / 4e-4
        assert float(held @ along) == pytest.approx(slope, rel=0.01)
    adapter.clear_gradient()
    training.forward_backward(data, "cross_entropy", {"constant_tokens": 0}).result()
    assert not torch.allclose(adapter.grad, held, rtol=0.05)
    alone = torch.zeros_like(held)
    for datum in data:
        adapter.clear_gradient()
        training.forward_backward([datum], "cross_entropy", {"constant_tokens": constant}).result()
        alone += adapter.grad
    assert_same_gradient(alone, held)


def test_constant_tokens_that_are_not_shared_or_trained_on_are_refused(training: TrainingClient, tokens: Ids) -> None:
    alike, other = (datum_of(ids, "cross_entropy", 0, trained=10) for ids in (tokens(20), tokens(20)[::-1]))
    with pytest.raises(ConfigError, match="constant_tokens=12: the data must share"):
        training.forward_backward([alike], "cross_entropy", {"constant_tokens": 12}).result()
    with pytest.raises(ConfigError, match="constant_tokens=5: the data must share"):
        training.forward_backward([alike, other], "cross_entropy", {"constant_tokens": 5}).result()


def test_sequences_are_read_together_when_most_of_the_shortest_is_shared() -> None:
    sequences = {0: (1, 2, 3, 4), 1: (9, 9), 2: (1, 2, 3, 5, 6), 3: (1, 7, 7, 7), 4: (9, 9, 1)}
    assert packs(sequences, 100) == [[0, 2], [3], [1, 4]]
    assert packs(sequences, 4) == [[0], [2], [3], [1, 4]]
    assert packs(sequences, 0) == [[0], [2], [3], [1], [4]]


def test_a_custom_loss_has_its_own_gradient_and_metrics(training: TrainingClient, tokens: Ids) -> None:
    ids = tokens(N)
    datum, targets, *_ = policy_datum(ids)
    expected = gradient_of(training, lambda lp: (lp[range(N), targets] ** 2).sum(), ids)

    def squared(data: list[types.Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        assert data == [datum]
        return (logprobs[0] ** 2).sum(), {"custom/mean:mean": float(logprobs[0].detach().mean())}

    output = training.forward_backward_custom([datum], squared).result()
    assert_same_gradient(training._adapter.grad, expected)
    logprobs = output.loss_fn_outputs[0]["logprobs"].to_numpy()
    assert output.metrics["loss:sum"] == pytest.approx(float((logprobs**2).sum()), rel=1e-4)
    assert output.metrics["custom/mean:mean"] == pytest.approx(float(logprobs.mean()), rel=1e-4)


def test_many_positions_are_scored_in_pieces_with_the_same_gradient(training: TrainingClient, tokens: Ids) -> None:
    ids = tokens(200)
    weights = torch.rand(200, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([*tokens(199), 5])
    expected = gradient_of(training, lambda lp: -(lp[range(200), targets] * weights).sum(), ids)
    datum = types.Datum(types.ModelInput.from_ints(ids), {"target_tokens": targets, "weights": weights})
    training.forward_backward([datum], "cross_entropy").result()
    assert_same_gradient(training._adapter.grad, expected)


def test_long_inputs_are_recomputed_with_the_same_gradient(
    training: TrainingClient, tokens: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    datum, *_ = policy_datum(tokens(N))
    training.forward_backward([datum], "ppo").result()
    kept = training._adapter.grad.clone()
    training._adapter.clear_gradient()
    monkeypatch.setattr("continualcode.local.llama.RECOMPUTE_ABOVE", N - 1)
    training.forward_backward([datum], "ppo").result()
    assert_same_gradient(training._adapter.grad, kept)


def test_adam_is_torchs_adamw_with_clipping(training: TrainingClient, tokens: Ids) -> None:
    adapter = training._adapter
    parameter = torch.nn.Parameter(adapter.flat.clone())
    settings = {"lr": 0.01, "betas": (0.9, 0.95), "eps": 1e-8, "weight_decay": 0.1}
    theirs = torch.optim.AdamW([parameter], **settings)  # type: ignore[arg-type]
    for _ in range(3):
        training.forward_backward([policy_datum(tokens(N))[0]], "importance_sampling").result()
        parameter.grad = adapter.grad.clone()
        norm = float(torch.nn.utils.clip_grad_norm_([parameter], 0.5))
        theirs.step()
        params = types.AdamParams(learning_rate=0.01, eps=1e-8, weight_decay=0.1, grad_clip_norm=0.5)
        metrics = training.optim_step(params).result().metrics
        assert metrics is not None
        assert metrics["grad_norm:mean"] == pytest.approx(norm, rel=1e-4)
        torch.testing.assert_close(adapter.flat, parameter.data, atol=1e-5, rtol=1e-5)

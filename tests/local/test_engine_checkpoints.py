"""What is saved loads again: in the engine to the bit, and in peft."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from tinker import types

from continualcode.errors import ConfigError
from continualcode.local import ServiceClient, TrainingClient, checkpoint
from continualcode.local.loading import load

Ids = Callable[[int], list[int]]


def learn(training: TrainingClient, ids: list[int]) -> None:
    datum = types.Datum(
        types.ModelInput.from_ints(ids[:-1]), {"target_tokens": ids[1:], "weights": [1.0] * (len(ids) - 1)}
    )
    training.forward_backward([datum], "cross_entropy").result()
    training.optim_step(types.AdamParams(learning_rate=0.02)).result()


def test_training_goes_on_from_a_saved_state_as_if_it_had_not_stopped(
    service: ServiceClient, tiny: str, tokens: Ids
) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    learn(training, tokens(9))
    path = training.save_state("one").result().path
    resumed = service.create_training_client_from_state_with_optimizer(path).result()
    fresh = service.create_training_client_from_state(path).result()
    loaded = service.create_lora_training_client(tiny, rank=4, seed=9).result()
    loaded.load_state_with_optimizer(path).result()
    assert fresh.get_info().lora_rank == 4
    for client in (training, resumed, fresh, loaded):
        learn(client, tokens(9))
    assert torch.equal(resumed._adapter.flat, training._adapter.flat)
    assert torch.equal(loaded._adapter.flat, training._adapter.flat)
    assert not torch.equal(fresh._adapter.flat, training._adapter.flat)
    assert (resumed._adapter.step, fresh._adapter.step) == (2, 1)


def test_peft_loads_what_was_saved_and_computes_the_same(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids
) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    learn(training, tokens(9))
    path = training.save_weights_for_sampler("for-peft").result().path
    sampling = service.create_sampling_client(model_path=path)
    got = sampling.compute_logprobs(types.ModelInput.from_ints(tokens(15))).result()
    peft = PeftModel.from_pretrained(type(llama).from_pretrained(tiny), path)
    with torch.no_grad():
        expected = peft(torch.tensor([tokens(15)])).logits[0].log_softmax(-1)[range(14), tokens(15)[1:]]
    torch.testing.assert_close(torch.tensor(got[1:]), expected, atol=1e-4, rtol=0)


def test_a_lora_that_peft_saved_on_some_layers_can_be_sampled_and_trained(
    service: ServiceClient, tiny: str, llama: Any, tokens: Ids, tmp_path: Path
) -> None:
    config = LoraConfig(r=2, lora_alpha=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    peft = get_peft_model(type(llama).from_pretrained(tiny), config)
    peft.save_pretrained(tmp_path / "theirs")
    with torch.no_grad():
        expected = peft(torch.tensor([tokens(15)])).logits[0].log_softmax(-1)[range(14), tokens(15)[1:]]
    training = service.create_training_client_from_state(str(tmp_path / "theirs"), base_model=tiny).result()
    sampling = training.save_weights_and_get_sampling_client().result()
    got = sampling.compute_logprobs(types.ModelInput.from_ints(tokens(15))).result()
    torch.testing.assert_close(torch.tensor(got[1:]), expected, atol=1e-4, rtol=0)
    learn(training, tokens(9))


def test_a_merged_cold_start_equals_the_same_lora_beside_the_base(
    service: ServiceClient, tiny: str, tokens: Ids, tmp_path: Path
) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    learn(training, tokens(9))
    path = training.save_weights_for_sampler("cold").result().path
    beside = service.create_sampling_client(model_path=path)
    network = load(tiny, torch.device("cpu"), torch.float32, fold=Path(path), quantize=False)
    with torch.no_grad():
        features = network.read(None, torch.tensor([tokens(15)]), None, torch.arange(14))
        merged = network.logits(None, features)[0].log_softmax(-1)[range(14), tokens(15)[1:]]
    got = beside.compute_logprobs(types.ModelInput.from_ints(tokens(15))).result()
    torch.testing.assert_close(torch.tensor(got[1:]), merged, atol=1e-4, rtol=0)


def test_names_collisions_and_foreign_shapes_are_refused(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    training = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    path = training.save_state("one").result().path
    with pytest.raises(ConfigError, match="exists already"):
        training.save_state("one").result()
    assert training.save_state("one", overwrite=True).result().path == path
    with pytest.raises(ConfigError, match="a checkpoint's name"):
        training.save_state("../one")
    other = service.create_lora_training_client(tiny, rank=8, seed=0).result()
    before = other._adapter.flat.clone()
    with pytest.raises(ConfigError, match="rank 4"):
        other.load_state(path).result()
    assert torch.equal(other._adapter.flat, before)
    weights = training.save_weights_for_sampler("w").result().path
    with pytest.raises(ConfigError, match="no optimizer state"):
        training.load_state_with_optimizer(weights).result()


def test_a_state_past_its_time_is_refused(service: ServiceClient, tiny: str) -> None:
    training = service.create_lora_training_client(tiny, rank=4).result()
    path = training.save_state("brief", ttl_seconds=3600, user_metadata={"why": "test"}).result().path
    assert checkpoint.load(path).state.user_metadata == {"why": "test"}
    state = json.loads((Path(path) / "state.json").read_text())
    (Path(path) / "state.json").write_text(json.dumps({**state, "expires": 1.0}))
    with pytest.raises(ConfigError, match="saved to expire"):
        training.load_state(path).result()


def test_only_the_layers_asked_for_are_trained(service: ServiceClient, tiny: str) -> None:
    def kinds(**which: bool) -> set[str]:
        training = service.create_lora_training_client(tiny, rank=2, **which).result()
        return {slot.kind for slot in training._adapter.layout.slots}

    attention, mlp = {"q_proj", "k_proj", "v_proj", "o_proj"}, {"gate_proj", "up_proj", "down_proj"}
    head = {"lm_head"} if not json.loads((Path(tiny) / "config.json").read_text())["tie_word_embeddings"] else set()
    assert kinds() == attention | mlp | head
    assert kinds(train_mlp=False) == attention | head
    assert kinds(train_attn=False, train_unembed=False) == mlp


def test_the_same_seed_makes_the_same_lora_with_no_effect(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    one = service.create_lora_training_client(tiny, rank=4, seed=3).result()
    two = service.create_lora_training_client(tiny, rank=4, seed=3).result()
    assert torch.equal(one._adapter.flat, two._adapter.flat)
    prompt = types.ModelInput.from_ints(tokens(9))
    with_lora = one.save_weights_and_get_sampling_client().result().compute_logprobs(prompt).result()
    without = service.create_sampling_client(base_model=tiny).compute_logprobs(prompt).result()
    torch.testing.assert_close(torch.tensor(with_lora[1:]), torch.tensor(without[1:]), atol=1e-5, rtol=0)

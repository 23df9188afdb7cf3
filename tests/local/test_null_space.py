"""Training clear of what ordinary sequences use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tinker import types

from continualcode.errors import ConfigError
from continualcode.local import ServiceClient, TrainingClient
from continualcode.local.null_space import RIDGE, take_out

Ids = Callable[[int], list[int]]


def sft(ids: list[int]) -> types.Datum:
    inputs = {"target_tokens": torch.tensor([*ids[1:], 5]), "weights": torch.ones(len(ids))}
    return types.Datum(types.ModelInput.from_ints(ids), inputs)


def trained(client: TrainingClient, ids: list[int], steps: int) -> None:
    for _ in range(steps):
        client.forward_backward([sft(ids)], "cross_entropy").result()
        client.optim_step(types.AdamParams(learning_rate=0.02)).result()


def logprobs(client: TrainingClient, ids: list[int]) -> torch.Tensor:
    return client.forward([sft(ids)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].to_torch()


def halves(client: TrainingClient) -> tuple[torch.Tensor, torch.Tensor]:
    """All A's and all B's."""
    parts = [part for part in client._adapter.layout.parts(client._adapter.flat) if part is not None]
    return torch.cat([part.a.flatten() for part in parts]), torch.cat([b.flatten() for part in parts for b in part.bs])


def row_lengths(client: TrainingClient) -> torch.Tensor:
    return torch.cat(
        [part.a.norm(dim=1) for part in client._adapter.layout.parts(client._adapter.flat) if part is not None]
    )


def test_what_the_inputs_explain_is_taken_out_by_hand() -> None:
    a = torch.tensor([[1.0, 1.0]])
    take_out(a, torch.tensor([[2.0, 0.0]]))
    # gram 4, ridge RIDGE * 4 / 2: the first number keeps ridge / (gram + ridge) of itself, the second is not seen
    torch.testing.assert_close(a, torch.tensor([[RIDGE / (RIDGE + 2), 1.0]]))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_what_is_trained_then_changes_little_of_the_ordinary(
    service: ServiceClient, transformers_model: Any, tmp_path: Path, tokens: Ids
) -> None:
    ordinary = [tokens(20), tokens(20)[:15] + tokens(14)[:9], tokens(13)]
    transformers_model.save_pretrained(tmp_path)
    changed: dict[bool, float] = {}
    for clear in (True, False):
        client = service.create_lora_training_client(str(tmp_path), rank=4, seed=0).result()
        before = torch.cat([logprobs(client, ids) for ids in ordinary])
        if clear:
            client.into_null_space(ordinary).result()
        learned = logprobs(client, tokens(17))
        steps = 0
        while float((logprobs(client, tokens(17)) - learned).mean()) < 0.5:
            trained(client, tokens(17), 1)
            steps += 1
            assert steps < 100
        changed[clear] = float((torch.cat([logprobs(client, ids) for ids in ordinary]) - before).abs().mean())
    assert changed[True] < 0.75 * changed[False], changed


def test_only_b_is_trained_then_also_after_it_was_saved_and_loaded(
    service: ServiceClient, tiny: str, tokens: Ids
) -> None:
    client = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    lengths = row_lengths(client)
    client.into_null_space([tokens(20)]).result()
    a, b = (half.clone() for half in halves(client))
    torch.testing.assert_close(row_lengths(client), lengths)
    trained(client, tokens(12), 2)
    path = client.save_state("kept").result().path
    resumed = service.create_training_client_from_state_with_optimizer(path).result()
    trained(resumed, tokens(12), 2)
    for each in (client, resumed):
        assert torch.equal(halves(each)[0], a)
        assert not torch.equal(halves(each)[1], b)
    assert not torch.equal(halves(client)[1], halves(resumed)[1])
    other = service.create_lora_training_client(tiny, rank=4, seed=1).result()
    resumed.load_state(other.save_state("plain").result().path).result()
    plain = halves(resumed)[0].clone()
    trained(resumed, tokens(12), 2)
    assert not torch.equal(halves(resumed)[0], plain)


def test_a_lora_that_was_trained_stays_as_it_is(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    client = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    trained(client, tokens(12), 1)
    before = client._adapter.flat.clone()
    client.into_null_space([tokens(20)]).result()
    assert torch.equal(client._adapter.flat, before)
    assert not client._adapter.null_space


def test_its_effect_stays_none_until_something_is_trained(service: ServiceClient, tiny: str, tokens: Ids) -> None:
    client: Any = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    before = logprobs(client, tokens(12))
    client.into_null_space([tokens(20)]).result()
    assert torch.equal(logprobs(client, tokens(12)), before)


def test_unknown_tokens_are_refused(service: ServiceClient, tiny: str) -> None:
    client = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    with pytest.raises(ConfigError, match="token ids must be"):
        client.into_null_space([[3, 10**6]]).result()


def test_what_fails_on_the_way_changes_nothing(
    service: ServiceClient, tiny: str, tokens: Ids, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = service.create_lora_training_client(tiny, rank=4, seed=0).result()
    before, seen = client._adapter.flat.clone(), []

    def fails_at_the_third(a: torch.Tensor, inputs: torch.Tensor) -> None:
        seen.append(a.zero_())
        if len(seen) == 3:
            raise MemoryError("no room")

    monkeypatch.setattr("continualcode.local.lora.take_out", fails_at_the_third)
    with pytest.raises(MemoryError):
        client.into_null_space([tokens(20)]).result()
    assert torch.equal(client._adapter.flat, before)
    assert not client._adapter.null_space

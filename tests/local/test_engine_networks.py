"""Both ways to run a model against transformers and peft themselves."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, Qwen2Config
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from continualcode.local import llama as lean
from continualcode.local.engine import Draw, Engine
from continualcode.local.generic import TransformersNetwork
from continualcode.local.linear import Linear
from continualcode.local.loading import choose_dtype, from_model, load
from continualcode.local.lora import Adam, Adapter, Layout, Weights

Ids = Callable[[int], list[int]]


def reference(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logprobs: torch.Tensor = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return logprobs


def random_adapter(network: Any, rank: int = 3) -> Adapter:
    """A LoRA on every layer whose B is not zero."""
    adapter = Adapter.random(Layout(network.groups, rank, 32), 0, torch.device("cpu"))
    adapter.flat.copy_(0.1 * torch.randn(len(adapter.flat), generator=torch.Generator().manual_seed(1)))
    return adapter


def rows(engine: Engine, weights: Weights | None, tokens: list[int], wanted: list[int]) -> torch.Tensor:
    return torch.cat(list(engine.distributions(weights, tokens, wanted)))


def with_peft(model: Any, adapter: Adapter) -> Any:
    """The same LoRA on the same model, by peft."""
    layout = adapter.layout
    names = [slot.name for slot in layout.slots]
    config = LoraConfig(r=layout.rank, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM")
    config.fan_in_fan_out = model.config.model_type == "gpt2"
    peft = get_peft_model(model, config)
    state = peft.state_dict()
    for name, tensor in layout.named(adapter.flat).items():
        module, _, which = name.rpartition(".")
        state[f"base_model.model.{module}.{which}.default.weight"].copy_(tensor)
    return peft


def test_each_family_takes_the_path_meant_for_it(family: str, transformers_model: Any) -> None:
    assert isinstance(from_model(transformers_model), lean.Llama) == (family in lean.FAMILIES)


def test_what_the_lean_forward_does_not_compute_is_left_to_transformers() -> None:
    assert lean.fits(LlamaConfig())
    assert lean.fits(LlamaConfig(rope_scaling={"rope_type": "linear", "factor": 2.0}))
    assert not lean.fits(LlamaConfig(rope_scaling={"rope_type": "dynamic", "factor": 2.0}))
    assert not lean.fits(LlamaConfig(hidden_act="gelu"))
    assert not lean.fits(Qwen2Config(use_sliding_window=True, sliding_window=8, max_window_layers=0))


def test_a_llama_in_a_folder_loads_without_the_slow_half_of_transformers(tiny: str) -> None:
    code = (
        "import sys, torch; from continualcode.local import loading, llama;"
        f"network = loading.load({tiny!r}, torch.device('cpu'), torch.float32, fold=None, quantize=False);"
        "assert isinstance(network, llama.Llama);"
        "network.read(None, torch.tensor([[3, 4]]), network.new_cache(2), torch.tensor([1]));"
        f"assert loading.load_tokenizer({tiny!r}).encode('ab') == [68, 69];"
        "print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    slow = {"torch._dynamo", "sympy", "peft", "transformers.modeling_utils", "transformers.models.auto"}
    assert slow & set(loaded) == set()


def test_what_a_config_file_leaves_to_defaults_is_asked_of_transformers(
    llama: Any, tiny: str, tmp_path: Path, tokens: Ids
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "terse")
    written = json.loads((folder / "config.json").read_text())
    assert lean.complete(written)
    for key in ("rope_parameters", "rms_norm_eps", "tie_word_embeddings", "hidden_act"):
        terse = {name: value for name, value in written.items() if name != key}
        assert not lean.complete(terse)
        (folder / "config.json").write_text(json.dumps(terse))
        network = load(str(folder), torch.device("cpu"), torch.float32, fold=None, quantize=False)
        found = rows(Engine(network, 2**28), None, tokens(20), [19])
        torch.testing.assert_close(found, reference(llama, tokens(20))[[19]], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "rope", [{"rope_type": "linear", "factor": 2.0}, {"rope_type": "default", "rope_theta": 500.0}]
)
def test_positions_are_rotated_as_in_transformers(llama: Any, rope: dict[str, Any], tokens: Ids) -> None:
    model = copy.deepcopy(llama)
    model.config.rope_parameters = {"rope_theta": 10000.0, **rope}
    model.model.rotary_emb = LlamaRotaryEmbedding(model.config)
    engine = Engine(from_model(model), 2**28)
    found = rows(engine, None, tokens(60), [3, 59])
    torch.testing.assert_close(found, reference(model, tokens(60))[[3, 59]], atol=1e-4, rtol=0)


def test_all_positions_some_positions_and_cached_positions_agree_with_transformers(
    transformers_model: Any, tokens: Ids
) -> None:
    ids = tokens(40)
    expected = reference(transformers_model, ids)
    engine = Engine(from_model(transformers_model), 2**28)
    torch.testing.assert_close(rows(engine, None, ids, list(range(40))), expected, atol=1e-4, rtol=0)
    cached = rows(engine, None, ids, [30, 33, 39])
    torch.testing.assert_close(cached, expected[[30, 33, 39]], atol=1e-4, rtol=0)
    engine.prefix.clear()
    torch.testing.assert_close(rows(engine, None, ids, [3, 39]), expected[[3, 39]], atol=1e-4, rtol=0)


def test_decoding_from_the_cache_agrees_with_transformers_reading_it_all(transformers_model: Any, tokens: Ids) -> None:
    network = from_model(transformers_model)
    weights = random_adapter(network).weights
    samples = Engine(network, 2**28).sample(weights, tokens(20), 3, Draw(12, seed=1), lambda: False)
    single = Engine(network, 2**28).sample(weights, tokens(20), 1, Draw(12, seed=5), lambda: False)
    peft = with_peft(transformers_model, random_adapter(network)) if isinstance(network, lean.Llama) else None
    for sample in samples + single:
        full = tokens(20) + sample.tokens
        expected = reference(peft, full) if peft else rows(Engine(network, 0), weights, full, list(range(len(full))))
        got = torch.tensor(sample.logprobs)
        torch.testing.assert_close(got, expected[range(19, 31), sample.tokens], atol=1e-4, rtol=0)


def test_a_long_decode_outgrows_its_first_room(llama: Any, tokens: Ids) -> None:
    network = from_model(llama)
    cache = network.new_cache(4)
    ids = tokens(30)
    expected = reference(llama, ids)
    for position, token in enumerate(ids):
        with torch.no_grad():
            features = network.read(None, torch.tensor([[token]]), cache, torch.tensor([0]))
            got = network.logits(None, features)[0, 0].log_softmax(-1)
        torch.testing.assert_close(got, expected[position], atol=1e-4, rtol=0)


def test_logprobs_and_gradients_equal_those_of_peft(transformers_model: Any, tokens: Ids) -> None:
    ids, wanted = tokens(24), torch.tensor([9, 15, 16, 23])
    network = from_model(transformers_model)
    adapter = random_adapter(network)
    coefficients = torch.randn(4, network.vocabulary, generator=torch.Generator().manual_seed(2))
    features = network.read(adapter.trainable(), torch.tensor([ids]), None, wanted)
    logprobs = network.logits(adapter.trainable(), features)[0].log_softmax(-1)
    (logprobs * coefficients).sum().backward()  # type: ignore[no-untyped-call]
    if isinstance(network, TransformersNetwork):
        transformers_model = type(transformers_model)(transformers_model.config).eval()
        transformers_model.load_state_dict(network._model.state_dict())
    peft = with_peft(transformers_model, adapter)
    theirs = peft(torch.tensor([ids])).logits[0, wanted].log_softmax(-1)
    torch.testing.assert_close(logprobs, theirs, atol=1e-4, rtol=0)
    (theirs * coefficients).sum().backward()
    parameters = dict(peft.named_parameters())
    for name, gradient in adapter.layout.named(adapter.grad).items():
        module, _, which = name.rpartition(".")
        expected = parameters[f"base_model.model.{module}.{which}.default.weight"].grad
        assert expected is not None
        assert (gradient - expected).norm() <= 1e-4 * expected.norm(), name


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("shape", [(96, 32), (32, 96), (31, 7)])
def test_one_row_is_multiplied_the_same_on_any_number_of_threads(threads: int, shape: tuple[int, int]) -> None:
    weight, x, base = torch.randn(shape), torch.randn(1, shape[1]), torch.randn(1, shape[0])
    bias = torch.randn(shape[0])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        row = Linear(weight, bias).row(x, None, base)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(row, base + torch.nn.functional.linear(x, weight, bias))


@pytest.mark.parametrize("trained", ["self_attn", "mlp"])
def test_training_some_layers_gives_their_part_of_the_gradient(llama: Any, tokens: Ids, trained: str) -> None:
    network, whole = from_model(llama), random_adapter(from_model(llama))
    for name, tensor in whole.layout.named(whole.flat).items():
        if trained not in name:
            tensor.zero_()
    groups = tuple(tuple(slot for slot in group if trained in slot.name) for group in network.groups)
    some = Adapter.random(Layout(groups, 3, 32), 0, torch.device("cpu"))
    mine = {name: tensor for name, tensor in whole.layout.named(whole.flat).items() if trained in name}
    some.load(mine, None, 0)
    for adapter in (whole, some):
        features = network.read(adapter.trainable(), torch.tensor([tokens(12)]), None, torch.arange(12))
        network.logits(None, features)[0].log_softmax(-1)[:, 7].sum().backward()  # type: ignore[no-untyped-call]
    expected = whole.layout.named(whole.grad)
    for name, gradient in some.layout.named(some.grad).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-4, rtol=1e-4)
    assert some.grad.abs().max() > 1e-2


def test_the_generic_path_and_the_lean_one_agree(llama: Any, tokens: Ids) -> None:
    network, generic = from_model(llama), TransformersNetwork(llama)
    adapter = random_adapter(network)
    other = Adapter.random(Layout(generic.groups, 3, 32), 0, torch.device("cpu"))
    other.load(adapter.layout.named(adapter.flat), None, 0)
    ids = tokens(30)
    left = rows(Engine(network, 0), adapter.weights, ids, list(range(30)))
    right = rows(Engine(generic, 0), other.weights, ids, list(range(30)))
    torch.testing.assert_close(left, right, atol=1e-4, rtol=0)
    assert not torch.allclose(left, reference(llama, ids), atol=0.1)


def test_turns_samples_and_teachers_reuse_what_was_read(llama: Any, tokens: Ids) -> None:
    engine = Engine(from_model(llama), 2**28)
    prompt = tokens(50)
    sample = engine.sample(None, prompt, 1, Draw(10, seed=0), lambda: False)[0]
    second_turn = prompt + sample.tokens + [5, 6, 7]
    engine.sample(None, second_turn, 1, Draw(3, seed=0), lambda: False)
    assert (engine.prefix.stats.hits, engine.prefix.stats.tokens_reused) == (1, 59)
    teacher = prompt[:40] + [9] * 8 + sample.tokens
    cached = rows(engine, None, teacher, list(range(47, 58)))
    assert (engine.prefix.stats.hits, engine.prefix.stats.tokens_reused) == (2, 99)
    torch.testing.assert_close(cached, reference(llama, teacher)[47:], atol=1e-4, rtol=0)
    assert engine.prefix.stats.tokens_read == 50 + 4 + 18 + 0


def test_the_prefix_cache_keeps_to_its_bytes_and_to_its_weights(llama: Any, tokens: Ids) -> None:
    network = from_model(llama)
    one = network.new_cache(20).nbytes
    engine = Engine(network, 2 * one)
    for start in (3, 4, 5):
        rows(engine, None, [start, *tokens(19)], [19])
    assert engine.prefix.nbytes == 2 * one
    rows(engine, None, [3, *tokens(19)], [19])
    assert engine.prefix.stats.hits == 0
    rows(engine, None, [5, *tokens(19)], [19])
    assert engine.prefix.stats.hits == 1
    adapter = random_adapter(network)
    rows(engine, adapter.weights, [5, *tokens(19)], [19])
    assert engine.prefix.stats.hits == 1


def test_what_was_read_with_weights_nobody_holds_is_dropped(llama: Any, tokens: Ids) -> None:
    network = from_model(llama)
    engine, adapter = Engine(network, 2**28), random_adapter(network)
    snapshot: Weights | None = adapter.snapshot()
    rows(engine, snapshot, tokens(20), [19])
    adapter.has_gradient = True
    adapter.adam(Adam(learning_rate=0.1))
    rows(engine, adapter.weights, tokens(20), [19])
    rows(engine, snapshot, tokens(20), [19])
    assert engine.prefix.stats.hits == 1
    held = engine.prefix.nbytes
    del snapshot
    rows(engine, adapter.weights, tokens(20), [19])
    assert engine.prefix.nbytes == held // 2


def test_int8_decoding_stays_close_and_scoring_is_untouched(llama: Any, tokens: Ids) -> None:
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("int8 matrix products are for x86")
    ids = tokens(30)
    exact = reference(llama, ids)
    engine = Engine(from_model(llama, quantize=True), 2**28)
    torch.testing.assert_close(rows(engine, None, ids, list(range(30))), exact, atol=1e-4, rtol=0)
    sample = engine.sample(None, ids, 1, Draw(20, seed=0), lambda: False)[0]
    full = reference(llama, ids + sample.tokens)[range(29, 49), sample.tokens]
    difference = (torch.tensor(sample.logprobs) - full).abs()
    assert 0 < difference.mean() < 0.5


def test_bfloat16_is_chosen_only_where_it_is_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert choose_dtype("auto", cpu) == torch.float32
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert choose_dtype("auto", cpu) == torch.bfloat16
    assert choose_dtype("float32", cpu) == torch.float32


def test_a_bfloat16_base_trains_a_float32_adapter(llama: Any, tokens: Ids) -> None:
    import copy

    network = from_model(copy.deepcopy(llama).bfloat16())
    adapter = random_adapter(network)
    ids = tokens(12)
    exact = random_adapter(from_model(llama))
    for which, base in ((adapter, network), (exact, from_model(llama))):
        features = base.read(which.trainable(), torch.tensor([ids]), None, torch.arange(11))
        base.logits(None, features)[0].log_softmax(-1)[range(11), ids[1:]].sum().backward()  # type: ignore[no-untyped-call]
    assert adapter.grad.dtype == torch.float32
    cosine = torch.nn.functional.cosine_similarity(adapter.grad, exact.grad, dim=0)
    assert cosine > 0.95

"""Tiny models made from a configuration and random numbers, as folders that the engine loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from continualcode.local import ServiceClient

VOCABULARY = 101
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None, "tie_word_embeddings": False},
    "qwen2": {"tie_word_embeddings": True},
    "qwen3": {"head_dim": 16},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gemma2": {"head_dim": 8, "sliding_window": 16},
}


def make_model(family: str) -> Any:
    """A transformers model of the family with weights large enough that every part matters."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **{**sizes, **FAMILIES[family]}))
    for parameter in model.parameters():
        noise = torch.randn_like(parameter)
        parameter.data = parameter.data + 0.1 * noise if parameter.dim() == 1 else 0.3 * noise
    return model.float().eval()


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def transformers_model(family: str) -> Any:
    return make_model(family)


@pytest.fixture(scope="session")
def llama() -> Any:
    return make_model("llama")


@pytest.fixture(scope="session")
def tiny(llama: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny Llama whose tokens are single characters."""
    folder = tmp_path_factory.mktemp("tiny")
    llama.save_pretrained(folder)
    characters = ["<s>", "</s>", "<unk>", *(chr(32 + i) for i in range(VOCABULARY - 3))]
    tokenizer = Tokenizer(models.WordLevel({c: i for i, c in enumerate(characters)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[ServiceClient]:
    with ServiceClient(state_dir=tmp_path, device="cpu", dtype="float32") as client:
        yield client


@pytest.fixture
def tokens() -> Callable[[int], list[int]]:
    """n fixed random token ids."""
    return lambda n: torch.randint(3, VOCABULARY, (n,), generator=torch.Generator().manual_seed(n)).tolist()

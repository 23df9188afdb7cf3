"""From a model's name to a network and a tokenizer: files, device, dtype, cold start; knows nothing of training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from continualcode.errors import BackendUnavailableError, ConfigError
from continualcode.local import llama
from continualcode.local.generic import TransformersNetwork
from continualcode.local.network import Network

_FILES = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
_PLAIN_TOKENIZERS = ("PreTrainedTokenizerFast", "TokenizersBackend")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_Deltas = dict[str, Callable[[Tensor], Tensor]]


def choose_device(name: str = "auto") -> torch.device:
    """CUDA, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """ "auto" is bfloat16 where the device multiplies it fast, else float32: on a CPU without AVX512-BF16 or AMX
    bfloat16 matrix products run at a seventh of float32's speed."""
    if name != "auto":
        if name not in _DTYPES:
            raise ConfigError(f"no dtype {name!r}; there are auto, {', '.join(_DTYPES)}")
        return _DTYPES[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    fast = device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
    return torch.bfloat16 if fast else torch.float32


def load(source: str, device: torch.device, dtype: torch.dtype, *, fold: Path | None, quantize: bool) -> Network:
    """The network of a local folder or a hub id, with the LoRA in folder `fold` (peft's format) merged into it."""
    folder = local_folder(source)
    config = _configuration(folder)
    deltas = _folded(fold) if fold is not None else {}
    if llama.fits(config) and (files := sorted(folder.glob("*.safetensors"))):
        return llama.Llama(config, _reader(files, device, dtype, deltas), quantize=quantize)
    if quantize:
        raise ConfigError(f"quantize is for models of Llama's shape in safetensors files, not {config.model_type}")
    return from_model(_with_transformers(folder, device, dtype, deltas))


def from_model(model: Any, *, quantize: bool = False) -> Network:
    """The network of a transformers model in memory, the lean one where it computes the same."""
    if not llama.fits(model.config):
        return TransformersNetwork(model)
    state: dict[str, Tensor] = model.state_dict()
    return llama.Llama(model.config, state.get, quantize=quantize)


def load_tokenizer(source: str) -> Any:
    folder = local_folder(source)
    said = read_json(folder / "tokenizer_config.json")
    plain = said.get("tokenizer_class") in _PLAIN_TOKENIZERS and "auto_map" not in said
    if plain and read_json(folder / "config.json").get("model_type") == "llama":
        # What AutoTokenizer comes to as well, after importing half of transformers and of torch: 2 s later.
        from transformers import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast.from_pretrained(folder)
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def local_folder(source: str) -> Path:
    """The folder itself, or the hub's files in its cache. BackendUnavailableError when they cannot be had."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(source, allow_patterns=_FILES))
    except HFValidationError as error:
        raise ConfigError(f"{source!r} is neither a folder nor a Hugging Face hub id") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise BackendUnavailableError(
            f"the files of {source!r} could not be fetched from the Hugging Face hub and are not in its cache: {error}"
        ) from error


def read_json(file: Path) -> dict[str, Any]:
    """The object in a model's JSON file; empty when there is no such file."""
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found


def _configuration(folder: Path) -> Any:
    """transformers' configuration; where the file leaves nothing of it to defaults, the same attributes from the file,
    without the import that takes 2 s."""
    written = read_json(folder / "config.json")
    if llama.complete(written):
        return SimpleNamespace(**written)
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(folder)


def _reader(files: list[Path], device: torch.device, dtype: torch.dtype, deltas: _Deltas) -> llama.Read:
    from safetensors import safe_open

    places: dict[str, Path] = {}
    for file in files:
        with safe_open(file, framework="pt") as handle:
            places.update(dict.fromkeys(handle.keys(), file))

    def read(name: str) -> Tensor | None:
        if name not in places:
            return None
        # Opened anew for each tensor: a file that stays open stays in memory beside the copies made from it.
        with safe_open(places[name], framework="pt") as handle:
            tensor: Tensor = handle.get_tensor(name)
        if name in deltas:
            tensor = deltas[name](tensor.float())
        tensor = tensor.to(device, dtype)
        # Matrices are copied as they are laid out; a vector left as a window into the file would keep all of it mapped.
        return tensor.clone() if tensor.dim() == 1 else tensor

    return read


def _with_transformers(folder: Path, device: torch.device, dtype: torch.dtype, deltas: _Deltas) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    for name, change in deltas.items():
        weight = model.get_parameter(name)
        weight.data.copy_(change(weight.data.float().cpu()))
    return model


def _folded(folder: Path) -> _Deltas:
    """What the LoRA in `folder` does to each weight it is on: W + scale B A."""
    from safetensors.torch import load_file

    settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "adapter_model.safetensors")
    scale = settings["lora_alpha"] / settings["r"]
    prefix, suffix = "base_model.model.", ".lora_A.weight"

    def change(a: Tensor, b: Tensor) -> Callable[[Tensor], Tensor]:
        return lambda weight: torch.addmm(weight, b.float(), a.float(), alpha=scale)

    names = [name.removeprefix(prefix).removesuffix(suffix) for name in tensors if name.endswith(suffix)]
    return {
        f"{name}.weight": change(tensors[f"{prefix}{name}{suffix}"], tensors[f"{prefix}{name}.lora_B.weight"])
        for name in names
    }

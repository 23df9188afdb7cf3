"""Saved LoRA weights on disk, in peft's own format beside the optimizer's state; knows nothing of running models.

A folder holds adapter_config.json and adapter_model.safetensors (which peft loads), state.json and, when training is
to go on from it, optimizer.safetensors.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors.torch import load_file, save_file
from torch import Tensor

from continualcode.errors import ConfigError
from continualcode.local.lora import Adapter, Group, Layout, Weights

_PREFIX = "base_model.model."


class State(BaseModel):
    """What state.json says. `expires` is a time in seconds since the epoch."""

    model_config = ConfigDict(frozen=True)

    base_model: str
    step: int = 0
    null_space: bool = False
    expires: float | None = None
    user_metadata: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A saved LoRA, read. Tensors are under `<module>.lora_A` and `<module>.lora_B`."""

    state: State
    rank: int
    alpha: float
    tensors: Mapping[str, Tensor]
    moments: tuple[Tensor, Tensor] | None

    def layout(self, groups: tuple[Group, ...]) -> Layout:
        """The layout of exactly the layers that were saved; ConfigError for one the model has not."""
        names = {name.removesuffix(".lora_A") for name in self.tensors if name.endswith(".lora_A")}
        if unknown := sorted(names - {slot.name for group in groups for slot in group}):
            raise ConfigError(f"the saved LoRA is on layers this model has not: {', '.join(unknown[:3])}")
        chosen = tuple(tuple(slot for slot in group if slot.name in names) for group in groups)
        return Layout(chosen, self.rank, self.alpha)


def save(folder: Path, weights: Weights, state: State, *, adapter: Adapter | None, overwrite: bool) -> None:
    """Writes the folder, which appears whole or not at all. ConfigError when it exists and may not be replaced."""
    if folder.exists() and not overwrite:
        raise ConfigError(f"{folder} exists already; save under another name or with overwrite=True")
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        named = {
            f"{_PREFIX}{name}.weight": t.contiguous().cpu() for name, t in weights.layout.named(weights.flat).items()
        }
        save_file(named, work / "adapter_model.safetensors", metadata={"format": "pt"})
        (work / "adapter_config.json").write_text(json.dumps(_peft_config(weights.layout, state), indent=2), "utf-8")
        (work / "state.json").write_text(state.model_dump_json(indent=2), "utf-8")
        if adapter is not None:
            save_file({"mean": adapter.mean.cpu(), "square": adapter.square.cpu()}, work / "optimizer.safetensors")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(work, folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load(path: str) -> Checkpoint:
    """Reads a folder written by `save`, or any LoRA that peft saved. ConfigError when it is none or has expired."""
    folder = Path(path).expanduser()
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        tensors = load_file(folder / "adapter_model.safetensors")
        state = _state(folder, settings)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ConfigError(f"no saved weights in {path!r}: {error.filename or error} is missing") from error
    except (json.JSONDecodeError, ValidationError) as error:
        raise ConfigError(f"the saved weights in {path!r} cannot be read: {error}") from error
    _refuse_variants(settings, path)
    if state.expires is not None and state.expires < time.time():
        raise ConfigError(f"the weights in {path!r} were saved to expire at {time.ctime(state.expires)}")
    optimizer = folder / "optimizer.safetensors"
    moments = load_file(optimizer) if optimizer.is_file() else None
    return Checkpoint(
        state=state,
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        tensors={
            name.removeprefix(_PREFIX).removesuffix(".weight"): tensor.float() for name, tensor in tensors.items()
        },
        moments=(moments["mean"], moments["square"]) if moments is not None else None,
    )


def _state(folder: Path, settings: Mapping[str, Any]) -> State:
    file = folder / "state.json"
    if not file.is_file():
        return State(base_model=settings.get("base_model_name_or_path") or "")
    return State.model_validate_json(file.read_text(encoding="utf-8"))


def _refuse_variants(settings: Mapping[str, Any], path: str) -> None:
    variants = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias")
    if found := [key for key in variants if settings.get(key)]:
        raise ConfigError(f"the LoRA in {path!r} uses {', '.join(found)}; only plain LoRA can be loaded")


def _peft_config(layout: Layout, state: State) -> dict[str, Any]:
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": state.base_model,
        "r": layout.rank,
        "lora_alpha": layout.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": sorted({slot.name for slot in layout.slots}),
    }

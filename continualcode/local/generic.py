"""Every other causal language model, through transformers itself; knows no architecture.

LoRA is added behind each linear layer by a hook, as peft's layers would, but with tensors that are handed over for the
length of one call: any number of snapshots share one base here too.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from continualcode.local.lora import Group, Part, Slot, Weights


class TransformersCache:
    """A transformers cache. Cut only where all its layers hold every token; else reused whole or not at all."""

    def __init__(self, data: Any) -> None:
        self._data = data

    @property
    def data(self) -> Any:
        return self._data

    @property
    def length(self) -> int:
        return int(self._data.get_seq_length())

    @property
    def nbytes(self) -> int:
        return sum(
            tensor.nbytes for layer in self._data.layers for tensor in vars(layer).values() if _is_tensor(tensor)
        )

    def fork(self, length: int, room: int) -> TransformersCache | None:
        if length != self.length and not self._croppable():
            return None
        data = copy.deepcopy(self._data)
        if length != self.length:
            data.crop(length - self.length)
        return TransformersCache(data)

    def repeat(self, count: int) -> TransformersCache:
        data = copy.deepcopy(self._data)
        data.batch_repeat_interleave(count)
        return TransformersCache(data)

    def keep(self, rows: Sequence[int]) -> None:
        self._data.batch_select_indices(torch.tensor(list(rows)))

    def _croppable(self) -> bool:
        from transformers.cache_utils import DynamicLayer

        return all(type(layer) is DynamicLayer for layer in self._data.layers)


class TransformersNetwork:
    """Any `AutoModelForCausalLM`. Its features are already logits [B, W, V].

    LoRA goes on every nn.Linear (and GPT-2's Conv1D); experts that are kept in one stacked parameter have none.
    """

    def __init__(self, model: Any) -> None:
        self._model = model.eval().requires_grad_(False)
        config = model.config.get_text_config()
        self.context_length = int(getattr(config, "max_position_embeddings", 0) or 2**31)
        self.vocabulary = int(model.get_output_embeddings().weight.shape[0])
        self.device: torch.device = model.device
        taken = inspect.signature(model.forward).parameters
        self._selects = "logits_to_keep" in taken
        self._cache_name = "cache" if "cache" in taken else "past_key_values"  # renamed in transformers 5.24
        self._lora: dict[str, Part] = {}
        self.groups = self._hook()

    def new_cache(self, room: int) -> TransformersCache:
        from transformers import DynamicCache

        return TransformersCache(DynamicCache(config=self._model.config))

    def read(self, weights: Weights | None, tokens_BN: Tensor, cache: Any, wanted: Tensor) -> Tensor:
        """Logits [B, W, V]; see Network.read."""
        options: dict[str, Any] = {"input_ids": tokens_BN, "use_cache": cache is not None}
        if cache is not None:
            options[self._cache_name] = cache.data
        if self._selects:
            options["logits_to_keep"] = wanted
        parts = weights.parts if weights is not None else ()
        self._lora = {part.slots[0].name: part for part in parts if part is not None}
        try:
            logits: Tensor = self._model(**options).logits
        finally:
            self._lora = {}
        return logits if self._selects else logits[:, wanted]

    def logits(self, weights: Weights | None, features: Tensor) -> Tensor:
        return features.float()

    def _hook(self) -> tuple[Group, ...]:
        """Puts LoRA behind every linear layer; returns their slots, each a group of its own."""
        from transformers.pytorch_utils import Conv1D

        head = self._model.get_output_embeddings()
        tied = head.weight is self._model.get_input_embeddings().weight
        groups: list[Group] = []
        for name, module in self._model.named_modules():
            if not isinstance(module, nn.Linear | Conv1D) or (module is head and tied):
                continue
            outputs, inputs = module.weight.shape if isinstance(module, nn.Linear) else module.weight.shape[::-1]
            groups.append((Slot(name, inputs, outputs),))
            module.register_forward_hook(self._adder(name))
        return tuple(groups)

    def _adder(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            if name not in self._lora:
                return output
            part, x = self._lora[name], inputs[0]
            if part.observe is not None:
                part.observe(x.reshape(-1, x.shape[-1]))
            return output + F.linear(F.linear(x, part.a.to(x.dtype)), part.bs[0].to(x.dtype)) * part.scale

        return add


def _is_tensor(value: object) -> TypeGuard[Tensor]:
    return isinstance(value, Tensor)

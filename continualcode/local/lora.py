"""LoRA as flat float32 tensors: layout, Adam, frozen snapshots, peft's file format; knows nothing of any model.

A layer's effect is y += alpha / rank * B (A x) with A [rank, inputs] and B [outputs, rank]. Layers that read the same
input (q, k, v; gate, up) form a group whose A's lie next to each other, so that they are one matrix product.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import torch

from continualcode.errors import BackendError, ConfigError
from continualcode.local.null_space import take_out

_versions = itertools.count(1)
_in_use: weakref.WeakSet[Weights] = weakref.WeakSet()


@dataclass(frozen=True, slots=True)
class Slot:
    """A linear layer that LoRA can be put on: its module's name in transformers and its sizes.

    `offset` is its first row in the output of its group.
    """

    name: str
    inputs: int
    outputs: int
    offset: int = 0

    @property
    def kind(self) -> str:
        """The last part of the name, e.g. q_proj."""
        return self.name.rpartition(".")[2]


Group = tuple[Slot, ...]


@dataclass(frozen=True, eq=False)
class Part:
    """One group's tensors: `a` [slots * rank, inputs] and the B's [outputs, rank] in slot order. `observe` is shown the
    group's inputs [N, inputs] as they go through."""

    slots: Group
    a: torch.Tensor
    bs: tuple[torch.Tensor, ...]
    scale: float
    observe: Callable[[torch.Tensor], None] | None = None
    _joined: dict[torch.dtype, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, repr=False)

    def joined(self, outputs: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """A^T [inputs, slots * rank] and scale * B^T [slots * rank, outputs], zero between slots; made once."""
        if dtype not in self._joined:
            b = torch.zeros(self.a.shape[0], outputs, dtype=dtype, device=self.a.device)
            rank = self.bs[0].shape[1]
            for index, (slot, part) in enumerate(zip(self.slots, self.bs, strict=True)):
                columns = slice(slot.offset, slot.offset + slot.outputs)
                b[index * rank : (index + 1) * rank, columns] = part.t() * self.scale
            self._joined[dtype] = self.a.to(dtype).t(), b
        return self._joined[dtype]


@dataclass(frozen=True)
class Layout:
    """Where each A and B lies in a flat tensor. `groups` has one entry per group of the model, empty where untrained."""

    groups: tuple[Group, ...]
    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    @cached_property
    def size(self) -> int:
        return sum(self.rank * (slot.inputs + slot.outputs) for group in self.groups for slot in group)

    @property
    def slots(self) -> list[Slot]:
        return [slot for group in self.groups for slot in group]

    def parts(self, flat: torch.Tensor) -> tuple[Part | None, ...]:
        """Views into `flat`, one per group of the model; None where nothing is trained."""
        start = 0
        parts: list[Part | None] = []
        for group in self.groups:
            if not group:
                parts.append(None)
                continue
            sizes = [len(group) * self.rank * group[0].inputs, *(slot.outputs * self.rank for slot in group)]
            a, *bs = torch.split(flat[start : start + sum(sizes)], sizes)
            start += sum(sizes)
            shaped = tuple(b.view(slot.outputs, self.rank) for b, slot in zip(bs, group, strict=True))
            parts.append(Part(group, a.view(-1, group[0].inputs), shaped, self.scale))
        return tuple(parts)

    def named(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views under peft's names, `<module>.lora_A` and `<module>.lora_B`."""
        tensors = {}
        for part in self.parts(flat):
            for index, slot in enumerate(part.slots if part else ()):
                assert part is not None
                tensors[f"{slot.name}.lora_A"] = part.a[index * self.rank : (index + 1) * self.rank]
                tensors[f"{slot.name}.lora_B"] = part.bs[index]
        return tensors


@dataclass(frozen=True, eq=False)
class Weights:
    """One set of LoRA weights to run the model with. Equal `version` means equal numbers."""

    layout: Layout
    flat: torch.Tensor
    version: int
    parts: tuple[Part | None, ...]

    def __post_init__(self) -> None:
        _in_use.add(self)

    def averaged(self, newer: Weights, rate: float) -> Weights:
        """(1 - rate) own + rate newer, number by number."""
        flat = torch.lerp(self.flat, newer.flat, rate)
        return Weights(self.layout, flat, next(_versions), self.layout.parts(flat))

    def of_layer(self, index: int) -> tuple[Part | None, ...]:
        """The four groups of a layer of Llama's shape: qkv, o, gate and up, down."""
        return self.parts[4 * index : 4 * index + 4]


@dataclass(frozen=True, slots=True)
class Adam:
    """One step's settings, as tinker.AdamParams has them. A clip norm of 0 is no clipping."""

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0


@dataclass
class Adapter:
    """LoRA weights being trained, with their gradient and Adam's moments. In `null_space` A is not: only B is."""

    layout: Layout
    flat: torch.Tensor
    null_space: bool = False
    grad: torch.Tensor = field(init=False)
    mean: torch.Tensor = field(init=False)
    square: torch.Tensor = field(init=False)
    step: int = 0
    has_gradient: bool = False

    def __post_init__(self) -> None:
        self.grad, self.mean, self.square = (torch.zeros_like(self.flat) for _ in range(3))
        self._renew()

    @classmethod
    def random(cls, layout: Layout, seed: int | None, device: torch.device) -> Adapter:
        """A uniform in +-1/sqrt(inputs) as in peft, B zero: the effect on the model is none."""
        generator = torch.Generator().manual_seed(seed if seed is not None else torch.seed() % 2**63)
        flat = torch.zeros(layout.size)
        for part in layout.parts(flat):
            if part is not None:
                bound = 1 / math.sqrt(part.a.shape[1])
                part.a.uniform_(-bound, bound, generator=generator)
        return cls(layout, flat.to(device))

    @property
    def weights(self) -> Weights:
        """The live weights; valid until the next `adam` or `load`."""
        return self._weights

    def snapshot(self) -> Weights:
        """A frozen copy."""
        flat = self.flat.clone()
        return Weights(self.layout, flat, self._weights.version, self.layout.parts(flat))

    def trainable(self) -> Weights:
        """Leaves whose gradients are added into `grad` by autograd."""
        gradients = self.layout.parts(self.grad)
        parts: list[Part | None] = []
        for part, gradient in zip(self.layout.parts(self.flat), gradients, strict=True):
            if part is None or gradient is None:
                parts.append(None)
                continue
            a = part.a if self.null_space else _leaf(part.a, gradient.a)
            parts.append(Part(part.slots, a, tuple(map(_leaf, part.bs, gradient.bs)), part.scale))
        return Weights(self.layout, self.flat, self._weights.version, tuple(parts))

    @property
    def trained(self) -> bool:
        """Whether it has an effect on the model: some B is not zero."""
        return any(bool(b.any()) for part in self.layout.parts(self.flat) if part is not None for b in part.bs)

    @contextlib.contextmanager
    def into_null_space(self) -> Iterator[Weights]:
        """Weights to read tokens with that take out of every A what the inputs that go through explain of it.

        B alone is trained afterwards, so that B (A x) stays near zero for inputs like those (LoRA-Null with A frozen, arXiv
        2503.02659; InfLoRA, arXiv 2404.00228). Rows keep their lengths, and with them what a step does to other inputs.
        """
        parts = self.layout.parts(self.flat)
        drawn = [(part, part.a.clone()) for part in parts if part is not None]
        takers = iter([partial(take_out, a) for _, a in drawn])
        watching = (part and replace(part, observe=next(takers)) for part in parts)
        yield Weights(self.layout, self.flat, next(_versions), tuple(watching))
        for part, a in drawn:
            part.a.copy_(a * (part.a.norm(dim=1, keepdim=True) / a.norm(dim=1, keepdim=True)))
        self.null_space = True
        self._renew()

    def adam(self, settings: Adam) -> float:
        """One step on the accumulated gradient, which it clears; returns the gradient's norm before clipping.

        Raises BackendError, and changes nothing, without a gradient or when it is not finite.
        """
        if not self.has_gradient:
            raise BackendError("optim_step without a gradient: no forward_backward has succeeded since the last step")
        norm = float(self.grad.norm())
        if not math.isfinite(norm):
            self.clear_gradient()
            raise BackendError(f"the gradient's norm is {norm}: the step was not taken and the gradient dropped")
        if 0 < settings.grad_clip_norm < norm:
            self.grad.mul_(settings.grad_clip_norm / norm)
        self.step += 1
        self.mean.lerp_(self.grad, 1 - settings.beta1)
        self.square.mul_(settings.beta2).addcmul_(self.grad, self.grad, value=1 - settings.beta2)
        denominator = self.square.sqrt().div_(math.sqrt(1 - settings.beta2**self.step)).add_(settings.eps)
        if settings.weight_decay:
            self.flat.mul_(1 - settings.learning_rate * settings.weight_decay)
        self.flat.addcdiv_(self.mean, denominator, value=-settings.learning_rate / (1 - settings.beta1**self.step))
        self.clear_gradient()
        self._renew()
        return norm

    def clear_gradient(self) -> None:
        self.grad.zero_()
        self.has_gradient = False

    def load(
        self,
        tensors: Mapping[str, torch.Tensor],
        moments: Sequence[torch.Tensor] | None,
        step: int,
        *,
        null_space: bool = False,
    ) -> None:
        """Replaces the weights, and Adam's moments by those given or by zero. All of it or nothing."""
        flat = flatten(self.layout, tensors)
        mean, square = moments if moments is not None else (torch.zeros_like(flat), torch.zeros_like(flat))
        if mean.shape != flat.shape or square.shape != flat.shape:
            raise ConfigError(f"optimizer state of {mean.numel()} numbers for {flat.numel()} weights")
        self.flat.copy_(flat)
        self.mean.copy_(mean)
        self.square.copy_(square)
        self.step = step if moments is not None else 0
        self.null_space = null_space
        self.clear_gradient()
        self._renew()

    def _renew(self) -> None:
        self._weights = Weights(self.layout, self.flat, next(_versions), self.layout.parts(self.flat))


def versions_in_use() -> frozenset[int]:
    """Versions of which some `Weights` still exist; 0 is the base model."""
    return frozenset({0, *(weights.version for weights in _in_use)})


def frozen(layout: Layout, tensors: Mapping[str, torch.Tensor], device: torch.device) -> Weights:
    """Weights for sampling only, from tensors under peft's names."""
    flat = flatten(layout, tensors).to(device)
    return Weights(layout, flat, next(_versions), layout.parts(flat))


def flatten(layout: Layout, tensors: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """The flat form of named tensors. ConfigError unless they are exactly the layout's."""
    flat = torch.zeros(layout.size)
    views = layout.named(flat)
    if views.keys() != tensors.keys():
        missing, extra = sorted(views.keys() - tensors.keys())[:3], sorted(tensors.keys() - views.keys())[:3]
        raise ConfigError(f"the saved LoRA has other layers than this client: missing {missing}, unknown {extra}")
    for name, view in views.items():
        if view.shape != tensors[name].shape:
            raise ConfigError(f"{name} has shape {list(tensors[name].shape)}, this client's has {list(view.shape)}")
        view.copy_(tensors[name])
    return flat


def _leaf(view: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    leaf = view.detach().requires_grad_()
    leaf.grad = gradient
    return leaf

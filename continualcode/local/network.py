"""What the engine asks of a model: the seam between the lean forward and transformers' own.

B sequences of N new tokens each, S tokens seen before and now, W wanted positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from continualcode.local.lora import Group, Weights


class Cache(Protocol):
    """Keys and values of the tokens a network has read, for B equally long sequences."""

    @property
    def length(self) -> int:
        """S, tokens read so far."""
        ...

    @property
    def nbytes(self) -> int: ...

    def fork(self, length: int, room: int) -> Cache | None:
        """A copy of the first `length` tokens with room for `room` in all; None if it cannot be cut there."""
        ...

    def repeat(self, count: int) -> Cache:
        """The same tokens as `count` sequences."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Drops all sequences but these."""
        ...


class Network(Protocol):
    """A frozen base model that runs with any LoRA weights over it, or with none."""

    @property
    def groups(self) -> tuple[Group, ...]:
        """Every linear layer LoRA can be put on, those that read the same input together."""
        ...

    @property
    def vocabulary(self) -> int: ...

    @property
    def context_length(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def new_cache(self, room: int) -> Cache: ...

    def read(
        self, weights: Weights | None, tokens_BN: torch.Tensor, cache: Cache | None, wanted: torch.Tensor
    ) -> torch.Tensor:
        """Features [B, W, F] at the wanted positions of the new tokens; the tokens are appended to the cache.

        Without a cache the result carries gradients to the weights' leaves, if they ask for them.
        """
        ...

    def logits(self, weights: Weights | None, features: torch.Tensor) -> torch.Tensor:
        """float32 logits [..., V] of features [..., F]."""
        ...


@runtime_checkable
class PackedNetwork(Protocol):
    """A network that reads sequences with a common beginning as one, so that this is read once."""

    def read_packed(
        self,
        weights: Weights | None,
        tokens_N: torch.Tensor,
        tails: Sequence[tuple[int, int]],
        wanted: torch.Tensor,
        before: Cache | None = None,
    ) -> torch.Tensor:
        """Features [W, F] at the wanted places, in order, of the tokens: a beginning, then each sequence's own rest, from
        its `tails` (first and last + 1, none of them empty) on. Carries gradients as `read` does, and none through what
        was read `before` into a cache, which is left as it is; places count from its end."""
        ...

"""One more token of one sequence on a CPU: the same layers as llama.py in the fewest calls.

Weights are read once for each token, so that time goes to memory and to the number of calls: buffers are not
reshaped, residuals are added by the matrix product, and queries and keys are rotated together.
D head size, S tokens seen so far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from continualcode.local.lora import Weights

if TYPE_CHECKING:
    from continualcode.local.llama import Layer, Llama, LlamaCache


def step(network: Llama, weights: Weights | None, token: Tensor, cache: LlamaCache) -> Tensor:
    """The last layer's output [1, hidden] for a token [1] behind those in the cache, before the final norm."""
    x = network.embedding[token]
    cos, sin = network.rope_at(cache.length, cache.length + 1)
    half = network.head_size // 2
    turn = cos.view(2, half), torch.cat((-sin[0, :half], sin[0, half:])).view(2, half)
    for index, layer in enumerate(network.layers):
        attention, out, wide, down = weights.of_layer(index) if weights is not None else (None,) * 4
        qkv = layer.qkv.row(_normed(x, layer.input_norm, network.epsilon), attention)
        x = layer.o.row(_attention(network, layer, qkv, turn, cache, index), out, x)
        gate, up = layer.gate_up.row(_normed(x, layer.mlp_norm, network.epsilon), wide).chunk(2, 1)
        x = layer.down.row(F.silu(gate).mul_(up), down, x)
    cache.commit(1)
    return x


def _attention(
    network: Llama, layer: Layer, qkv: Tensor, turn: tuple[Tensor, Tensor], cache: LlamaCache, index: int
) -> Tensor:
    """[1, H * D] of queries, keys and values [1, (H + 2 K) * D], which are written to the cache."""
    size, groups = network.head_size, network.key_heads
    heads = qkv.view(-1, size)
    q_and_k = heads[:-groups]
    if layer.q_norm is not None and layer.k_norm is not None:
        q, k = heads[: -2 * groups], heads[-2 * groups : -groups]
        q = F.rms_norm(q, (size,), layer.q_norm, network.epsilon)
        q_and_k = torch.cat((q, F.rms_norm(k, (size,), layer.k_norm, network.epsilon)))
    halves = q_and_k.view(-1, 2, size // 2)
    turned = torch.addcmul(halves * turn[0], halves.flip(1), turn[1]).view(-1, size)
    k, v = cache.write(index, turned[-groups:], heads[-groups:])
    return F.scaled_dot_product_attention(turned[:-groups].view(1, groups, -1, size), k, v).view(1, -1)


def _normed(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    row = x.view(-1)
    mean = float(torch.dot(row, row)) / len(row)
    return torch.mul(x, weight).mul_((mean + epsilon) ** -0.5)

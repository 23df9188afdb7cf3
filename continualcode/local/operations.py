"""The steps of a transformer layer with gradients written by hand, to keep little and to recompute what is cheap.

Frozen weights get no gradient. B sequences, W queries, S keys, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK = 64
"""Queries whose scores are alive at once in the backward on a CPU."""


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """weight * x / rms(x), the mean taken in float32."""
    if x.requires_grad:
        y: Tensor = _RmsNorm.apply(x, weight, epsilon)  # type: ignore[no-untyped-call]
        return y
    if x.dtype == torch.float32:
        return F.rms_norm(x, weight.shape, weight, epsilon)
    return _RmsNorm.compute(x, weight, epsilon)[0]


def swiglu(gate_up: Tensor) -> Tensor:
    """silu(gate) * up of [..., 2 F] to [..., F]; without gradient, which is `swiglu_gradient`."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)


def swiglu_gradient(gate_up: Tensor, grad: Tensor) -> Tensor:
    """Of [..., 2 F], from the gradient [..., F] of `swiglu`."""
    gate, up = gate_up.chunk(2, -1)
    out = torch.empty_like(gate_up)
    grad_gate, grad_up = out.chunk(2, -1)
    sigmoid = torch.sigmoid(gate)
    torch.mul(grad, gate, out=grad_up).mul_(sigmoid)
    # silu'(g) = s (1 + g (1 - s))
    torch.mul(gate, 1 - sigmoid, out=grad_gate).add_(1).mul_(sigmoid).mul_(up).mul_(grad)
    return out


def attend(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, start: int) -> Tensor:
    """Causal attention [B, W, H * D] of q [B, H, W, D] over k and v [B, K, S, D].

    Query i stands at position start + i, or at start + rows[i] where rows are given.
    """
    batch, heads, queries, size = q.shape
    groups = k.shape[1]
    if queries == 1 and start + (int(rows[0]) if rows is not None else 0) == k.shape[2] - 1:
        out = F.scaled_dot_product_attention(q.reshape(batch, groups, heads // groups, size), k, v)
        return out.reshape(batch, 1, heads * size)
    if rows is None and q.requires_grad and q.device.type == "cpu" and q.dtype == torch.float32:
        out = _Attention.apply(q, k, v, start)  # type: ignore[no-untyped-call]
    else:
        out = _mixed(q, k, v, rows, start)
    return out.transpose(1, 2).reshape(batch, queries, heads * size)


def attend_packed(
    q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, tails: Sequence[tuple[int, int]], start: int = 0
) -> Tensor:
    """The same for sequences packed behind a common beginning: each tail, first..end, sees that and itself.

    The queries are those from `start` on, which lies in the common beginning, and `rows` count from there.
    """
    first = tails[0][0]
    mixed = []
    for begin, end in ((0, first), *tails):
        here, own = slice(max(begin - start, 0), end - start), None
        if end == start:
            continue
        if rows is not None:
            inside = ((rows >= begin - start) & (rows < end - start)).nonzero()[:, 0].tolist()
            if not inside:
                continue
            here = slice(inside[0], inside[-1] + 1)
            own = rows[here] + start - begin
        keys, values = (t[:, :, :end] if not begin else _behind(t, first, begin, end) for t in (k, v))
        mixed.append(attend(q[:, :, here], keys, values, own, first if begin else start if own is None else 0))
    return torch.cat(mixed, 1)


def _behind(t: Tensor, first: int, begin: int, end: int) -> Tensor:
    return torch.cat([t[:, :, :first], t[:, :, begin:end]], 2)


def _mixed(q: Tensor, k: Tensor, v: Tensor, rows: Tensor | None, start: int) -> Tensor:
    """[B, H, W, D] by torch's own kernel, which wants a key head for every query head."""
    queries, shared = q.shape[2], q.shape[1] // k.shape[1]
    mask = None
    if rows is not None or start:
        places = torch.arange(queries, device=q.device) if rows is None else rows
        mask = torch.arange(k.shape[2], device=q.device) <= (places + start)[:, None]
    k, v = (t.repeat_interleave(shared, 1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def compute(x: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
        return (wide * scale).to(x.dtype) * weight, scale

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        y, scale = _RmsNorm.compute(x, weight, epsilon)
        ctx.save_for_backward(x, scale)
        ctx.weight = weight
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale = ctx.saved_tensors
        weighted, wide = (grad * ctx.weight).float(), x.float()
        along = (weighted * wide).mean(-1, keepdim=True) * scale**2
        return (weighted - wide * along).mul_(scale).to(x.dtype), None, None


class _Attention(torch.autograd.Function):
    """Its backward goes block by block over the queries, so that nothing above the diagonal is multiplied, and computes
    the probabilities again: neither they nor the output nor repeated keys and values are kept."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, start: int) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.start = start
        return _mixed(q, k, v, None, start)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v = ctx.saved_tensors
        grad_q, grad_k, grad_v = torch.empty(q.shape, dtype=q.dtype), torch.zeros_like(k), torch.zeros_like(v)
        groups, scale = k.shape[1], q.shape[3] ** -0.5
        for first in range(0, q.shape[2], BLOCK):
            block = slice(first, first + BLOCK)
            probabilities, keys = _probabilities(q[:, :, block], k, ctx.start + first)
            out = _grouped(grad[:, :, block], groups)
            _flat(grad_v[:, :, :keys]).baddbmm_(probabilities.transpose(1, 2), out)
            grad_p = torch.bmm(out, _flat(v[:, :, :keys]).transpose(1, 2))
            grad_s = torch._softmax_backward_data(grad_p, probabilities, -1, q.dtype)
            mixed = torch.bmm(grad_s, _flat(k[:, :, :keys])).mul_(scale)
            grad_q[:, :, block] = _unflat(mixed, groups, q.shape[1])
            _flat(grad_k[:, :, :keys]).baddbmm_(grad_s.transpose(1, 2), _grouped(q[:, :, block], groups), alpha=scale)
        return grad_q, grad_k, grad_v, None


def _probabilities(q: Tensor, k: Tensor, position: int) -> tuple[Tensor, int]:
    """Of queries at `position` on, [B * K, H / K * W, keys], and how many keys they can see."""
    batch, heads, queries, size = q.shape
    groups, keys = k.shape[1], position + queries
    scores = torch.bmm(_grouped(q, groups) * size**-0.5, _flat(k[:, :, :keys]).transpose(1, 2))
    hidden = torch.ones(queries, queries, dtype=torch.bool).triu_(1)
    scores.view(batch * heads, queries, keys)[:, :, position:].masked_fill_(hidden, -torch.inf)
    return scores.softmax(-1), keys


def _grouped(q: Tensor, groups: int) -> Tensor:
    """[B, H, W, D] to [B * K, H / K * W, D]."""
    return q.reshape(q.shape[0] * groups, -1, q.shape[3])


def _unflat(rows: Tensor, groups: int, heads: int) -> Tensor:
    """[B * K, H / K * W, D] to [B, H, W, D]."""
    return rows.view(rows.shape[0] // groups, heads, -1, rows.shape[2])


def _flat(k: Tensor) -> Tensor:
    """[B, K, S, D] to a view [B * K, S, D]."""
    return k.flatten(0, 1)

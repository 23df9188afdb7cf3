"""A frozen matrix with LoRA beside it: y = W x + b + scale * B (A x); knows nothing of where it is used.

One row of float32 on a CPU is a matrix-vector product, bound by memory. Wide matrices are kept column by column there:
torch's BLAS then reads them at 22 to 35 GB/s and not at 15 (AVX2, two cores), and products with many rows are as fast.
Gradients are written out by hand: no copies of the output's gradient per LoRA slice, none for the frozen matrix.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from continualcode.local.lora import Part
from continualcode.local.operations import swiglu, swiglu_gradient

FEW = 8
"""Rows up to which the number of calls costs more than multiplying the zeros of a joined B."""


class Linear:
    """W [O, I] and b [O], never trained. With `quantize`, rows of single tokens use an int8 copy of W."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, quantize: bool = False) -> None:
        self._by_row = weight.device.type == "cpu" and weight.dtype == torch.float32
        self._by_column = self._by_row and weight.shape[0] >= weight.shape[1]
        # A copy in either case: `weight` may be a window into a file.
        copied = (weight.t() if self._by_column else weight).clone(memory_format=torch.contiguous_format)
        self.weight = copied.t() if self._by_column else copied
        self.bias = bias
        self._int8 = _quantized(weight) if quantize else None

    def row(self, x: Tensor, part: Part | None, base: Tensor | None = None) -> Tensor:
        """x [1, I] to [1, O], added to `base` where given; float32 on a CPU, without gradient."""
        y = self._product(x)
        if base is not None:
            y += base
        if self.bias is not None:
            y += self.bias
        if part is not None:
            a, b = part.joined(y.shape[1], y.dtype)
            y.addmm_(torch.mm(x, a), b)
        return y

    def _product(self, x: Tensor) -> Tensor:
        """W x. For one row torch's BLAS reads a matrix on one thread, but a batch of matrices on several."""
        if self._int8 is not None:
            return torch._weight_int8pack_mm(x.bfloat16(), *self._int8).float()
        outputs, inputs = self.weight.shape
        pieces = _pieces(inputs if self._by_column else outputs, torch.get_num_threads())
        if pieces == 1:
            return torch.mm(x, self.weight.t())
        if self._by_column:
            return torch.bmm(x.view(pieces, 1, -1), self.weight.t().view(pieces, -1, outputs)).sum(0)
        rows = self.weight.view(pieces, -1, inputs).transpose(1, 2)
        return torch.bmm(x.expand(pieces, 1, inputs), rows).view(1, outputs)

    def rows(self, first: int, end: int) -> Linear:
        """The layer that computes only outputs first..end."""
        part = copy.copy(self)
        part.weight, part._int8, part._by_row = self.weight[first:end], None, False
        part.bias = None if self.bias is None else self.bias[first:end]
        return part

    def __call__(self, x: Tensor, part: Part | None, *, gated: bool = False) -> Tensor:
        """x [..., I] to [..., O]; with `gated` x is gate and up [..., 2 I] and W gets their swiglu, which is not kept
        for the backward but computed again."""
        if torch.is_grad_enabled() and (x.requires_grad or (part is not None and part.bs[0].requires_grad)):
            flat = x.reshape(-1, x.shape[-1])
            lora = (part.a, *part.bs) if part else ()
            y: Tensor = _Trained.apply(flat, self, part, gated, *lora)  # type: ignore[no-untyped-call]
            return y.view(*x.shape[:-1], -1)
        if gated:
            x = swiglu(x)
        if part is not None and part.observe is not None:
            part.observe(x.reshape(-1, x.shape[-1]))
        if self._by_row and x.numel() == x.shape[-1]:
            return self.row(x.reshape(1, -1), part).view(*x.shape[:-1], -1)
        y = F.linear(x.reshape(-1, x.shape[-1]), self.weight, self.bias)
        if part is not None and len(y) <= FEW:
            a, b = part.joined(y.shape[1], y.dtype)
            y.addmm_(x.reshape(-1, x.shape[-1]) @ a, b)
        else:
            _add_lora(y, x.reshape(-1, x.shape[-1]), part)
        return y.view(*x.shape[:-1], -1)


def row_of(part: Part, first: int, end: int) -> Part | None:
    """The LoRA of outputs first..end, which must not cut through a slot."""
    chosen = [i for i, slot in enumerate(part.slots) if first <= slot.offset < end]
    if not chosen:
        return None
    rank = part.bs[0].shape[1]
    slots = tuple(replace(part.slots[i], offset=part.slots[i].offset - first) for i in chosen)
    a = part.a[chosen[0] * rank : (chosen[-1] + 1) * rank]
    return Part(slots, a, tuple(part.bs[i] for i in chosen), part.scale)


def _add_lora(y: Tensor, x: Tensor, part: Part | None) -> Tensor | None:
    """Adds to y [M, O] in place; returns A x [M, slots * rank]."""
    if part is None:
        return None
    hidden = x @ part.a.to(x.dtype).t()
    for slot, b, h in zip(part.slots, part.bs, hidden.chunk(len(part.bs), 1), strict=True):
        y[:, slot.offset : slot.offset + slot.outputs].addmm_(h, b.to(x.dtype).t(), alpha=part.scale)
    return hidden


class _Trained(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, linear: Linear, part: Part | None, gated: bool, *lora: Tensor) -> Tensor:
        read = swiglu(x) if gated else x
        y = F.linear(read, linear.weight, linear.bias)
        ctx.part, ctx.weight, ctx.gated, ctx.hidden = part, linear.weight, gated, _add_lora(y, read, part)
        ctx.save_for_backward(x if part is not None or gated else None, *lora)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, *lora = ctx.saved_tensors
        grad_x = grad @ ctx.weight if ctx.needs_input_grad[0] else None
        if ctx.part is None:
            if ctx.gated and grad_x is not None:
                grad_x = swiglu_gradient(x, grad_x)
            return grad_x, None, None, None
        a, *bs = lora
        grad_hidden, grad_bs = torch.empty_like(ctx.hidden), []
        chunks = zip(ctx.part.slots, bs, ctx.hidden.chunk(len(bs), 1), grad_hidden.chunk(len(bs), 1), strict=True)
        for slot, b, hidden, grad_h in chunks:
            piece = grad[:, slot.offset : slot.offset + slot.outputs]
            torch.mm(piece, b.to(grad.dtype), out=grad_h).mul_(ctx.part.scale)
            grad_bs.append((piece.t() @ hidden).mul_(ctx.part.scale).to(b.dtype))
        if grad_x is not None:
            grad_x.addmm_(grad_hidden, a.to(grad.dtype))
        read = swiglu(x) if ctx.gated else x
        grad_a = (grad_hidden.t() @ read).to(a.dtype) if ctx.needs_input_grad[4] else None
        if ctx.gated and grad_x is not None:
            grad_x = swiglu_gradient(x, grad_x)
        return grad_x, None, None, None, grad_a, *grad_bs


def _pieces(length: int, threads: int) -> int:
    """The largest power of two up to 8 that divides the length and is no more than the threads."""
    return max(pieces for pieces in (1, 2, 4, 8) if pieces <= max(threads, 1) and length % pieces == 0)


def _quantized(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 by output row, and its bfloat16 scales."""
    scale = (weight.abs().amax(1) / 127).clamp(min=1e-12).bfloat16()
    return (weight / scale.float()[:, None]).round().clamp(-127, 127).to(torch.int8), scale

"""The gradients of losses over data, added up in an adapter; knows nothing of clients or files.

N tokens of a datum, K targets per token, W positions that have to be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from continualcode.errors import ConfigError
from continualcode.local import losses
from continualcode.local.engine import CHUNK, Engine
from continualcode.local.lora import Adapter, Weights


@dataclass(frozen=True, slots=True)
class Item:
    """One datum, checked: tokens [N] and the loss's inputs, each [N] or [N, K]."""

    tokens: list[int]
    inputs: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss and its settings."""

    name: str
    config: losses.LossConfig = None


@dataclass(frozen=True, slots=True)
class Result:
    """Log-probabilities of a datum's targets and its loss at each, in the shape of the targets."""

    logprobs: Tensor
    loss: Tensor


class Gradients:
    """Evaluates losses with an adapter's live weights; `backward` adds to its gradient, all of a call or nothing."""

    def __init__(self, engine: Engine, adapter: Adapter) -> None:
        self._engine, self._adapter = engine, adapter

    def forward(self, items: Sequence[Item], loss: Loss) -> list[Result]:
        scored = [(item, self.logprobs(item)) for item in items]
        return [Result(lp, losses.elementwise(loss.name, lp, item.inputs, loss.config)) for item, lp in scored]

    def backward(self, items: Sequence[Item], loss: Loss) -> list[Result]:
        """Positions of cross_entropy whose weights are all 0 are not computed and read 0."""
        before = self._adapter.grad.clone() if self._adapter.has_gradient else None
        try:
            results = [self._backward(item, loss) for item in items]
        except BaseException:
            self._adapter.clear_gradient()
            if before is not None:
                self._adapter.grad.copy_(before)
                self._adapter.has_gradient = True
            raise
        self._adapter.has_gradient = True
        return results

    def backward_through(
        self, items: Sequence[Item], loss: Callable[[list[Tensor]], Tensor]
    ) -> tuple[Tensor, list[Result]]:
        """The gradient of any function of the targets' log-probabilities; its value, and the linear surrogate's."""
        logprobs = [self.logprobs(item).requires_grad_() for item in items]
        with torch.enable_grad():
            value = loss(logprobs)
            slopes = torch.autograd.grad(value, logprobs, allow_unused=True)
        linear = []
        for item, slope in zip(items, slopes, strict=True):
            if slope is None:
                raise ConfigError("the custom loss does not depend on the logprobs of every datum")
            linear.append(Item(item.tokens, {"target_tokens": item.inputs["target_tokens"], "weights": -slope}))
        return value.detach(), self.backward(linear, Loss("cross_entropy"))

    def logprobs(self, item: Item) -> Tensor:
        """Log-probabilities of all targets, in their shape."""
        targets = item.inputs["target_tokens"].to(self._engine.network.device)
        wide = targets.reshape(len(item.tokens), -1)
        chunks = self._engine.distributions(self._adapter.weights, item.tokens, range(len(item.tokens)))
        picked = [lp.gather(-1, ids) for lp, ids in zip(chunks, torch.split(wide, CHUNK), strict=True)]
        return torch.cat(picked).reshape(targets.shape).cpu()

    def _backward(self, item: Item, loss: Loss) -> Result:
        targets = item.inputs["target_tokens"]
        result = Result(torch.zeros(targets.shape), torch.zeros(targets.shape))
        rows = _rows(item, loss.name)
        if not len(rows):
            return result
        device = self._engine.network.device
        inputs = {key: tensor[rows].to(device) for key, tensor in item.inputs.items()}
        weights = self._adapter.trainable()
        with torch.enable_grad():
            # No token behind the last row can matter to it.
            tokens = torch.tensor([item.tokens[: int(rows[-1]) + 1]], device=device)
            features = self._engine.network.read(weights, tokens, None, rows.to(device))[0]
            scores = self._scores(weights, features, inputs["target_tokens"])
            values = losses.elementwise(loss.name, scores, inputs, loss.config)
            values.sum().backward()  # type: ignore[no-untyped-call]
        result.logprobs[rows], result.loss[rows] = scores.detach().float().cpu(), values.detach().float().cpu()
        return result

    def _scores(self, weights: Weights, features: Tensor, targets: Tensor) -> Tensor:
        """Log-probabilities of targets [W] or [W, K]; logits of more than CHUNK rows are recomputed in the backward."""

        def score(piece: Tensor, ids: Tensor) -> Tensor:
            logits = self._engine.network.logits(weights, piece)
            return logits.gather(-1, ids) - logits.logsumexp(-1, keepdim=True)

        ids = targets.reshape(len(targets), -1)
        if len(ids) <= CHUNK:
            return score(features, ids).reshape(targets.shape)
        pieces = zip(torch.split(features, CHUNK), torch.split(ids, CHUNK), strict=True)
        return torch.cat([recompute(score, *piece, use_reentrant=False) for piece in pieces]).reshape(targets.shape)


def _rows(item: Item, loss: str) -> Tensor:
    """Positions that have to be computed."""
    if loss != "cross_entropy":
        return torch.arange(len(item.tokens))
    weights = item.inputs["weights"].reshape(len(item.tokens), -1)
    return (weights != 0).any(1).nonzero()[:, 0]

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
from continualcode.local.network import PackedNetwork
from continualcode.types import Tokens, beginning_shared_by

PACKED = 1536
"""Tokens of sequences with a common beginning that are trained on in one pass: 1 MB of memory each, for 135M parameters."""


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
        """Positions of cross_entropy whose weights are all 0 are not computed and read 0.

        Its setting `constant_tokens`, n: keys and values of the first n tokens, which all data share, are taken as given,
        and no gradient runs through them. Where n tokens are most of a prompt that is most of the time; it is not the
        whole gradient. A network that does not read packed sequences computes the whole one.
        """
        before = self._adapter.grad.clone() if self._adapter.has_gradient else None
        try:
            results = self._backward(items, loss)
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

    def into_null_space(self, sequences: Sequence[Tokens]) -> None:
        """Draws every A away from what the layers read in these sequences; nothing where some B is not zero."""
        if self._adapter.trained:
            return
        tokens = dict(enumerate(sequences))
        together = isinstance(self._engine.network, PackedNetwork)
        with torch.no_grad(), self._adapter.into_null_space() as weights:
            for pack in packs(tokens, PACKED if together else 0):
                self._features(weights, [(tokens[i], torch.arange(len(tokens[i]))) for i in pack], 0)

    def logprobs(self, item: Item) -> Tensor:
        """Log-probabilities of all targets, in their shape."""
        targets = item.inputs["target_tokens"].to(self._engine.network.device)
        wide = targets.reshape(len(item.tokens), -1)
        chunks = self._engine.distributions(self._adapter.weights, item.tokens, range(len(item.tokens)))
        picked = [lp.gather(-1, ids) for lp, ids in zip(chunks, torch.split(wide, CHUNK), strict=True)]
        return torch.cat(picked).reshape(targets.shape).cpu()

    def _backward(self, items: Sequence[Item], loss: Loss) -> list[Result]:
        results = [Result(torch.zeros(s), torch.zeros(s)) for s in (i.inputs["target_tokens"].shape for i in items)]
        rows = [_rows(item, loss.name) for item in items]
        # No token behind the last row can matter to it.
        tokens = {i: tuple(items[i].tokens[: int(rows[i][-1]) + 1]) for i in range(len(items)) if len(rows[i])}
        together = isinstance(self._engine.network, PackedNetwork)
        constant = _constant(items, rows, loss) if together else 0
        for pack in packs(tokens, PACKED if together else 0):
            weights = self._adapter.trainable()
            with torch.enable_grad():
                read = self._features(weights, [(tokens[i], rows[i]) for i in pack], constant)
                total = torch.zeros((), device=self._engine.network.device)
                for i, features in zip(pack, read, strict=True):
                    inputs = {key: tensor[rows[i]].to(features.device) for key, tensor in items[i].inputs.items()}
                    scores = self._scores(weights, features, inputs["target_tokens"])
                    values = losses.elementwise(loss.name, scores, inputs, loss.config)
                    total = total + values.sum()
                    results[i].logprobs[rows[i]] = scores.detach().float().cpu()
                    results[i].loss[rows[i]] = values.detach().float().cpu()
                total.backward()  # type: ignore[no-untyped-call]
        return results

    def _features(self, weights: Weights, pack: Sequence[tuple[Tokens, Tensor]], constant: int) -> list[Tensor]:
        """Features [W, F] at each sequence's rows, their common beginning read once and the first `constant` before."""
        network = self._engine.network
        if not isinstance(network, PackedNetwork) or (len(pack) == 1 and not constant):
            [(tokens, rows)] = pack
            new = torch.tensor([tokens], device=network.device)
            return [network.read(weights, new, None, rows.to(network.device))[0]]
        before = self._engine.beginning(self._adapter.weights, pack[0][0][:constant]) if constant else None
        pack = [(tokens[constant:], rows - constant) for tokens, rows in pack]
        first = beginning_shared_by([tokens for tokens, _ in pack]) if len(pack) > 1 else 0
        packed, tails, places = list(pack[0][0][:first]), [], []
        for tokens, rows in pack:
            begin = len(packed)
            packed += tokens[first:]
            if len(packed) > begin:
                tails.append((begin, len(packed)))
            places.append(torch.where(rows < first, rows, rows - first + begin))
        wanted = torch.unique(torch.cat(places))
        features = network.read_packed(
            weights, torch.tensor(packed, device=network.device), tails, wanted.to(network.device), before
        )
        return [features[torch.searchsorted(wanted, place).to(network.device)] for place in places]

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


def packs(sequences: Mapping[int, Tokens], limit: int) -> list[list[int]]:
    """Which sequences to read together: those that share at least half of the shortest, up to `limit` tokens read."""
    made: list[list[int]] = []
    for index in sorted(sequences, key=lambda i: sequences[i]):
        pack = [*made[-1], index] if made else [index]
        members = [sequences[i] for i in pack]
        shared = beginning_shared_by(members)
        read = shared + sum(len(tokens) - shared for tokens in members)
        if (
            len(pack) > 1
            and read <= limit
            and 2 * shared >= min(map(len, members))
            and set(map(len, members)) != {shared}
        ):
            made[-1] = pack
        else:
            made.append([index])
    return made


def _constant(items: Sequence[Item], rows: Sequence[Tensor], loss: Loss) -> int:
    """Tokens at the beginning that no gradient runs through, checked."""
    constant = int((loss.config or {}).get("constant_tokens", 0))
    if constant == 0:
        return 0
    beginnings = {tuple(item.tokens[:constant]) for item in items}
    if constant < 0 or len(beginnings) > 1 or any(len(row) and int(row[0]) < constant for row in rows):
        raise ConfigError(
            f"constant_tokens={constant}: the data must share so many tokens at their beginning, with no weight there"
        )
    return constant


def _rows(item: Item, loss: str) -> Tensor:
    """Positions that have to be computed."""
    if loss != "cross_entropy":
        return torch.arange(len(item.tokens))
    weights = item.inputs["weights"].reshape(len(item.tokens), -1)
    return (weights != 0).any(1).nonzero()[:, 0]

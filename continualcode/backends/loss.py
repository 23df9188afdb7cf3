"""How a service reckons a cross-entropy, found out by its trainer's forward pass: what it divides the weighted sum by,
and whether it takes [T, K] targets. Knows nothing of samplers but the logprobs one gave."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np

from continualcode.backends import alignment
from continualcode.backends.alignment import NOISE, SAMPLED_AGAINST_RESCORED
from continualcode.backends.line import Line
from continualcode.errors import AlignmentError
from continualcode.types import Example, Floats, Tokens

PROMPT: Tokens = (1, 2, 3, 4)
Divisor: TypeAlias = Literal["sum", "positions", "weighted positions", "weights", "unknown"]


def example(width: int, prompt: int = 1) -> Example:
    """PROMPT with weights that tell every way of dividing a loss from every other: 0, 1, 4 (and twice that), of which a
    longer `prompt` leaves out the first."""
    tokens, weights_T = PROMPT[prompt:], np.array([0.0, 1.0, 4.0])[prompt - 1 :]
    ids_TK = np.array([[token + k for k in range(width)] for token in tokens])
    return Example(PROMPT[:prompt], tokens, ids_TK, weights_T[:, None] * (1.0 + np.arange(width)))


async def forward(training: Any, line: Line, width: int, sparse: bool = False) -> tuple[Floats, Mapping[str, float]]:
    """Of `sparse` targets the first row is empty."""
    probed = example(width, prompt=2 if sparse else 1)
    output = await line.ask(training.forward, [alignment.datum(probed, sparse=sparse)], "cross_entropy")
    (fields,) = output.loss_fn_outputs
    if "logprobs" not in fields:
        raise AlignmentError("a forward pass gives no logprobs")
    return alignment.datum_logprobs(fields["logprobs"], probed), output.metrics


Forward: TypeAlias = tuple[Floats, Mapping[str, float]] | None


def reckoning(single: Forward, double: Forward, truth_T: Floats, notes: list[str]) -> tuple[Divisor, bool]:
    """What the loss is divided by, and whether [T, K] targets are taken as such; what is amiss is added to `notes`."""
    if single is None:
        return "unknown", False
    apart = alignment.apart(single[0][:, 0], truth_T)
    if alignment.shifted(single[0][:, 0], truth_T):
        raise AlignmentError(
            f"the trainer gives tokens {list(PROMPT[1:])} the logprobs {np.round(single[0][:, 0], 2)}, the sampler gives "
            f"{np.round(truth_T, 2)}: one of them is a position off. Update or replace the server."
        )
    if apart > SAMPLED_AGAINST_RESCORED:
        notes.append(f"trainer and sampler differ by {apart:.2f} nats a token on a probe")
    divisor = _divisor(single[0], single[1], 1)
    if divisor != "sum":
        notes.append(_ANNOUNCED[divisor])
    if double is None:
        return divisor, False
    logprobs_TK, metrics = double
    same = np.allclose(logprobs_TK[:, 0], single[0][-len(logprobs_TK) :, 0], atol=NOISE)
    if not same or _divisor(logprobs_TK, metrics, 2) != divisor:
        notes.append("[T, K] targets: the service mangles them to [T]; not used")
        return divisor, False
    return divisor, True


_ANNOUNCED: Mapping[Divisor, str] = {
    "positions": "the service divides a loss by its number of positions; weights are scaled up to make up for it",
    "weighted positions": "the service divides a loss by its number of trained positions; weights are scaled up",
    "weights": "the service divides a loss by the sum of its weights: it cannot be trained on corrections",
    "unknown": "the service reports no loss that could be checked; it is taken to be a sum, as Tinker's is",
}


def _divisor(logprobs_TK: Floats, metrics: Mapping[str, float], width: int) -> Divisor:
    weights_TK = example(width, prompt=len(PROMPT) - len(logprobs_TK)).weights_TK
    reported = [value for key, value in metrics.items() if key.split(":")[0] == "loss"]
    summed = -float((weights_TK * logprobs_TK).sum())
    if not reported or summed == 0:
        return "unknown"
    by: dict[Divisor, float] = {"sum": 1, "positions": 3, "weighted positions": 2, "weights": float(weights_TK.sum())}
    near = [name for name, divisor in by.items() if np.isclose(reported[0] * divisor, summed, rtol=0.02)]
    return near[0] if near else "unknown"

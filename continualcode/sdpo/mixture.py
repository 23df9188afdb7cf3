"""Geometric mixtures of policies, in log-probability space; knows nothing of where the log-probabilities come from.

An exponential moving average of weights (EMA teacher) and a line between two sets of logits (trust-region teacher) are,
where only log-probabilities can be had, both sum_j w_j log p_j up to a constant per position: log Z. Over the whole
vocabulary Z is exact; over K candidates and one bucket for the rest it is exact up to the mixture within that bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np

from continualcode.types import Floats, Ints

T = TypeVar("T")
_TAIL_FLOOR = 1e-7


def geometric_mixture(logprobs_MTK: Floats, weights_M: Floats, ids_TK: Ints) -> Floats:
    """[T, K]: log of prod_j p_j^w_j, renormalised over the candidates and the rest of the vocabulary.

    Args:
        logprobs_MTK: log-probabilities of M policies at the same ids.
        weights_M: of sum 1; a negative one takes a policy's part out (placebo subtraction).
        ids_TK: the ids, to count one that stands twice at a position once.
    """
    mixed_TK = np.tensordot(weights_M, logprobs_MTK, axes=1)
    first_TK = _first_of_its_id(ids_TK)
    mass_MT1 = np.where(first_TK, np.exp(logprobs_MTK), 0.0).sum(axis=2, keepdims=True)
    tail_T1 = np.tensordot(weights_M, np.log(np.maximum(1 - mass_MT1, _TAIL_FLOOR)), axes=1)
    buckets = np.concatenate([np.where(first_TK, mixed_TK, -np.inf), tail_T1], axis=1)
    normalised: Floats = mixed_TK - np.logaddexp.reduce(buckets, axis=1, keepdims=True)
    return normalised


def _first_of_its_id(ids_TK: Ints) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    order_TK = ids_TK.argsort(axis=1, kind="stable")
    sorted_TK = np.take_along_axis(ids_TK, order_TK, axis=1)
    new_TK = np.diff(sorted_TK, axis=1, prepend=sorted_TK[:, :1] - 1) != 0
    first: np.ndarray[tuple[int, int], np.dtype[np.bool_]] = np.empty(ids_TK.shape, dtype=np.bool_)
    np.put_along_axis(first, order_TK, new_TK, axis=1)
    return first


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """Something that was the newest at a step, and how much of the average it stands for."""

    item: T
    step: int
    weight: float


def average_in(snapshots: Sequence[Snapshot[T]], newest: T, rate: float, bound: int) -> tuple[Snapshot[T], ...]:
    """The exponential moving average after one more step, of at most `bound` snapshots; the first is the oldest.

    average <- (1 - rate) average + rate newest. No weight is ever dropped: past the bound two neighbours become one, the
    pair whose merging moves the average least (Ward's criterion on their steps), and the heavier stands for both.
    """
    step = snapshots[-1].step + 1
    kept = [Snapshot(s.item, s.step, s.weight * (1 - rate)) for s in snapshots]
    kept.append(Snapshot(newest, step, rate))
    while len(kept) > bound:
        costs = [_cost(a, b) for a, b in pairwise(kept)]
        cheapest = int(np.argmin(costs))
        a, b = kept[cheapest : cheapest + 2]
        heavier = a if a.weight > b.weight else b
        kept[cheapest : cheapest + 2] = [Snapshot(heavier.item, heavier.step, a.weight + b.weight)]
    return tuple(kept)


def _cost(a: Snapshot[T], b: Snapshot[T]) -> float:
    return a.weight * b.weight / max(a.weight + b.weight, 1e-300) * (a.step - b.step) ** 2

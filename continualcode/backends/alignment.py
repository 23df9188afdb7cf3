"""Where a completion's numbers sit in what a Tinker service takes and sends. Pure; knows no client.

A service scores a sequence of n tokens in n entries, the first None, or (some servers) in n - 1 without it. Everything
is cut to the completion's T tokens here, by length, and what does not line up raises AlignmentError: nothing is trained
on a number whose place is in doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter
from typing import TypeVar

import numpy as np
from tinker import types

from continualcode.errors import AlignmentError
from continualcode.types import Example, Floats, Ints

Row = TypeVar("Row")
_ROUNDING = 1e-3
SAMPLED_AGAINST_RESCORED = 0.5
"""Mean |difference| in nats above which two sets of logprobs are of different things; noise of hosted models stays far
below."""
NOISE = 0.05
"""The same for a scoring done twice."""


def tail(rows: Sequence[Row], prompt: int, completion: int, what: str = "logprobs") -> Sequence[Row]:
    """The completion's rows of those sent for prompt + completion tokens, with or without a leading None."""
    if len(rows) not in (prompt + completion, prompt + completion - 1):
        raise AlignmentError(
            f"{len(rows)} {what} for {prompt} + {completion} tokens (prompt + completion); expected "
            f"{prompt + completion}, or {prompt + completion - 1} without a leading None. Nothing was trained on."
        )
    return rows[len(rows) - completion :]


def checked(
    values: Sequence[float | None] | Sequence[Sequence[float]] | Floats, shape: tuple[int, ...], what: str
) -> Floats:
    """The values as float64 of this shape; None, NaN, infinities and positive values are no logprobs."""
    array = np.asarray(values, dtype=np.float64)  # None becomes NaN
    if array.shape != shape:
        raise AlignmentError(f"{what}: got shape {list(array.shape)}, expected {list(shape)}. Nothing was trained on.")
    wrong = ~(np.isfinite(array) & (array <= _ROUNDING))
    if wrong.any():
        place = tuple(int(index) for index in np.argwhere(wrong)[0])
        at = ", ".join(map(str, place))
        raise AlignmentError(f"{what}: {array[place]} at position {at} of shape {list(shape)} is no logprob")
    return array


def top_rows(rows: Sequence[Sequence[tuple[int, float]] | None], k: int, what: str) -> tuple[Ints, Floats]:
    """ids and logprobs [T, K], most likely first, from T rows of pairs. K is at most k: the shortest row's length."""
    if not rows:
        return np.zeros((0, k), np.int64), np.zeros((0, k))
    ranked = [sorted(row or (), key=itemgetter(1), reverse=True)[:k] for row in rows]
    width = min(len(row) for row in ranked)
    if width == 0:
        raise AlignmentError(f"{what}: position {[len(row) for row in ranked].index(0)} of {len(rows)} came empty")
    ids_TK = np.array([[token for token, _ in row[:width]] for row in ranked], dtype=np.int64)
    logprobs = [[logprob for _, logprob in row[:width]] for row in ranked]
    return ids_TK, checked(logprobs, ids_TK.shape, what)


def target_request(prompt: int, ids_TK: Ints) -> types.TensorData:
    """ids_TK as `target_prompt_logprobs` [prompt + T - 1, K] in CSR: row i speaks of position i + 1, and only the
    completion's rows name anything."""
    return _csr(prompt - 1, ids_TK)


def target_answer(answer: types.TensorData, prompt: int, ids_TK: Ints) -> Floats:
    """The completion's [T, K] of the answer to `target_request`, sparse or dense."""
    what = "logprobs at chosen tokens"
    flat = np.asarray(answer.data, dtype=np.float64)
    width = ids_TK.shape[1]
    if answer.sparse_crow_indices is None:
        if flat.size % width:
            raise AlignmentError(f"{what}: {flat.size} values do not make rows of {width}")
        flat = np.asarray(tail(flat.reshape(-1, width).tolist(), prompt, len(ids_TK), f"rows of {what}")).ravel()
    if flat.size != ids_TK.size:
        raise AlignmentError(f"{what}: {flat.size} values for {len(ids_TK)} positions of {width}")
    return checked(flat.reshape(ids_TK.shape), ids_TK.shape, what)


def datum(example: Example, scale: float = 1.0, *, sparse: bool = False) -> types.Datum:
    """The example, shifted: row i of the targets is what position i of the input should predict. [N, K], or [N] for
    K = 1; the prompt's own tokens, at weight 0, fill the rows before the completion. `sparse`: those rows are left out
    of [N, K], in CSR, which is what the SDK itself makes of such tensors; most of the bytes of a long prompt."""
    tokens = list(example.prompt + example.tokens)
    before, width = len(example.prompt) - 1, example.ids_TK.shape[1]
    if sparse and width > 1:
        tensors = {"target_tokens": _csr(before, example.ids_TK), "weights": _csr(before, example.weights_TK * scale)}
        return types.Datum(model_input=types.ModelInput.from_ints(tokens[:-1]), loss_fn_inputs=tensors)
    targets_NK = np.empty((len(tokens) - 1, width), np.int64)
    weights_NK = np.zeros(targets_NK.shape, np.float32)
    targets_NK[:before] = np.array(tokens[1 : before + 1], np.int64)[:, None]
    targets_NK[before:] = example.ids_TK
    weights_NK[before:] = example.weights_TK * scale
    if width == 1:
        targets_NK, weights_NK = targets_NK[:, 0], weights_NK[:, 0]
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": types.TensorData.from_numpy(targets_NK),
            "weights": types.TensorData.from_numpy(weights_NK),
        },
    )


def datum_logprobs(output: types.TensorData, example: Example) -> Floats:
    """The example's [T, K] of the logprobs a forward pass gives for `datum(example)`."""
    rows, width = len(example.prompt) + len(example.tokens) - 1, example.ids_TK.shape[1]
    what = "logprobs of a forward pass"
    values = output.to_numpy()  # not .data, a list: a long prompt's rows are thrown away at once
    if values.size != rows * width:
        raise AlignmentError(f"{what}: {values.size} values for {rows} positions of {width} targets")
    return checked(values.reshape(rows, width)[len(example.prompt) - 1 :], example.ids_TK.shape, what)


def _csr(before: int, values_TK: Ints | Floats) -> types.TensorData:
    """[before + T, K] in which the first rows name nothing."""
    (length, width), whole = values_TK.shape, values_TK.dtype.kind == "i"
    starts = np.concatenate([np.zeros(before, np.int64), np.arange(length + 1) * width])
    return types.TensorData(
        data=values_TK.ravel().astype(np.int64 if whole else np.float32),
        dtype="int64" if whole else "float32",
        shape=[before + length, width],
        sparse_crow_indices=starts.tolist(),
        sparse_col_indices=np.tile(np.arange(width), length).tolist(),
    )


def apart(one_T: Floats, other_T: Floats) -> float:
    """Mean |difference| in nats."""
    return float(np.abs(one_T - other_T).mean()) if one_T.size else 0.0


def shifted(reference_T: Floats, scored_T: Floats) -> bool:
    """Whether the scores fit the reference far better one position further on or back."""
    if reference_T.size < 2 or (distance := apart(reference_T, scored_T)) < NOISE:
        return False
    return min(apart(reference_T[1:], scored_T[:-1]), apart(reference_T[:-1], scored_T[1:])) < distance / 4

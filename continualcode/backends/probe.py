"""What a Tinker service can do, found out with a handful of tiny requests that change nothing. Announces, never assumes.

Knows nothing of how a real step is made. The same questions, answered by different servers: PROMPT's tokens exist in
every vocabulary, and the numbers of one request are held against those of another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np

from continualcode.backends import alignment
from continualcode.backends.line import Line
from continualcode.backends.sampler import TinkerSampler
from continualcode.errors import AlignmentError, BackendError, BackendUnavailableError, CapabilityError, ConfigError
from continualcode.types import Capabilities, Completion, Example, Floats, Sampling, Tokens

PROMPT: Tokens = (1, 2, 3, 4)
_WIDTHS = (100, 20)  # the paper's K, then what vLLM gives by default
_SAMPLED_AGAINST_RESCORED = 0.5  # mean |difference| in nats; numerical noise of hosted models stays far below
_NOISE = 0.05

Divisor: TypeAlias = Literal["sum", "positions", "weighted positions", "weights", "unknown"]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found. `divisor` says what the service divides the weighted sum of a cross-entropy by."""

    capabilities: Capabilities
    last_n: bool
    divisor: Divisor
    sampled: Completion
    rescored_T: Floats
    """the sampled completion's logprobs, by the weights it was sampled from"""
    frozen_known: bool = False

    def scale(self, example: Example) -> float:
        """What to multiply an example's weights by, sent alone, so that its gradient is the summed one."""
        match self.divisor:
            case "positions":
                return float(len(example.prompt) + len(example.tokens) - 1)
            case "weighted positions":
                return float(max(1, np.any(example.weights_TK != 0, axis=1).sum()))
            case _:
                return 1.0

    async def rescored(self, sampler: TinkerSampler) -> Floats:
        return await sampler.logprobs(self.sampled.prompt, self.sampled.tokens)

    def compared(self, new_T: Floats, old_T: Floats) -> Probe:
        """After a step: the newest sampler's and the initial one's logprobs of what was sampled before it."""
        if _apart(new_T, self.rescored_T) < 2 * _NOISE:
            return self
        if _apart(old_T, self.rescored_T) < _apart(new_T, self.rescored_T) / 2:
            return replace(self, frozen_known=True)
        note = "samplers follow the newest weights: teachers made of older weights (frozen, EMA) are not possible"
        known = self.capabilities
        return replace(
            self, frozen_known=True, capabilities=replace(known, frozen_snapshots=False, notes=(*known.notes, note))
        )


@dataclass(slots=True)
class _Notes:
    """Runs what a service may be unable to do, and keeps why it is. `within`: seconds it may take to find out."""

    within: float
    lines: list[str] = field(default_factory=list)

    async def attempt(self, what: str, answer: Awaitable[T]) -> T | None:
        try:
            async with asyncio.timeout(self.within):
                return await answer
        except BackendUnavailableError:
            raise
        except CapabilityError:
            pass  # the SDK or the answer has no place for it: the capabilities say so
        except TimeoutError:
            self.lines.append(f"{what}: no answer within {self.within:.0f} s")
        except (BackendError, ConfigError) as error:
            self.lines.append(f"{what}: {error}")
        return None


async def probe(client: Any, training: Any, line: Line, context_length: int | None) -> Probe:
    """Asks a sampling client of fresh weights and the training client it came from."""
    sampler = TinkerSampler(client, line=line)
    began = time.perf_counter()
    truth_T = await sampler.logprobs(PROMPT[:1], PROMPT[1:])
    notes = _Notes(within=10 + 10 * (time.perf_counter() - began))
    (sampled, rescored_T), top, chosen, last_n, single, double = await asyncio.gather(
        _sampled(sampler, notes),
        _top(sampler, truth_T, notes),
        _chosen(sampler, truth_T, notes),
        _last_n(client, line, truth_T, notes),
        notes.attempt("forward", _forward(training, line, 1)),
        notes.attempt("[T, K] targets", _forward(training, line, 2)),
    )
    divisor, paired = _losses(single, double, truth_T, notes)
    capabilities = Capabilities(
        sample_candidates=0 if sampled.candidates is None else sampled.candidates[0].shape[1],
        top_logprobs=top,
        candidate_logprobs=chosen,
        weighted_candidates=paired,
        summed_cross_entropy=divisor not in ("weights", "unknown"),
        context_length=context_length,
        notes=tuple(notes.lines),
    )
    return Probe(capabilities, last_n, divisor, sampled, rescored_T)


async def _sampled(sampler: TinkerSampler, notes: _Notes) -> tuple[Completion, Floats]:
    """A sample with the most candidates to be had, and its tokens scored again: the two must agree."""
    completion: Completion | None = None
    for width in _WIDTHS:
        wanted = Sampling(max_tokens=4, candidates=width, seed=0)
        answer = await notes.attempt(f"top-{width} of sampled tokens", _first(sampler, wanted))
        if answer is not None:
            completion = answer
            if answer.candidates is not None and _own_candidates(answer):
                break
    else:
        plain = completion or await _first(sampler, Sampling(max_tokens=4, seed=0))
        completion = replace(plain, candidates=None)
    rescored_T = await sampler.logprobs(PROMPT, completion.tokens)
    apart = _apart(completion.logprobs_T, rescored_T)
    if apart > _SAMPLED_AGAINST_RESCORED or _shifted(completion.logprobs_T, rescored_T):
        raise AlignmentError(
            f"the service samples tokens {list(completion.tokens)} at logprobs {np.round(completion.logprobs_T, 2)} "
            f"and scores the same tokens at {np.round(rescored_T, 2)}: {apart:.2f} nats apart. Its logprobs belong to "
            "other tokens, or to other weights; nothing can be learned from them. Update or replace the server."
        )
    return completion, rescored_T


async def _first(sampler: TinkerSampler, sampling: Sampling) -> Completion:
    return (await sampler.sample(PROMPT, sampling))[0]


def _own_candidates(completion: Completion) -> bool:
    """Whether every sampled token that is among its candidates has the same logprob there."""
    assert completion.candidates is not None
    return all(
        np.allclose(row[ids == token], logprob, atol=_NOISE)
        for token, logprob, ids, row in zip(
            completion.tokens, completion.logprobs_T, *completion.candidates, strict=True
        )
    )


async def _top(sampler: TinkerSampler, truth_T: Floats, notes: _Notes) -> int:
    for width in _WIDTHS:
        what = f"top-{width} of given tokens"
        answer = await notes.attempt(what, sampler.top_logprobs(PROMPT[:1], PROMPT[1:], width))
        if answer is None:
            continue
        ids_TK, logprobs_TK = answer
        own = ids_TK == np.array(PROMPT[1:])[:, None]
        if np.allclose(logprobs_TK[own], np.broadcast_to(truth_T[:, None], own.shape)[own], atol=_NOISE):
            return len(ids_TK[0])
        notes.lines.append(f"{what}: they belong to other positions; not used")
    return 0


async def _chosen(sampler: TinkerSampler, truth_T: Floats, notes: _Notes) -> bool:
    what = "logprobs at chosen tokens"
    ids_TK = np.array([[token, token + 1] for token in PROMPT[1:]])
    answer = await notes.attempt(what, sampler.candidate_logprobs(PROMPT[:1], PROMPT[1:], ids_TK))
    if answer is None:
        return False
    if not np.allclose(answer[:, 0], truth_T, atol=_NOISE):
        notes.lines.append(f"{what}: {answer[:, 0]} where the tokens have {truth_T}; not used")
        return False
    return True


async def _last_n(client: Any, line: Line, truth_T: Floats, notes: _Notes) -> bool:
    if "prompt_logprobs_last_n" not in TinkerSampler.arguments(client.compute_logprobs):
        return False
    sampler = TinkerSampler(client, line=line, last_n=True)
    answer = await notes.attempt("scoring the end of a prompt alone", sampler.logprobs(PROMPT[:2], PROMPT[2:]))
    return answer is not None and np.allclose(answer, truth_T[1:], atol=_NOISE)


def example(width: int) -> Example:
    """PROMPT with weights that tell every way of dividing a loss from every other: 0, 1, 4 (and twice that)."""
    ids_TK = np.array([[token + k for k in range(width)] for token in PROMPT[1:]])
    weights_TK = np.array([[0.0], [1.0], [4.0]]) * (1.0 + np.arange(width))
    return Example(PROMPT[:1], PROMPT[1:], ids_TK, weights_TK)


async def _forward(training: Any, line: Line, width: int) -> tuple[Floats, Mapping[str, float]]:
    probed = example(width)
    output = await line.ask(training.forward, [alignment.datum(probed)], "cross_entropy")
    (fields,) = output.loss_fn_outputs
    if "logprobs" not in fields:
        raise AlignmentError("a forward pass gives no logprobs")
    return alignment.datum_logprobs(fields["logprobs"], probed), output.metrics


_Forward: TypeAlias = tuple[Floats, Mapping[str, float]] | None


def _losses(single: _Forward, double: _Forward, truth_T: Floats, notes: _Notes) -> tuple[Divisor, bool]:
    """What the loss is divided by, and whether [T, K] targets are taken as such."""
    if single is None:
        return "unknown", False
    apart = _apart(single[0][:, 0], truth_T)
    if _shifted(single[0][:, 0], truth_T):
        raise AlignmentError(
            f"the trainer gives tokens {list(PROMPT[1:])} the logprobs {np.round(single[0][:, 0], 2)}, the sampler gives "
            f"{np.round(truth_T, 2)}: one of them is a position off. Update or replace the server."
        )
    if apart > _SAMPLED_AGAINST_RESCORED:
        notes.lines.append(f"trainer and sampler differ by {apart:.2f} nats a token on a probe")
    divisor = _divisor(single[0], single[1], 1)
    if divisor != "sum":
        notes.lines.append(_ANNOUNCED[divisor])
    if double is None:
        return divisor, False
    logprobs_TK, metrics = double
    if not np.allclose(logprobs_TK[:, 0], single[0][:, 0], atol=_NOISE) or _divisor(logprobs_TK, metrics, 2) != divisor:
        notes.lines.append("[T, K] targets: the service mangles them to [T]; not used")
        return divisor, False
    return divisor, True


_ANNOUNCED: Mapping[Divisor, str] = {
    "positions": "the service divides a loss by its number of positions; weights are scaled up to make up for it",
    "weighted positions": "the service divides a loss by its number of trained positions; weights are scaled up",
    "weights": "the service divides a loss by the sum of its weights: it cannot be trained on corrections",
    "unknown": "the service reports no loss that could be checked; it is taken to be a sum, as Tinker's is",
}


def _divisor(logprobs_TK: Floats, metrics: Mapping[str, float], width: int) -> Divisor:
    weights_TK = example(width).weights_TK
    reported = [value for key, value in metrics.items() if key.split(":")[0] == "loss"]
    summed = -float((weights_TK * logprobs_TK).sum())
    if not reported or summed == 0:
        return "unknown"
    by: dict[Divisor, float] = {"sum": 1, "positions": 3, "weighted positions": 2, "weights": float(weights_TK.sum())}
    near = [name for name, divisor in by.items() if np.isclose(reported[0] * divisor, summed, rtol=0.02)]
    return near[0] if near else "unknown"


def _apart(one_T: Floats, other_T: Floats) -> float:
    """Mean |difference| in nats."""
    return float(np.abs(one_T - other_T).mean()) if one_T.size else 0.0


def _shifted(reference_T: Floats, scored_T: Floats) -> bool:
    """Whether the scores fit the reference far better one position further on or back."""
    if reference_T.size < 2 or (apart := _apart(reference_T, scored_T)) < _NOISE:
        return False
    return min(_apart(reference_T[1:], scored_T[:-1]), _apart(reference_T[:-1], scored_T[1:])) < apart / 4

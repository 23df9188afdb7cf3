"""What a Tinker service can do, found out with a handful of tiny requests that change nothing. Announces, never assumes.

Knows nothing of how a real step is made. The same questions, answered by different servers: PROMPT's tokens exist in
every vocabulary, and the numbers of one request are held against those of another.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
from tinker import types

from continualcode.backends import alignment
from continualcode.backends.alignment import NOISE, SAMPLED_AGAINST_RESCORED
from continualcode.backends.line import Line
from continualcode.backends.loss import PROMPT, Divisor, forward, reckoning
from continualcode.backends.sampler import TinkerSampler
from continualcode.errors import AlignmentError, BackendError, BackendUnavailableError, CapabilityError, ConfigError
from continualcode.types import Capabilities, Completion, Example, Floats, Sampling

_SAMPLED = 4
_CHOSEN_TK = np.array([[token, token + 1] for token in PROMPT[1:]])
_WIDTHS = (100, 20)  # the paper's K, then what vLLM gives by default

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found. `divisor` says what the service divides the weighted sum of a cross-entropy by, `sparse` that it
    takes [T, K] targets without the prompt's rows."""

    capabilities: Capabilities
    last_n: bool
    divisor: Divisor
    sampled: Completion
    rescored_T: Floats
    """the sampled completion's logprobs, by the weights it was sampled from"""
    sparse: bool = False
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
        if alignment.apart(new_T, self.rescored_T) < 2 * NOISE:
            return self
        if alignment.apart(old_T, self.rescored_T) < alignment.apart(new_T, self.rescored_T) / 2:
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
    """Asks a sampling client of fresh weights and the training client it came from.

    Two round trips: everything about PROMPT in one request where the service takes it so, else question by question;
    a third where it takes no sparse targets.
    """
    sampler = TinkerSampler(client, line=line)
    began = time.perf_counter()
    at_once = asyncio.ensure_future(_at_once(client, line))
    try:
        truth_T = await sampler.logprobs(PROMPT[:1], PROMPT[1:])
        notes = _Notes(within=10 + 10 * (time.perf_counter() - began))
        sparse = line.url is not None  # in this process there are no bytes to save
        unsaid = _Notes(notes.within)
        (completion, rescored_T, last_n, top, chosen), single, double = await asyncio.gather(
            _sampling(client, line, at_once, truth_T, notes),
            notes.attempt("forward", forward(training, line, 1)),
            (unsaid if sparse else notes).attempt("[T, K] targets", forward(training, line, 2, sparse)),
        )
        if sparse and not reckoning(single, double, truth_T, unsaid.lines)[1]:
            sparse, double = False, await notes.attempt("[T, K] targets", forward(training, line, 2))
    finally:
        at_once.cancel()
    divisor, paired = reckoning(single, double, truth_T, notes.lines)
    capabilities = Capabilities(
        sample_candidates=0 if completion.candidates is None else completion.candidates[0].shape[1],
        top_logprobs=top,
        candidate_logprobs=chosen,
        weighted_candidates=paired,
        summed_cross_entropy=divisor not in ("weights", "unknown"),
        context_length=context_length,
        notes=tuple(notes.lines),
    )
    return Probe(capabilities, last_n, divisor, completion, rescored_T, sparse)


@dataclass(frozen=True, slots=True)
class _Answered:
    """A sampling client for whom every question about PROMPT is answered already, by one response."""

    response: Any

    def sample(
        self,
        *,
        topk_sample_logprobs: int = 0,
        topk_prompt_logprobs: int = 0,
        target_prompt_logprobs: types.TensorData | None = None,
        **asked: Any,
    ) -> Any:
        return self.response


async def _at_once(client: Any, line: Line) -> TinkerSampler | None:
    """A sampler that has all answers about PROMPT, asked for in one request; None where there is no asking so."""
    asked = {
        "topk_sample_logprobs": _WIDTHS[0],
        "topk_prompt_logprobs": _WIDTHS[0],
        "target_prompt_logprobs": alignment.target_request(1, _CHOSEN_TK),
    }
    if not asked.keys() <= TinkerSampler.arguments(client.sample):
        return None
    try:
        response = await line.ask(
            client.sample,
            prompt=types.ModelInput.from_ints(list(PROMPT)),
            num_samples=1,
            sampling_params=types.SamplingParams(max_tokens=_SAMPLED, seed=0),
            include_prompt_logprobs=True,
            **asked,
        )
    except (BackendError, ConfigError):  # asked one by one, the question that fails gets its note
        return None
    return TinkerSampler(_Answered(response))


_Sampling: TypeAlias = tuple[Completion, Floats, bool, int, bool]


async def _sampling(
    client: Any, line: Line, at_once: asyncio.Task[TinkerSampler | None], truth_T: Floats, notes: _Notes
) -> _Sampling:
    """A sample, its logprobs scored again, whether the end of a prompt can be scored alone, K, and chosen tokens."""
    answered = await notes.attempt("all at once", at_once)
    if answered is not None:
        unsaid = _Notes(notes.within)
        completion = await _candidates(answered, unsaid)
        top, chosen = await _top(answered, truth_T, unsaid), await _chosen(answered, truth_T, unsaid)
        if completion.candidates is not None and top and chosen:
            return (completion, *await _rescored(client, line, completion, notes), top, chosen)
    sampler = TinkerSampler(client, line=line)

    async def sampled() -> tuple[Completion, Floats, bool]:
        completion = await _candidates(sampler, notes)
        return (completion, *await _rescored(client, line, completion, notes))

    three, top, chosen = await asyncio.gather(
        sampled(), _top(sampler, truth_T, notes), _chosen(sampler, truth_T, notes)
    )
    return (*three, top, chosen)


async def _candidates(sampler: TinkerSampler, notes: _Notes) -> Completion:
    """A sample with the most candidates to be had."""
    completion: Completion | None = None
    for width in _WIDTHS:
        wanted = Sampling(max_tokens=_SAMPLED, candidates=width, seed=0)
        answer = await notes.attempt(f"top-{width} of sampled tokens", _first(sampler, wanted))
        if answer is not None:
            completion = answer
            if answer.candidates is not None and _own_candidates(answer):
                return answer
    plain = completion or await _first(sampler, Sampling(max_tokens=_SAMPLED, seed=0))
    return replace(plain, candidates=None)


async def _rescored(client: Any, line: Line, completion: Completion, notes: _Notes) -> tuple[Floats, bool]:
    """The sampled tokens scored again, which must agree; and whether the end of a prompt can be scored alone."""
    end_T: Floats | None = None
    if "prompt_logprobs_last_n" in TinkerSampler.arguments(client.compute_logprobs):
        alone = TinkerSampler(client, line=line, last_n=True)
        what = "scoring the end of a prompt alone"
        end_T = await notes.attempt(what, alone.logprobs(PROMPT, completion.tokens))
        if end_T is not None and np.allclose(end_T, completion.logprobs_T, atol=NOISE):
            return end_T, True
    rescored_T = await TinkerSampler(client, line=line).logprobs(PROMPT, completion.tokens)
    apart = alignment.apart(completion.logprobs_T, rescored_T)
    if apart > SAMPLED_AGAINST_RESCORED or alignment.shifted(completion.logprobs_T, rescored_T):
        raise AlignmentError(
            f"the service samples tokens {list(completion.tokens)} at logprobs {np.round(completion.logprobs_T, 2)} "
            f"and scores the same tokens at {np.round(rescored_T, 2)}: {apart:.2f} nats apart. Its logprobs belong to "
            "other tokens, or to other weights; nothing can be learned from them. Update or replace the server."
        )
    return rescored_T, end_T is not None and np.allclose(end_T, rescored_T, atol=NOISE)


async def _first(sampler: TinkerSampler, sampling: Sampling) -> Completion:
    return (await sampler.sample(PROMPT, sampling))[0]


def _own_candidates(completion: Completion) -> bool:
    """Whether every sampled token that is among its candidates has the same logprob there."""
    assert completion.candidates is not None
    return all(
        np.allclose(row[ids == token], logprob, atol=NOISE)
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
        if np.allclose(logprobs_TK[own], np.broadcast_to(truth_T[:, None], own.shape)[own], atol=NOISE):
            return len(ids_TK[0])
        notes.lines.append(f"{what}: they belong to other positions; not used")
    return 0


async def _chosen(sampler: TinkerSampler, truth_T: Floats, notes: _Notes) -> bool:
    what = "logprobs at chosen tokens"
    answer = await notes.attempt(what, sampler.candidate_logprobs(PROMPT[:1], PROMPT[1:], _CHOSEN_TK))
    if answer is None:
        return False
    if not np.allclose(answer[:, 0], truth_T, atol=NOISE):
        notes.lines.append(f"{what}: {answer[:, 0]} where the tokens have {truth_T}; not used")
        return False
    return True

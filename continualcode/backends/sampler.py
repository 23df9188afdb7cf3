"""One frozen set of weights behind a Tinker sampling client, as a Sampler. Knows nothing of training."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tinker import types

from continualcode.backends import alignment
from continualcode.backends.line import Line
from continualcode.errors import AlignmentError, BackendError, CapabilityError, ContextLengthError
from continualcode.protocols import Sampler
from continualcode.types import Capabilities, Completion, Floats, Ints, Sampling, Tokens


@runtime_checkable
class InProcess(Protocol):
    """What a sampling client of the embedded engine can do beyond the SDK's interface."""

    @property
    def vocabulary(self) -> int:
        """Tokens in all, which may all be asked for at once."""
        ...

    def averaged(self, newer: Any, rate: float) -> Any:
        """A future of the client of (1 - rate) own + rate newer weights."""
        ...

    def save(self, folder: Path) -> Any:
        """A future of the weights being in the folder."""
        ...


class TinkerSampler:
    """One frozen set of weights behind a Tinker sampling client; usable without a backend.

    Without `capabilities` nothing is known of the service: everything the client's SDK has a name for is tried, and
    an answer that lacks it raises CapabilityError. `last_n` says that the service can score the end of a prompt alone.
    """

    def __init__(
        self,
        client: Any,
        *,
        line: Line | None = None,
        capabilities: Capabilities | None = None,
        last_n: bool = False,
    ) -> None:
        self._client = client
        self._line = line or Line()
        self._capabilities = capabilities
        self._last_n = last_n
        self._arguments = self.arguments(client.sample)

    @staticmethod
    def arguments(method: Callable[..., Any]) -> frozenset[str]:
        """The names a client's method takes: an SDK older than a feature has no name for it."""
        return frozenset(inspect.signature(method).parameters)

    async def sample(self, prompt: Tokens, sampling: Sampling, n: int = 1) -> list[Completion]:
        """n independent completions. Raises ContextLengthError when prompt and max_tokens do not fit.

        A stop token is part of the completion where the service sends it, as hosted Tinker does; where the service
        cuts it off, it is missing, never made up. Fewer candidates than asked for come where the service has fewer.
        """
        self._fit(prompt, sampling.max_tokens)
        wanted = self._candidates(sampling.candidates)
        response = await self._line.ask(
            self._client.sample,
            prompt=types.ModelInput.from_ints(list(prompt)),
            num_samples=n,
            sampling_params=_params(sampling),
            **({"topk_sample_logprobs": wanted} if wanted else {}),
        )
        if len(response.sequences) != n:
            raise BackendError(f"asked for {n} completions, got {len(response.sequences)}")
        return [self._completion(sequence, prompt, sampling, wanted) for sequence in response.sequences]

    async def logprobs(self, prompt: Tokens, completion: Tokens) -> Floats:
        """[T]: log p(completion[t] | prompt, completion[:t]), checked to line up."""
        self._fit(prompt, len(completion))
        if not completion:
            return np.zeros(0)
        scored = types.ModelInput.from_ints(list(prompt + completion))
        rows = await self._line.ask(self._client.compute_logprobs, scored, **self._end(completion))
        cut = alignment.tail(rows, len(prompt), len(completion))
        return alignment.checked(cut, (len(completion),), "logprobs")

    async def candidate_logprobs(self, prompt: Tokens, completion: Tokens, ids_TK: Ints) -> Floats:
        """[T, K] at the given ids of each position. Raises CapabilityError where it cannot be had."""
        self._fit(prompt, len(completion))
        if ids_TK.ndim != 2 or len(ids_TK) != len(completion):
            raise ValueError(f"ids {ids_TK.shape} must be [T, K] with T = {len(completion)}")
        if not ids_TK.size:
            return np.zeros(ids_TK.shape)
        if not self._able("target_prompt_logprobs", lambda known: known.candidate_logprobs):
            raise CapabilityError(_lacks("logprobs at chosen tokens"))
        response = await self._score(
            prompt,
            completion,
            target_prompt_logprobs=alignment.target_request(len(prompt), ids_TK),
            **self._end(completion),
        )
        if response.target_prompt_logprobs is None:
            raise CapabilityError(_lacks("logprobs at chosen tokens"))
        return alignment.target_answer(response.target_prompt_logprobs, len(prompt), ids_TK)

    async def top_logprobs(self, prompt: Tokens, completion: Tokens, k: int) -> tuple[Ints, Floats]:
        """ids [T, k] and logprobs [T, k], most likely first. Raises CapabilityError where it cannot be had; fewer than
        k columns come only from a vocabulary that is smaller."""
        self._fit(prompt, len(completion))
        if not completion:
            return np.zeros((0, k), np.int64), np.zeros((0, k))
        if not self._able("topk_prompt_logprobs", lambda known: known.top_logprobs >= k):
            raise CapabilityError(_lacks(f"the {k} most likely tokens of a given text", self._capabilities))
        response = await self._score(prompt, completion, topk_prompt_logprobs=k, **self._end(completion))
        if response.topk_prompt_logprobs is None:
            raise CapabilityError(_lacks(f"the {k} most likely tokens of a given text", self._capabilities))
        what = f"top {k} logprobs"
        rows = alignment.tail(response.topk_prompt_logprobs, len(prompt), len(completion), what)
        return alignment.top_rows(rows, k, what)

    async def averaged(self, newer: Sampler, rate: float) -> TinkerSampler:
        """The sampler of (1 - rate) own + rate newer LoRA weights. Raises CapabilityError where weights stay with the
        service."""
        if not isinstance(self._client, InProcess) or not isinstance(newer, TinkerSampler):
            raise CapabilityError("only samplers of the embedded engine can be averaged")
        client = await self._line.ask(self._client.averaged, newer._client, rate)
        return TinkerSampler(client, line=self._line, capabilities=self._capabilities, last_n=self._last_n)

    async def save(self, folder: Path) -> None:
        """Keeps the LoRA weights in a folder whose path `TinkerBackend.sampler_at` takes. Raises CapabilityError where
        they stay with the service."""
        if not isinstance(self._client, InProcess):
            raise CapabilityError("only samplers of the embedded engine can be saved")
        await self._line.ask(self._client.save, folder)

    def _completion(self, sequence: Any, prompt: Tokens, sampling: Sampling, wanted: int) -> Completion:
        tokens = tuple(int(token) for token in sequence.tokens)
        if sequence.logprobs is None:
            raise AlignmentError(f"{len(tokens)} sampled tokens came without logprobs")
        rows = sequence.topk_logprobs if wanted else None
        if rows is not None and len(rows) != len(tokens):
            raise AlignmentError(f"{len(rows)} rows of candidates for {len(tokens)} sampled tokens")
        return Completion(
            prompt=prompt,
            tokens=tokens,
            logprobs_T=alignment.checked(sequence.logprobs, (len(tokens),), "logprobs of sampled tokens"),
            stop_reason=sequence.stop_reason,
            temperature=sampling.temperature,
            candidates=None if rows is None else alignment.top_rows(rows, wanted, "candidates"),
            origin=self,
        )

    async def _score(self, prompt: Tokens, completion: Tokens, **extra: Any) -> Any:
        return await self._line.ask(
            self._client.sample,
            prompt=types.ModelInput.from_ints(list(prompt + completion)),
            num_samples=1,
            sampling_params=types.SamplingParams(max_tokens=0 if isinstance(self._client, InProcess) else 1),
            include_prompt_logprobs=True,
            **extra,
        )

    def _end(self, completion: Tokens) -> dict[str, int]:
        """Only the completion's own logprobs, where that can be asked for: its prompt's are not computed then."""
        return {"prompt_logprobs_last_n": len(completion)} if self._last_n else {}

    def _able(self, argument: str, known: Callable[[Capabilities], bool]) -> bool:
        return argument in self._arguments and (self._capabilities is None or known(self._capabilities))

    def _candidates(self, wanted: int) -> int:
        if "topk_sample_logprobs" not in self._arguments:
            return 0
        return wanted if self._capabilities is None else min(wanted, self._capabilities.sample_candidates)

    def _fit(self, prompt: Tokens, more: int) -> None:
        if not prompt:
            raise ValueError("an empty prompt: there is nothing to predict the first token from")
        limit = self._capabilities.context_length if self._capabilities else None
        if limit is not None and len(prompt) + more > limit:
            raise ContextLengthError(
                f"a prompt of {len(prompt)} tokens and {more} more do not fit the model's context of {limit}; "
                "use a shorter conversation or fewer max_tokens"
            )


def _params(sampling: Sampling) -> types.SamplingParams:
    return types.SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=sampling.seed,
        stop=list(sampling.stop) or None,
    )


def _lacks(what: str, known: Capabilities | None = None) -> str:
    most = f" (at most {known.top_logprobs})" if known and known.top_logprobs else ""
    return f"this service or SDK cannot give {what}{most}; see `continualcode doctor` for what it can"

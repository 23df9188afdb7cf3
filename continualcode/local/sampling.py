"""The embedded engine's SamplingClient; knows nothing of training.

Drop-in for tinker.SamplingClient. L prompt tokens, K ids per position, T sampled tokens, V vocabulary.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tinker import types
from tinker.lib.public_interfaces.api_future import APIFuture
from tinker.types.topk_logprobs import MASK_LOGPROB, TopkLogprobs

from continualcode.errors import CapabilityError, ConfigError
from continualcode.local import checkpoint
from continualcode.local.engine import Draw, Sample, pick
from continualcode.local.future import ClientFuture, stop_if_asked
from continualcode.local.lora import Weights, frozen

if TYPE_CHECKING:
    from continualcode.local.model import Model

_sequence_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is asked of the prompt's positions; `targets` is dense [L - 1, K] with -1 for none."""

    logprobs: bool = False
    top_k: int = 0
    last_n: int | None = None
    targets: types.TensorData | None = None
    draws: int = 0


class SamplingClient:
    """One frozen set of weights (None: the base model). Sampled log-probabilities are untempered.

    Sampling and scoring run the same forward, so that a sample's log-probabilities are those of `compute_logprobs` to
    rounding (see `quantize` of ServiceClient for the exception).
    """

    def __init__(self, model: Model, weights: Weights | None) -> None:
        self._model, self._weights = model, weights

    @classmethod
    def from_path(cls, model: Model, path: str) -> SamplingClient:
        saved = checkpoint.load(path)
        layout = saved.layout(model.engine.network.groups)
        return cls(model, frozen(layout, saved.tensors, model.engine.network.device))

    def sample(
        self,
        prompt: types.ModelInput,
        num_samples: int,
        sampling_params: types.SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: types.TensorData | None = None,
        prompt_alt_tokens_k: int = 0,
        prompt_logprobs_last_n: int | None = None,
    ) -> APIFuture[types.SampleResponse]:
        """As in the SDK. Cancelling the future stops the sampling at the next token.

        Entry 0 of prompt_logprobs is None; row i of target_prompt_logprobs is scored at prompt position i + 1.
        Raises ConfigError for settings out of range, ContextLengthError through the future.
        """
        tokens = input_tokens(prompt)
        wanted = _Wanted(
            include_prompt_logprobs,
            topk_prompt_logprobs,
            prompt_logprobs_last_n,
            target_prompt_logprobs,
            prompt_alt_tokens_k,
        )
        self._check(tokens, wanted, num_samples, topk_sample_logprobs)
        params = sampling_params

        def work(stop: Callable[[], bool]) -> types.SampleResponse:
            draw = self._draw(params, tokens, topk_sample_logprobs)
            engine = self._model.engine
            engine.check_length(
                len(tokens) + draw.max_tokens, f"{len(tokens)} of prompt and {draw.max_tokens} to sample"
            )
            fields = self._score(tokens, wanted, draw, stop)
            samples = engine.sample(self._weights, tokens, num_samples, draw, stop)
            return types.SampleResponse(sequences=[_sequence(sample, draw) for sample in samples], **fields)

        return self._model.worker.submit(work)

    async def sample_async(self, *args: Any, **kwargs: Any) -> types.SampleResponse:
        return await self.sample(*args, **kwargs).result_async()

    def compute_logprobs(
        self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> APIFuture[list[float | None]]:
        """L entries: None at 0 and before the last n, else log p(token i | tokens before it)."""
        tokens = input_tokens(prompt)
        wanted = _Wanted(logprobs=True, last_n=prompt_logprobs_last_n)
        self._check(tokens, wanted, 1, 0)

        def work(stop: Callable[[], bool]) -> list[float | None]:
            scored = self._score(tokens, wanted, Draw(max_tokens=0), stop)["prompt_logprobs_np"]
            return [None if np.isnan(logprob) else float(logprob) for logprob in scored]

        return self._model.worker.submit(work)

    async def compute_logprobs_async(
        self, prompt: types.ModelInput, prompt_logprobs_last_n: int | None = None
    ) -> list[float | None]:
        return await self.compute_logprobs(prompt, prompt_logprobs_last_n).result_async()

    @property
    def vocabulary(self) -> int:
        return self._model.engine.network.vocabulary

    def averaged(self, newer: SamplingClient, rate: float) -> ClientFuture[SamplingClient]:
        """The client of (1 - rate) own + rate newer weights, A by A and B by B: one step of their moving average.

        Not in the SDK. Raises ConfigError for clients of other models or LoRA shapes.
        """
        mine, theirs = self._weights, newer._weights
        if mine is None or theirs is None or mine.layout != theirs.layout or newer._model is not self._model:
            raise ConfigError("only clients of one model and one LoRA shape can be averaged")

        def average(stop: Callable[[], bool]) -> SamplingClient:
            return SamplingClient(self._model, mine.averaged(theirs, rate))

        return self._model.worker.submit_client(average)

    def save(self, folder: Path) -> ClientFuture[None]:
        """Keeps the weights, in peft's format, in a folder that `create_sampling_client(model_path=...)` takes.

        Not in the SDK. Raises ConfigError for the base model, which has none.
        """
        if (weights := self._weights) is None:
            raise ConfigError("the base model alone has no LoRA to save")
        state = checkpoint.State(base_model=self._model.name)
        return self._model.worker.submit_client(
            lambda stop: checkpoint.save(folder, weights, state, adapter=None, overwrite=True)
        )

    def get_tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._model.tokenizer

    def get_base_model(self) -> str:
        return self._model.name

    async def get_base_model_async(self) -> str:
        return self._model.name

    def _check(self, tokens: list[int], wanted: _Wanted, num_samples: int, candidates: int) -> None:
        vocabulary = self._model.engine.network.vocabulary
        if num_samples < 1:
            raise ConfigError(f"num_samples is 1 or more, not {num_samples}")
        for name, k in (("topk_prompt_logprobs", wanted.top_k), ("topk_sample_logprobs", candidates)):
            if not 0 <= k <= vocabulary:
                raise ConfigError(f"{name} is 0..{vocabulary}, not {k}")
        if wanted.draws < 0:
            raise ConfigError(f"prompt_alt_tokens_k is 0 or more, not {wanted.draws}")
        if wanted.last_n is not None and not (wanted.logprobs and 1 <= wanted.last_n < len(tokens)):
            raise ConfigError(
                f"prompt_logprobs_last_n is 1..{len(tokens) - 1} and needs include_prompt_logprobs; found {wanted.last_n}"
            )
        if wanted.targets is not None:
            _check_targets(wanted.targets, len(tokens), vocabulary)

    def _draw(self, params: types.SamplingParams, tokens: list[int], candidates: int) -> Draw:
        if params.temperature < 0 or not 0 < params.top_p <= 1 or (params.top_k < 1 and params.top_k != -1):
            raise ConfigError(
                f"temperature is >= 0, top_p in (0, 1], top_k -1 or >= 1; found {params.temperature}, {params.top_p}, "
                f"{params.top_k}"
            )
        room = self._model.engine.network.context_length - len(tokens)
        stop = [params.stop] if isinstance(params.stop, str) else params.stop
        ids = self._model.end_tokens if stop is None else frozenset(s for s in stop if isinstance(s, int))
        return Draw(
            max_tokens=params.max_tokens if params.max_tokens is not None else max(room, 0),
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            seed=params.seed,
            stop_tokens=ids,
            stop_strings=tuple(s for s in stop or () if isinstance(s, str)),
            candidates=candidates,
        )

    def _score(self, tokens: list[int], wanted: _Wanted, draw: Draw, stop: Callable[[], bool]) -> dict[str, Any]:
        """The prompt's fields of a SampleResponse."""
        report = _PromptReport(tokens, wanted, draw)
        if report.rows:
            first = 0
            for logprobs in self._model.engine.distributions(self._weights, tokens, report.rows):
                stop_if_asked(stop)
                report.take(report.rows[first : first + len(logprobs)], logprobs.cpu())
                first += len(logprobs)
        return report.fields()


class _PromptReport:
    """Collects what was asked of the prompt's positions, row by row."""

    def __init__(self, tokens: list[int], wanted: _Wanted, draw: Draw) -> None:
        length = len(tokens)
        self._wanted, self._draw, self._tokens = wanted, draw, np.asarray(tokens)
        self._logprobs = np.full(length, np.nan, np.float32)
        self._top_ids = np.zeros((length, wanted.top_k), np.int32)
        self._top = np.full((length, wanted.top_k), MASK_LOGPROB, np.float32)
        self._targets = torch.from_numpy(wanted.targets.to_numpy(pad_value=-1)) if wanted.targets is not None else None
        self._scored = torch.zeros(self._targets.shape) if self._targets is not None else None
        self._alternatives = np.zeros((max(length - 1, 0), wanted.draws), np.int64)
        self._alternative_logprobs = np.zeros((max(length - 1, 0), wanted.draws), np.float32)
        self._generator = torch.Generator()
        self._generator.manual_seed(draw.seed) if draw.seed is not None else self._generator.seed()
        self._first = length - 1 - wanted.last_n if wanted.last_n is not None else 0
        self.rows = self._needed(length)

    def _needed(self, length: int) -> list[int]:
        needed: set[int] = set()
        if self._wanted.logprobs or self._wanted.top_k:
            needed.update(range(self._first, length - 1))
        if self._targets is not None:
            needed.update((self._targets >= 0).any(1).nonzero()[:, 0].tolist())
        if self._wanted.draws:
            needed.update(range(length - 1))
        return sorted(needed)

    def take(self, rows: Sequence[int], logprobs: torch.Tensor) -> None:
        """`logprobs` [rows, V] are the distributions of the tokens after each row."""
        index = np.asarray(rows)
        late = torch.from_numpy(index >= self._first)
        after, chosen = index[late.numpy()] + 1, logprobs[late]
        if self._wanted.logprobs:
            self._logprobs[after] = chosen[range(len(after)), self._tokens[after]].numpy()
        if self._wanted.top_k:
            values, ids = chosen.topk(self._wanted.top_k, -1)
            self._top_ids[after], self._top[after] = ids.numpy(), values.numpy()
        if self._targets is not None and self._scored is not None:
            ids = self._targets[index]
            self._scored[index] = logprobs.gather(-1, ids.clamp(min=0)).masked_fill(ids < 0, 0.0)
        for column in range(self._wanted.draws):
            ids = pick(logprobs, self._draw, [self._generator] * len(index))
            self._alternatives[index, column] = ids.numpy()
            self._alternative_logprobs[index, column] = logprobs.gather(-1, ids[:, None])[:, 0].numpy()

    def fields(self) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        if self._wanted.logprobs:
            fields["prompt_logprobs_np"] = self._logprobs
        if self._wanted.top_k:
            fields["topk_prompt_logprobs_np"] = TopkLogprobs(self._top_ids, self._top)
        if self._wanted.targets is not None and self._scored is not None:
            fields["target_prompt_logprobs"] = _like(self._wanted.targets, self._scored.numpy())
        if self._wanted.draws:
            fields["prompt_alt_tokens"] = types.PromptAltTokens(
                types.TensorData.from_numpy(self._alternatives), types.TensorData.from_numpy(self._alternative_logprobs)
            )
        return fields


def input_tokens(model_input: types.ModelInput) -> list[int]:
    """The tokens of a text-only input. CapabilityError for images, ConfigError for none at all."""
    if not all(isinstance(chunk, types.EncodedTextChunk) for chunk in model_input.chunks):
        raise CapabilityError("the embedded engine takes text tokens only, no images")
    tokens = model_input.to_ints()
    if not tokens:
        raise ConfigError("the model input is empty; it needs at least one token")
    return list(tokens)


def _check_targets(targets: types.TensorData, length: int, vocabulary: int) -> None:
    if targets.dtype != "int64" or targets.shape is None or len(targets.shape) != 2 or targets.shape[0] != length - 1:
        raise ConfigError(
            f"target_prompt_logprobs is int64 of shape [{length - 1}, K] for this prompt, not {targets.dtype} of shape "
            f"{targets.shape}"
        )
    ids = targets.to_numpy(pad_value=-1)
    if not (ids >= 0).any() or ids.min() < -1 or ids.max() >= vocabulary:
        raise ConfigError(f"target_prompt_logprobs names ids 0..{vocabulary - 1}, at least one, and -1 for none")


def _like(targets: types.TensorData, values: Any) -> types.TensorData:
    """Dense values in the layout the targets came in."""
    if targets.sparse_crow_indices is None or targets.sparse_col_indices is None:
        return types.TensorData.from_numpy(values)
    rows = np.repeat(np.arange(values.shape[0]), np.diff(targets.sparse_crow_indices))
    return types.TensorData(
        data=values[rows, targets.sparse_col_indices],
        dtype="float32",
        shape=targets.shape,
        sparse_crow_indices=targets.sparse_crow_indices,
        sparse_col_indices=targets.sparse_col_indices,
    )


def _sequence(sample: Sample, draw: Draw) -> types.SampledSequence:
    top = None
    if draw.candidates:
        ids = [ids.numpy() for ids, _ in sample.candidates]
        values = [values.numpy() for _, values in sample.candidates]
        shape = (len(ids), draw.candidates)
        top = TopkLogprobs(np.asarray(ids, np.int32).reshape(shape), np.asarray(values, np.float32).reshape(shape))
    return types.SampledSequence(
        stop_reason=sample.stop_reason,
        sequence_id=f"local-{next(_sequence_ids)}",
        tokens_np=np.asarray(sample.tokens, np.int32),
        logprobs_np=np.asarray(sample.logprobs, np.float32),
        topk_logprobs_np=top,
    )

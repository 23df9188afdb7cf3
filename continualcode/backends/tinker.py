"""Any Tinker service, hosted, self-hosted or in this process, as a Backend and its Samplers.

With sampler.py the only place that knows how a Tinker client is called. Knows nothing of lessons, losses or teachers.
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from tinker import types

from continualcode.backends import alignment
from continualcode.backends.line import Line, said, translated, url_of
from continualcode.backends.probe import Probe, probe
from continualcode.backends.sampler import InProcess, TinkerSampler
from continualcode.errors import (
    AlignmentError,
    BackendError,
    BackendUnavailableError,
    CapabilityError,
    ConfigError,
    ContextLengthError,
)
from continualcode.types import Capabilities, Example, Floats, Metrics, Tokens

__all__ = ["TinkerBackend", "TinkerSampler"]


class TinkerBackend:
    """A LoRA model on a Tinker service. Made with `connect`. `step` counts the optimiser steps done here."""

    def __init__(
        self,
        service: Any,
        training: Any,
        line: Line,
        *,
        model_name: str,
        newest: Any,
        found: Probe,
        tokenizer: Any = None,
    ) -> None:
        self.model_name = model_name
        self.step = 0
        self._sampled_at = 0
        """The step whose weights `sampler` has."""
        self.service, self.line = service, line
        self._training = training
        self._found = found
        self._tokenizer = tokenizer
        self._in_process = isinstance(newest, InProcess)
        if isinstance(newest, InProcess):
            beyond = replace(found.capabilities, vocabulary=newest.vocabulary, weight_averaging=True, null_space=True)
            self._found = found = replace(found, capabilities=beyond)
        self._capabilities = found.capabilities
        self._one_step = asyncio.Lock()
        self._initial = self._sampler = self._sampler_of(newest)

    @classmethod
    async def connect(
        cls,
        service: Any,
        *,
        model_name: str,
        lora_rank: int = 32,
        seed: int | None = None,
        load_checkpoint_path: str | None = None,
        tokenizer: Any = None,
        patience: float = 3.0,
    ) -> TinkerBackend:
        """A new LoRA on `model_name`, or the saved one with its optimiser state, and what its service can do.

        `service` has the interface of tinker.ServiceClient. Raises ConfigError for a model, checkpoint, address or key
        that is wrong, BackendUnavailableError when nobody answers (within 15 s at the default `patience`, see Line)
        and AlignmentError when the service's logprobs are not those of the tokens it sampled.
        """
        line = Line(url_of(service), patience)
        await line.confirm()
        training = await _training_client(line, service, model_name, lora_rank, seed, load_checkpoint_path)
        newest, models = await asyncio.gather(
            line.call(training.save_weights_and_get_sampling_client), _models(line, service)
        )
        found = await probe(newest, training, line, models.get(model_name))
        return cls(service, training, line, model_name=model_name, newest=newest, found=found, tokenizer=tokenizer)

    @property
    def sampler(self) -> TinkerSampler:
        """The newest weights; a reference kept from before stays the weights of then."""
        return self._sampler

    @property
    def initial_sampler(self) -> TinkerSampler:
        """The weights this backend was connected with."""
        return self._initial

    @property
    def capabilities(self) -> Capabilities:
        """What the service can do, found out at connect; whether snapshots stay frozen, at the first steps that show."""
        return self._capabilities

    @property
    def tokenizer(self) -> Any:
        """The one given to `connect`, or the model's own; loading that blocks and may need the network."""
        if self._tokenizer is None:
            self._tokenizer = self._training.get_tokenizer()
        return self._tokenizer

    async def train_step(self, examples: Sequence[Example], *, learning_rate: float, refresh: bool = True) -> Metrics:
        """One Adam step on the sum of the examples' weighted cross-entropies. `loss` in the metrics is that sum.

        All of it or nothing: once submitted a step is carried through, cancelled or not; the sampler (unless `refresh`
        is off) and `step` change together when it is done, and a later step waits for it.
        """
        calls = self._calls(examples)
        await self._one_step.acquire()
        step = asyncio.ensure_future(self._submit(calls, examples, learning_rate, refresh))
        step.add_done_callback(self._over)
        return await asyncio.shield(step)

    async def refresh(self) -> None:
        """Makes `sampler` the newest weights, after steps that did not."""
        async with self._one_step:
            self._sampler, self._sampled_at = self._sampler_of(await self._snapshot()), self.step

    async def forward(self, examples: Sequence[Example]) -> list[Floats]:
        """[T, K] logprobs of each example's ids at the newest weights, without a sampler being saved on the service.
        Raises CapabilityError for K > 1 where the service takes one target per position.

        A sampler scores the completions alone, is sent no prompt's targets, and what it has read of the prompts is there
        for the next proposal. It is asked where it has the newest weights; in this process one always can.
        """
        self._refuse(examples)
        if not examples:
            return []
        async with self._one_step:
            newest = self._sampler if self._sampled_at == self.step else None
        if newest is None and self._in_process:
            newest = self._sampler_of(await self._snapshot())
        if newest is not None and self._capabilities.candidate_logprobs:
            asked = (newest.candidate_logprobs(each.prompt, each.tokens, each.ids_TK) for each in examples)
            return list(await asyncio.gather(*asked))
        data = [alignment.datum(example, sparse=self._found.sparse) for example in examples]
        async with self._one_step:
            output = await self.line.ask(self._training.forward, data, "cross_entropy")
        return _logprobs(output.loss_fn_outputs, examples)

    async def into_null_space(self, sequences: Sequence[Tokens]) -> None:
        """Draws the LoRA's A away from what the layers read in these sequences, to train only B from then on; nothing where
        something was trained before. Raises CapabilityError where it is not the embedded engine's."""
        if not self._capabilities.null_space:
            raise CapabilityError(
                "only the embedded engine trains in the null space of ordinary turns; set null_space=False"
            )
        async with self._one_step:
            await self.line.ask(self._training.into_null_space, sequences)
            if self._sampler is self._initial:
                # As likely as before; but an average of weights has to begin with the A that later ones have.
                self._initial = self._sampler = self._sampler_of(await self._snapshot())

    async def save(self, name: str) -> str:
        """Keeps weights and optimiser state; returns the path that `load_checkpoint_path` takes."""
        async with self._one_step:
            return str((await self.line.ask(self._training.save_state, name)).path)

    async def load(self, path: str) -> None:
        """Goes on from what `save` kept; `initial_sampler` stays what it is, unlike with `load_checkpoint_path`.

        Raises BackendError, with everything as it was, when that cannot be had.
        """
        async with self._one_step:
            await self.line.ask(self._training.load_state_with_optimizer, path)
        await self.refresh()

    async def sampler_at(self, path: str) -> TinkerSampler:
        """Weights of this model that were saved, to sample from and to score with."""
        return self._sampler_of(await self.line.call(self.service.create_sampling_client, model_path=path))

    async def close(self) -> None:
        """Waits for a step under way. The service is its owner's to close."""
        async with self._one_step:
            pass

    def _calls(self, examples: Sequence[Example]) -> list[list[types.Datum]]:
        """The data of each forward_backward call: one for all, or one each where the service divides the loss."""
        self._refuse(examples)
        if not examples:
            raise ValueError("no examples to train on")
        if self._found.divisor == "weights":
            raise CapabilityError(
                "this service divides the loss by the sum of its weights, which turns a correction around when that is "
                "negative; training needs the sum (see `continualcode doctor`). Use hosted Tinker or the local backend."
            )
        if not all(np.isfinite(example.weights_TK).all() for example in examples):
            raise BackendError("a weight is not finite; nothing was trained on")
        if self._found.divisor == "sum":
            return [[alignment.datum(example, sparse=self._found.sparse) for example in examples]]
        return [[alignment.datum(each, self._found.scale(each), sparse=self._found.sparse)] for each in examples]

    async def _submit(
        self, calls: list[list[types.Datum]], examples: Sequence[Example], learning_rate: float, refresh: bool
    ) -> Metrics:
        with translated():
            given = self._constants(examples)
            gradients = [self._training.forward_backward(data, "cross_entropy", *given) for data in calls]
            update = self._training.optim_step(types.AdamParams(learning_rate=learning_rate))
        newest = self._snapshot() if refresh else _nothing()
        waits = [*(self.line.wait(gradient) for gradient in gradients), self.line.wait(update), newest]
        *outputs, updated, client = await asyncio.gather(*waits, return_exceptions=True)
        if refresh and not isinstance(client, BaseException):
            self._sampler = self._sampler_of(client)
        for outcome in (*outputs, updated):
            if isinstance(outcome, BaseException):
                raise outcome
        self.step += 1
        if isinstance(client, BaseException):
            raise BackendError(f"step {self.step} was done, but no sampler of its weights came: {client}") from client
        if refresh:
            self._sampled_at = self.step
            await self._check_frozen()
        return _metrics(outputs, updated, examples)

    def _constants(self, examples: Sequence[Example]) -> Sequence[dict[str, float]]:
        """What the embedded engine need not compute the gradient of; Tinker's own interface has no word for it."""
        constant = min(example.constant for example in examples)
        return ({"constant_tokens": constant},) if constant and self._in_process else ()

    async def _snapshot(self) -> Any:
        """A sampling client of the weights as they are after all that was submitted before."""
        return await self.line.call(self._training.save_weights_and_get_sampling_client)

    async def _check_frozen(self) -> None:
        """Asked of a remote service after its first steps, until the new weights show: does the old sampler keep its own?"""
        if self.line.url is None or not self._capabilities.frozen_snapshots or self._found.frozen_known:
            return
        with contextlib.suppress(BackendError):  # the step itself is done; the next one asks again
            new, old = await asyncio.gather(self._found.rescored(self._sampler), self._found.rescored(self._initial))
            self._found = self._found.compared(new, old)
            self._capabilities = self._found.capabilities

    def _refuse(self, examples: Sequence[Example]) -> None:
        if not self._capabilities.weighted_candidates and any(example.ids_TK.shape[1] > 1 for example in examples):
            raise CapabilityError(
                "this service takes one target per position, not K; distil on the sampled token, or use hosted Tinker "
                "or the local backend"
            )

    def _sampler_of(self, client: Any) -> TinkerSampler:
        found = self._found
        return TinkerSampler(client, line=self.line, capabilities=found.capabilities, last_n=found.last_n)

    def _over(self, step: asyncio.Future[Metrics]) -> None:
        self._one_step.release()
        if not step.cancelled():
            step.exception()  # the caller has it, or was cancelled and does not want it


async def _nothing() -> None:
    """Waits for nothing."""


async def _training_client(
    line: Line, service: Any, model_name: str, lora_rank: int, seed: int | None, checkpoint: str | None
) -> Any:
    try:
        if checkpoint is None:
            return await line.call(
                service.create_lora_training_client, base_model=model_name, rank=lora_rank, seed=seed
            )
        training = await line.call(service.create_training_client_from_state_with_optimizer, checkpoint)
    except (BackendUnavailableError, ContextLengthError):
        raise
    except BackendError as error:
        if checkpoint is not None:
            raise ConfigError(f"checkpoint {checkpoint!r} cannot be loaded: {_cause(error)}") from error
        known = await _models(line, service)
        if model_name in known:
            raise
        raise ConfigError(f"no model {model_name!r}: {_cause(error)}{_nearest(model_name, known)}") from error
    info = await line.call(training.get_info)
    if (base := info.model_data.model_name) not in (None, model_name):
        raise ConfigError(f"checkpoint {checkpoint!r} is of {base!r}, not {model_name!r}; set model_name={base}")
    return training


async def _models(line: Line, service: Any) -> dict[str, int | None]:
    """The models the service says it has, and the context of each; empty where it does not say."""

    def ask() -> Any:
        with warnings.catch_warnings():  # the SDK wants a second client, with a key of its own, for this
            warnings.simplefilter("ignore", FutureWarning)
            return service.get_server_capabilities()

    try:
        async with asyncio.timeout(10):
            answer = await line.call(ask)
    except (BackendError, AttributeError, TimeoutError):  # nothing depends on it
        return {}
    return {model.model_name: model.max_context_length for model in answer.supported_models}


def _nearest(model_name: str, known: dict[str, int | None]) -> str:
    if not known:
        return ""
    near = difflib.get_close_matches(model_name, known, n=1, cutoff=0.4)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(sorted(known))}"


def _cause(error: BaseException) -> str:
    return said(error.__cause__ or error)


def _metrics(outputs: Sequence[Any], updated: Any, examples: Sequence[Example]) -> Metrics:
    """What the service reports of a step, and `loss`, the sum it was taken on, where the service sends the logprobs."""
    merged = {key: float(value) for key, value in (updated.metrics or {}).items()}
    rows: list[Any] = []
    for output in outputs:
        merged.update(output.metrics)
        rows.extend(output.loss_fn_outputs)
    if not all("logprobs" in row for row in rows):
        return merged
    pairs = zip(examples, _logprobs(rows, examples), strict=True)
    return {**merged, "loss": -sum(float((example.weights_TK * logprobs_TK).sum()) for example, logprobs_TK in pairs)}


def _logprobs(rows: Sequence[Any], examples: Sequence[Example]) -> list[Floats]:
    if len(rows) != len(examples):
        raise AlignmentError(f"{len(rows)} results for {len(examples)} examples")
    return [alignment.datum_logprobs(row["logprobs"], example) for row, example in zip(rows, examples, strict=True)]

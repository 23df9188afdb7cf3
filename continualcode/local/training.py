"""The embedded engine's TrainingClient; knows nothing of where models come from.

Drop-in for tinker.TrainingClient. N tokens of a datum, K targets per token.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from tinker import types
from tinker.lib.public_interfaces.api_future import APIFuture

from continualcode.errors import CapabilityError, ConfigError
from continualcode.local import checkpoint, losses
from continualcode.local.future import ClientFuture
from continualcode.local.gradients import Gradients, Item, Loss, Result
from continualcode.local.lora import Adam, Adapter
from continualcode.local.sampling import SamplingClient, input_tokens

if TYPE_CHECKING:
    from continualcode.local.model import Model

CustomLoss = Callable[[list[types.Datum], list[torch.Tensor]], tuple[torch.Tensor, dict[str, float]]]


class TrainingClient:
    """A LoRA being trained over a model that all clients of the same base share.

    Losses are sums. `loss_fn_outputs` hold `logprobs` and `elementwise_loss` in the shape of target_tokens; in
    `forward_backward` with cross_entropy, positions whose weights are all 0 are not computed and read 0.0 (`forward`
    computes them). `optim_step` is all or nothing, and an error without a gradient to apply.
    """

    def __init__(self, model: Model, adapter: Adapter, model_id: str, folder: Path) -> None:
        self.model_id = model_id
        self._model = model
        self._adapter = adapter
        self._folder = folder
        self._gradients = Gradients(model.engine, adapter)

    def forward(
        self, data: list[types.Datum], loss_fn: str, loss_fn_config: Mapping[str, float | str] | None = None
    ) -> APIFuture[types.ForwardBackwardOutput]:
        """The loss and the log-probabilities of the targets, without a gradient."""
        checked = self._check(data, loss_fn, loss_fn_config)
        loss = Loss(loss_fn, loss_fn_config)
        return self._model.worker.submit(lambda stop: _output(self._gradients.forward(checked, loss)))

    def forward_backward(
        self, data: list[types.Datum], loss_fn: str, loss_fn_config: Mapping[str, float | str] | None = None
    ) -> APIFuture[types.ForwardBackwardOutput]:
        """The same, and adds the loss's gradient to what the next `optim_step` applies."""
        checked = self._check(data, loss_fn, loss_fn_config)
        loss = Loss(loss_fn, loss_fn_config)
        return self._model.worker.submit(lambda stop: _output(self._gradients.backward(checked, loss)))

    def forward_backward_custom(
        self, data: list[types.Datum], loss_fn: CustomLoss, *, loss_type_input: Literal["logprobs"] | None = None
    ) -> APIFuture[types.ForwardBackwardOutput]:
        """`loss_fn(data, logprobs)` gives (loss, metrics), logprobs as tensors in the shape of each target_tokens.

        It runs on the engine's thread. Losses of `create_custom_loss` are not taken: CapabilityError.
        """
        if not callable(loss_fn):
            raise CapabilityError("the embedded engine takes a function as custom loss, not a LossHandle")
        if loss_type_input not in (None, "logprobs"):
            raise ConfigError(f"loss_type_input is 'logprobs', not {loss_type_input!r}")
        plain = [_targets_alone(datum) for datum in data]
        checked = self._check(plain, "cross_entropy", None)

        def work(stop: Callable[[], bool]) -> types.ForwardBackwardOutput:
            metrics: dict[str, float] = {}

            def loss(logprobs: list[torch.Tensor]) -> torch.Tensor:
                value, found = loss_fn(data, logprobs)
                metrics.update(found)
                return value

            value, results = self._gradients.backward_through(checked, loss)
            output = _output(results)
            surrogate = output.metrics.pop("loss:sum")
            output.metrics.update({**metrics, "loss:sum": float(value), "surrogate_loss:sum": surrogate})
            return output

        return self._model.worker.submit(work)

    def optim_step(
        self, optim_params: types.AdamParams | None = None, *, adam_params: types.AdamParams | None = None
    ) -> APIFuture[types.OptimStepResponse]:
        """One AdamW step on the gradients since the last; metrics hold the gradient's norm before clipping."""
        params = optim_params if optim_params is not None else adam_params
        if not isinstance(params, types.AdamParams):
            raise CapabilityError(f"the embedded engine steps with AdamParams, not {type(params).__name__}")
        settings = Adam(
            learning_rate=params.learning_rate,
            beta1=params.beta1,
            beta2=params.beta2,
            eps=params.eps,
            weight_decay=params.weight_decay,
            grad_clip_norm=params.grad_clip_norm,
        )

        def step(stop: Callable[[], bool]) -> types.OptimStepResponse:
            return types.OptimStepResponse(metrics={"grad_norm:mean": self._adapter.adam(settings)})

        return self._model.worker.submit(step)

    def into_null_space(self, sequences: Sequence[Sequence[int]]) -> APIFuture[None]:
        """Draws A anew, away from what the layers read in these sequences of token ids, and trains only B from then on:
        little changes for inputs like them. Does nothing to a LoRA that is trained already. Not in Tinker's interface.
        """
        given = [tuple(tokens) for tokens in sequences if tokens]
        for tokens in given:
            self._model.engine.check_tokens(tokens)
        return self._model.worker.submit(lambda stop: self._gradients.into_null_space(given))

    def save_state(
        self,
        name: str,
        ttl_seconds: int | None = None,
        overwrite: bool = False,
        user_metadata: dict[str, str] | None = None,
    ) -> APIFuture[types.SaveWeightsResponse]:
        """Weights and optimizer state in a folder; its path loads them again. After ttl_seconds it is refused."""
        folder = self._named("weights", name)

        def save(stop: Callable[[], bool]) -> types.SaveWeightsResponse:
            self._save(folder, ttl_seconds, user_metadata, optimizer=True, overwrite=overwrite)
            return types.SaveWeightsResponse(path=str(folder))

        return self._model.worker.submit(save)

    def save_weights_for_sampler(
        self, name: str, ttl_seconds: int | None = None, user_metadata: dict[str, str] | None = None
    ) -> APIFuture[types.SaveWeightsForSamplerResponse]:
        """Weights alone, in a folder that `create_sampling_client(model_path=...)` takes."""
        folder = self._named("sampler_weights", name)

        def save(stop: Callable[[], bool]) -> types.SaveWeightsForSamplerResponse:
            self._save(folder, ttl_seconds, user_metadata, optimizer=False, overwrite=True)
            return types.SaveWeightsForSamplerResponse(path=str(folder))

        return self._model.worker.submit(save)

    def load_state(self, path: str, weights_access_token: str | None = None) -> APIFuture[types.LoadWeightsResponse]:
        """Replaces the weights by saved ones and starts the optimizer afresh."""
        return self._load(path, weights_access_token, optimizer=False)

    def load_state_with_optimizer(
        self, path: str, weights_access_token: str | None = None
    ) -> APIFuture[types.LoadWeightsResponse]:
        """Replaces weights and optimizer state by saved ones; ConfigError when only weights were saved."""
        return self._load(path, weights_access_token, optimizer=True)

    def save_weights_and_get_sampling_client(
        self,
        name: str | None = None,
        retry_config: object = None,
        record_stability_info: bool = False,
        kind: str = "snapshot",
    ) -> ClientFuture[SamplingClient]:
        """A client of a frozen copy of the present weights, in memory only. Nothing is retried, `name` has no effect."""
        if record_stability_info or kind != "snapshot":
            raise CapabilityError("the embedded engine's sampling clients are snapshots without stability information")

        def snapshot(stop: Callable[[], bool]) -> SamplingClient:
            return SamplingClient(self._model, self._adapter.snapshot())

        return self._model.worker.submit_client(snapshot)

    def create_sampling_client(
        self, model_path: str, retry_config: object = None, record_stability_info: bool = False
    ) -> ClientFuture[SamplingClient]:
        """A client of weights saved over the same base model."""
        if record_stability_info:
            raise CapabilityError("the embedded engine records no stability information")
        return self._model.worker.submit_client(lambda stop: SamplingClient.from_path(self._model, model_path))

    async def forward_async(self, *args: Any, **kwargs: Any) -> APIFuture[types.ForwardBackwardOutput]:
        return self.forward(*args, **kwargs)

    async def forward_backward_async(self, *args: Any, **kwargs: Any) -> APIFuture[types.ForwardBackwardOutput]:
        return self.forward_backward(*args, **kwargs)

    async def forward_backward_custom_async(self, *args: Any, **kwargs: Any) -> APIFuture[types.ForwardBackwardOutput]:
        return self.forward_backward_custom(*args, **kwargs)

    async def optim_step_async(self, *args: Any, **kwargs: Any) -> APIFuture[types.OptimStepResponse]:
        return self.optim_step(*args, **kwargs)

    async def save_state_async(self, *args: Any, **kwargs: Any) -> APIFuture[types.SaveWeightsResponse]:
        return self.save_state(*args, **kwargs)

    async def load_state_async(self, *args: Any, **kwargs: Any) -> APIFuture[types.LoadWeightsResponse]:
        return self.load_state(*args, **kwargs)

    async def load_state_with_optimizer_async(self, *args: Any, **kwargs: Any) -> APIFuture[types.LoadWeightsResponse]:
        return self.load_state_with_optimizer(*args, **kwargs)

    async def save_weights_for_sampler_async(
        self, *args: Any, **kwargs: Any
    ) -> APIFuture[types.SaveWeightsForSamplerResponse]:
        return self.save_weights_for_sampler(*args, **kwargs)

    async def save_weights_and_get_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return await self.save_weights_and_get_sampling_client(*args, **kwargs).result_async()

    async def create_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return await self.create_sampling_client(*args, **kwargs).result_async()

    async def get_info_async(self) -> types.GetInfoResponse:
        return self.get_info()

    def get_info(self) -> types.GetInfoResponse:
        return types.GetInfoResponse(
            type="get_info",
            model_data=types.ModelData(
                arch=self._model.architecture, model_name=self._model.name, tokenizer_id=self._model.source
            ),
            model_id=self.model_id,
            is_lora=True,
            lora_rank=self._adapter.layout.rank,
            model_name=self._model.name,
        )

    def get_tokenizer(self) -> Any:
        """The transformers tokenizer."""
        return self._model.tokenizer

    def _check(self, data: list[types.Datum], loss_fn: str, config: Mapping[str, float | str] | None) -> list[Item]:
        if not data:
            raise ConfigError("no data: forward and forward_backward need at least one datum")
        checked = []
        for datum in data:
            tokens = input_tokens(datum.model_input)
            inputs = {key: tensor.to_torch() for key, tensor in datum.loss_fn_inputs.items()}
            losses.check(loss_fn, inputs, len(tokens), config)
            self._model.engine.check_length(len(tokens), "the datum's tokens")
            targets, vocabulary = inputs["target_tokens"], self._model.engine.network.vocabulary
            if min(tokens) < 0 or max(tokens) >= vocabulary or targets.min() < 0 or targets.max() >= vocabulary:
                raise ConfigError(f"token ids and targets must be 0..{vocabulary - 1}")
            checked.append(Item(tokens, inputs))
        return checked

    def _save(
        self, folder: Path, ttl: int | None, metadata: dict[str, str] | None, *, optimizer: bool, overwrite: bool
    ) -> None:
        state = checkpoint.State(
            base_model=self._model.name,
            step=self._adapter.step,
            null_space=self._adapter.null_space,
            expires=time.time() + ttl if ttl is not None else None,
            user_metadata=metadata,
        )
        adapter = self._adapter if optimizer else None
        checkpoint.save(folder, self._adapter.weights, state, adapter=adapter, overwrite=overwrite)

    def _load(self, path: str, token: str | None, *, optimizer: bool) -> APIFuture[types.LoadWeightsResponse]:
        if token is not None:
            raise CapabilityError("the embedded engine loads folders of this machine; it has no access tokens")

        def load(stop: Callable[[], bool]) -> types.LoadWeightsResponse:
            load_into(self._adapter, checkpoint.load(path), path, optimizer=optimizer)
            return types.LoadWeightsResponse(path=path, model_id=self.model_id, type="load_weights")

        return self._model.worker.submit(load)

    def _named(self, kind: str, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
            raise ConfigError(f"a checkpoint's name is letters, digits, '_', '-' and '.', not {name!r}")
        return self._folder / kind / name


def load_into(adapter: Adapter, saved: checkpoint.Checkpoint, path: str, *, optimizer: bool) -> None:
    """Replaces an adapter's weights, and with `optimizer` Adam's moments and step."""
    if optimizer and saved.moments is None:
        raise ConfigError(f"{path!r} holds weights but no optimizer state; save_state saves both")
    if (saved.rank, saved.alpha) != (adapter.layout.rank, adapter.layout.alpha):
        raise ConfigError(
            f"{path!r} is a LoRA of rank {saved.rank} and alpha {saved.alpha}; this client's has rank "
            f"{adapter.layout.rank} and alpha {adapter.layout.alpha}: use create_training_client_from_state"
        )
    moments = saved.moments if optimizer else None
    adapter.load(saved.tensors, moments, saved.state.step, null_space=saved.state.null_space)


def _targets_alone(datum: types.Datum) -> types.Datum:
    if "target_tokens" not in datum.loss_fn_inputs:
        raise ConfigError("a custom loss needs loss_fn_inputs target_tokens")
    targets = datum.loss_fn_inputs["target_tokens"]
    weights = types.TensorData.from_torch(torch.zeros(targets.to_torch().shape))
    return types.Datum(datum.model_input, {"target_tokens": targets, "weights": weights})


def _output(results: list[Result]) -> types.ForwardBackwardOutput:
    return types.ForwardBackwardOutput(
        loss_fn_output_type="ArrayRecord",
        loss_fn_outputs=[
            {
                "logprobs": types.TensorData.from_torch(result.logprobs.float()),
                "elementwise_loss": types.TensorData.from_torch(result.loss.float()),
            }
            for result in results
        ],
        metrics={"loss:sum": float(sum(result.loss.double().sum() for result in results))},
    )

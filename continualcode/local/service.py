"""The embedded engine's ServiceClient: loads models and makes clients for them; knows nothing of how they run.

Drop-in for tinker.ServiceClient.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tinker import types

from continualcode.errors import CapabilityError, ConfigError
from continualcode.local import checkpoint, loading, pretrained
from continualcode.local.future import ClientFuture, Worker
from continualcode.local.lora import Adapter, Group, Layout
from continualcode.local.model import EngineStats, Model
from continualcode.local.sampling import SamplingClient
from continualcode.local.threads import fit_threads
from continualcode.local.training import TrainingClient, load_into

ALPHA = 32
"""LoRA's alpha, as on the hosted service."""


class ServiceClient:
    """Trains and samples in this process, on torch and transformers, through the Tinker client's own interface.

    Models are Hugging Face hub ids, folders, GGUF files, or "smollm2-135m". Its cold-start adapter, which teaches it
    the tool format, is merged into the base as it is loaded: the trainable LoRA begins with no effect whatever its
    rank, and the base model *is* the cold-started one. Saved weights are relative to that base.

    device, dtype: "auto" finds CUDA, MPS or the CPU, and bfloat16 where the device multiplies it fast.
    quantize: "int8" samples with an int8 copy of the base (faster decoding of one sequence, more memory). The sampled
        log-probabilities are then those of the sampler, not exactly those `compute_logprobs` and training see.
    prefix_cache_bytes: how much is kept of keys and values for the next request, for each model.
    state_dir: where save_state writes; default $XDG_STATE_HOME/continualcode (~/.local/state/continualcode).
    All work is done in order by one thread; a model is loaded when it is first asked for.
    """

    def __init__(
        self,
        user_metadata: dict[str, str] | None = None,
        project_id: str | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        quantize: str | None = None,
        prefix_cache_bytes: int = 512 * 2**20,
        state_dir: Path | str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
    ) -> None:
        if base_url is not None or api_key is not None:
            raise ConfigError("the embedded engine has no server: base_url and api_key belong to tinker.ServiceClient")
        if quantize not in (None, "int8"):
            raise ConfigError(f"quantize is None or 'int8', not {quantize!r}")
        self._device = loading.choose_device(device)
        self._dtype = loading.choose_dtype(dtype, self._device)
        if quantize and (self._device.type != "cpu" or self._dtype != torch.float32):
            raise ConfigError(f"quantize is for float32 on the CPU, not {self._dtype} on {self._device}")
        self._quantize = quantize is not None
        self._cache_bytes = prefix_cache_bytes
        self._state_dir = Path(state_dir) if state_dir is not None else _default_state_dir()
        self._worker = Worker(before=fit_threads)
        self._models: dict[str, Model] = {}

    def __enter__(self) -> ServiceClient:
        return self

    def __exit__(self, *error: object) -> None:
        self._worker.close()

    def close(self, status: str = "success", detail: str | None = None) -> ClientFuture[None]:
        """No more work is taken; what was submitted is finished."""
        done: ClientFuture[None] = self._worker.submit_client(lambda stop: None)
        self._worker.close()
        return done

    def create_lora_training_client(
        self,
        base_model: str,
        rank: int = 32,
        seed: int | None = None,
        train_mlp: bool = True,
        train_attn: bool = True,
        train_unembed: bool = True,
        user_metadata: dict[str, str] | None = None,
        optimizer: types.OptimizerConfig | None = None,
    ) -> ClientFuture[TrainingClient]:
        """A new LoRA on every linear layer of the chosen kinds, A random and B zero.

        train_unembed trains the output matrix only where it is not tied to the input embeddings.
        """
        if rank < 1:
            raise ConfigError(f"rank is 1 or more, not {rank}")
        _check_optimizer(optimizer)

        def create(stop: Callable[[], bool]) -> TrainingClient:
            model = self._model(base_model)
            layout = Layout(_chosen(model.engine.network.groups, train_mlp, train_attn, train_unembed), rank, ALPHA)
            if not layout.size:
                raise ConfigError(f"nothing of {base_model!r} is left to train; set train_mlp or train_attn")
            return self._client(model, Adapter.random(layout, seed, model.engine.network.device))

        return self._worker.submit_client(create)

    async def create_lora_training_client_async(self, *args: Any, **kwargs: Any) -> TrainingClient:
        return await self.create_lora_training_client(*args, **kwargs).result_async()

    def create_training_client_from_state(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: dict[str, str] | None = None,
        weights_access_token: str | None = None,
        optimizer: types.OptimizerConfig | None = None,
    ) -> ClientFuture[TrainingClient]:
        """Training that goes on from saved weights with a fresh optimizer; any LoRA saved by peft will do."""
        _check_optimizer(optimizer)
        return self._from_state(path, base_model, weights_access_token, with_optimizer=False)

    async def create_training_client_from_state_async(self, *args: Any, **kwargs: Any) -> TrainingClient:
        return await self.create_training_client_from_state(*args, **kwargs).result_async()

    def create_training_client_from_state_with_optimizer(
        self,
        path: str,
        base_model: str | None = None,
        user_metadata: dict[str, str] | None = None,
        weights_access_token: str | None = None,
    ) -> ClientFuture[TrainingClient]:
        """Training that goes on exactly where `save_state` left it."""
        return self._from_state(path, base_model, weights_access_token, with_optimizer=True)

    async def create_training_client_from_state_with_optimizer_async(self, *args: Any, **kwargs: Any) -> TrainingClient:
        return await self.create_training_client_from_state_with_optimizer(*args, **kwargs).result_async()

    def create_sampling_client(
        self,
        model_path: str | None = None,
        base_model: str | None = None,
        retry_config: object = None,
        record_stability_info: bool = False,
    ) -> ClientFuture[SamplingClient]:
        """A client of saved weights, or of the base model alone. Nothing is retried: there is no network."""
        if model_path is None and base_model is None:
            raise ValueError("either model_path or base_model must be given")
        if record_stability_info:
            raise CapabilityError("the embedded engine records no stability information")

        def create(stop: Callable[[], bool]) -> SamplingClient:
            if model_path is None:
                return SamplingClient(self._model(base_model or ""), None)
            return SamplingClient.from_path(self._model(base_model or _base_of(model_path)), model_path)

        return self._worker.submit_client(create)

    async def create_sampling_client_async(self, *args: Any, **kwargs: Any) -> SamplingClient:
        return await self.create_sampling_client(*args, **kwargs).result_async()

    def get_server_capabilities(self) -> types.GetServerCapabilitiesResponse:
        """The models loaded so far and the default one; any other causal language model will be loaded too."""
        models = [
            types.SupportedModel(
                model_name=name,
                max_context_length=model.engine.network.context_length,
                trainable=True,
                sampleable=True,
            )
            for name, model in list(self._models.items())
        ]
        if pretrained.DEFAULT_MODEL not in self._models:
            default = types.SupportedModel(model_name=pretrained.DEFAULT_MODEL, trainable=True, sampleable=True)
            models.append(default)
        return types.GetServerCapabilitiesResponse(supported_models=models)

    async def get_server_capabilities_async(self) -> types.GetServerCapabilitiesResponse:
        return self.get_server_capabilities()

    def stats(self, base_model: str) -> EngineStats:
        """What the prefix cache of a loaded model has done. KeyError for one that is not loaded."""
        prefix = self._models[base_model].engine.prefix
        return EngineStats(prefix.stats, prefix.nbytes)

    def _model(self, name: str) -> Model:
        """Loads on first use; called on the worker's thread."""
        if name not in self._models:
            source = pretrained.resolve(name)
            fold = pretrained.cold_start(name)
            network = loading.load(source, self._device, self._dtype, fold=fold, quantize=self._quantize)
            self._models[name] = Model(name, source, network, self._worker, self._cache_bytes)
        return self._models[name]

    def _client(self, model: Model, adapter: Adapter) -> TrainingClient:
        model_id = f"local-{uuid.uuid4().hex[:12]}"
        return TrainingClient(model, adapter, model_id, self._state_dir / model_id)

    def _from_state(
        self, path: str, base_model: str | None, token: str | None, *, with_optimizer: bool
    ) -> ClientFuture[TrainingClient]:
        if token is not None:
            raise CapabilityError("the embedded engine loads folders of this machine; it has no access tokens")

        def create(stop: Callable[[], bool]) -> TrainingClient:
            saved = checkpoint.load(path)
            model = self._model(base_model or _base_of(path))
            network = model.engine.network
            layout = saved.layout(network.groups)
            adapter = Adapter.random(layout, 0, network.device)
            load_into(adapter, saved, path, optimizer=with_optimizer)
            return self._client(model, adapter)

        return self._worker.submit_client(create)


def _base_of(path: str) -> str:
    base = checkpoint.load(path).state.base_model
    if not base:
        raise ConfigError(f"{path!r} does not say what model it belongs to; pass base_model")
    return base


def _chosen(groups: tuple[Group, ...], mlp: bool, attention: bool, unembedding: bool) -> tuple[Group, ...]:
    def wanted(name: str) -> bool:
        if name.endswith(("lm_head", "embed_out")):
            return unembedding
        return attention if "attn" in name or "attention" in name else mlp

    return tuple(tuple(slot for slot in group if wanted(slot.name)) for group in groups)


def _check_optimizer(optimizer: types.OptimizerConfig | None) -> None:
    if optimizer is not None and optimizer.type != "adamw":
        raise CapabilityError(f"the embedded engine has the optimizer adamw, not {optimizer.type}")


def _default_state_dir() -> Path:
    root = os.environ.get("XDG_STATE_HOME")
    return (Path(root) if root else Path.home() / ".local" / "state") / "continualcode"

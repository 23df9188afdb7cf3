"""The server of round_trips.py: tests/backends/wire_server.py, each request delayed, counted and timed, in front of a
model that answers at once. Knows nothing of who asks.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from tinker import types

from continualcode.types import Floats

sys.path.append(str(Path(__file__).parents[1] / "tests" / "backends"))
import wire_server

MODEL = "Qwen/Qwen3-4B-Instruct-2507"
"""The name alone: the default of both programs."""
ROWS = 4
BACKGROUND = ("session_heartbeat", "healthz", "client/config", "client/dynamic_config", "telemetry")


@dataclass(slots=True)
class Request:
    """One HTTP request: `time.monotonic()` when it came and when its answer was sent, bytes of the bodies."""

    name: str
    began: float
    ended: float = float("inf")
    up: int = 0
    down: int = 0


@dataclass(slots=True)
class Counted:
    """An ASGI application whose requests are noted."""

    app: ASGIApp
    requests: list[Request] = field(default_factory=list)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        kind = dict(scope["headers"]).get(b"x-tinker-request-type", b"").decode()
        request = Request(scope["path"].removeprefix("/api/v1/") + (f" {kind}" if kind else ""), time.monotonic())
        self.requests.append(request)

        async def counted_receive() -> Message:
            message = await receive()
            request.up += len(message.get("body", b""))
            return message

        async def counted_send(message: Message) -> None:
            request.down += len(message.get("body", b""))
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                request.ended = time.monotonic()

        await self.app(scope, counted_receive, counted_send)


def within(requests: Sequence[Request], began: float, ended: float) -> list[Request]:
    """Those of a span of time, without what goes on in the background whoever asks."""
    inside = (r for r in requests if r.began >= began and r.ended <= ended and r.name not in BACKGROUND)
    return sorted(inside, key=lambda request: request.began)


def longest_chain(requests: Sequence[Request]) -> list[Request]:
    """The most requests of which each came when the one before it had been answered: so many latencies were waited for
    one after the other."""
    chains: list[list[Request]] = []
    for request in sorted(requests, key=lambda r: r.began):
        before = (chain for chain in chains if chain[-1].ended <= request.began)
        chains.append([*max(before, key=len, default=[]), request])
    return max(chains, key=len, default=[])


class InstantService:
    """A Tinker service that samples always the same `script`, from distributions that depend on a token's place alone.

    Row i % ROWS of the logits is the distribution of the i-th token of a sequence, prompt included, so that teacher and
    student, whose prompts differ in length, differ. A step shakes the logits, so that new weights can be told from old.
    """

    def __init__(self, script: Sequence[int], vocabulary: int, tokenizer: str | None = None) -> None:
        self.script, self.tokenizer, self.rng = list(script), tokenizer, np.random.default_rng(0)
        self.logits: Floats = self.rng.normal(size=(ROWS, vocabulary))

    def create_lora_training_client(self, base_model: str, rank: int = 32, seed: int | None = None) -> InstantService:
        return self

    def get_server_capabilities(self) -> Any:
        return SimpleNamespace(supported_models=[SimpleNamespace(model_name=MODEL, max_context_length=32768)])

    def get_info(self) -> Any:
        return SimpleNamespace(model_data=SimpleNamespace(model_name=MODEL), lora_rank=32)

    def forward(self, data: Sequence[types.Datum], loss_fn: str) -> Any:
        table, outputs, total = log_softmax(self.logits), [], 0.0
        for datum in data:
            targets = datum.loss_fn_inputs["target_tokens"].to_numpy()
            rows = np.arange(1, len(targets) + 1).reshape(-1, *[1] * (targets.ndim - 1)) % ROWS
            logprobs = table[rows, targets]
            if (weights := datum.loss_fn_inputs.get("weights")) is not None:
                total -= float((weights.to_numpy() * logprobs).sum())
            outputs.append({"logprobs": types.TensorData(logprobs.ravel(), dtype="float32", shape=[*targets.shape])})
        return SimpleNamespace(loss_fn_outputs=outputs, metrics={"loss:sum": total})

    forward_backward = forward

    def optim_step(self, adam_params: types.AdamParams) -> Any:
        self.logits = self.logits + self.rng.normal(size=self.logits.shape) / 4
        return SimpleNamespace(metrics={})

    def save_state(self, name: str) -> Any:
        return SimpleNamespace(path=f"tinker://instant/weights/{name}")

    def save_weights_and_get_sampling_client(self) -> InstantSampling:
        return InstantSampling(self.script, log_softmax(self.logits))


class InstantSampling:
    """One frozen table of log-probabilities [ROWS, V]."""

    def __init__(self, script: list[int], table: Floats) -> None:
        self.script, self.table = script, table
        self._best: dict[int, list[list[tuple[int, float]]]] = {}

    def sample(
        self,
        prompt: types.ModelInput,
        num_samples: int,
        sampling_params: types.SamplingParams,
        include_prompt_logprobs: bool = False,
        topk_prompt_logprobs: int = 0,
        topk_sample_logprobs: int = 0,
        target_prompt_logprobs: types.TensorData | None = None,
        prompt_logprobs_last_n: int | None = None,
    ) -> Any:
        tokens, drawn = prompt.to_ints(), self.script[: sampling_params.max_tokens]
        end, whole = len(tokens), [*tokens, *drawn]
        logprobs = self.table[np.arange(len(whole)) % ROWS, whole].tolist()
        first = max(1, end - (prompt_logprobs_last_n or end))
        top, best = topk_prompt_logprobs, topk_sample_logprobs
        sequence = SimpleNamespace(
            tokens=drawn,
            logprobs=logprobs[end:],
            stop_reason="stop" if len(drawn) == len(self.script) else "length",
            topk_logprobs=[self._top(place, best) for place in range(end, len(whole))] if best else None,
        )
        return SimpleNamespace(
            sequences=[sequence] * num_samples,
            prompt_logprobs=[None] * first + logprobs[first:end] if include_prompt_logprobs else None,
            topk_prompt_logprobs=[None] * first + [self._top(p, top) for p in range(first, end)] if top else None,
            target_prompt_logprobs=None if target_prompt_logprobs is None else self._chosen(target_prompt_logprobs),
        )

    def _top(self, place: int, k: int) -> list[tuple[int, float]]:
        if k not in self._best:
            ranked = [ids[np.argsort(-row[ids])] for row in self.table for ids in [np.argpartition(-row, k)[:k]]]
            self._best[k] = [list(zip(ids.tolist(), row[ids].tolist())) for ids, row in zip(ranked, self.table)]  # noqa: B905
        return self._best[k][place % ROWS]

    def _chosen(self, asked: types.TensorData) -> types.TensorData:
        """Of CSR, which is how ours asks."""
        starts = asked.sparse_crow_indices
        assert starts is not None
        rows = np.repeat(np.arange(1, len(starts)), np.diff(starts)) % ROWS
        return types.TensorData(
            self.table[rows, np.asarray(asked.data)],
            dtype="float32",
            shape=asked.shape,
            sparse_crow_indices=starts,
            sparse_col_indices=asked.sparse_col_indices,
        )


def log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normal: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normal


def start(service: InstantService) -> Any:
    """A running server: `url`, `latency` in seconds before every answer, `requests`, `die()`."""

    class Server(wire_server.WireServer):  # type: ignore[misc]
        def _app(self) -> Counted:
            counted = Counted(super()._app())
            self.requests = counted.requests
            return counted

        async def get_info(self, request: Any) -> Any:
            info = await super().get_info(request)
            return {**info, "model_data": {**info["model_data"], "tokenizer_id": service.tokenizer}}

    return Server(service).__enter__()

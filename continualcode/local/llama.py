"""A lean forward for models of Llama's shape (Llama, Mistral, Qwen2, Qwen3); knows nothing of sampling or losses.

One function serves sampling, scoring and training. Against transformers' own it fuses the matrices that read the
same input, keeps LoRA apart so that any number of frozen snapshots share one base, and in the last layer computes
queries, MLP and head only where they are asked for.

B sequences, N new tokens, S tokens in all, W wanted positions, H query heads, K key heads, D head size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from continualcode.local import decode
from continualcode.local.linear import Linear, row_of
from continualcode.local.lora import Group, Part, Slot, Weights
from continualcode.local.operations import attend, attend_packed, rms_norm

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
_STATIC_ROPE = ("default", "linear", "llama3", "yarn")
_NEEDED = {
    *("hidden_act", "hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads"),
    *("num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "rope_parameters", "tie_word_embeddings"),
}
RECOMPUTE_ABOVE = 1536
"""Tokens above which training keeps a layer's input only and computes the rest again: a third more time, and memory
that no longer grows by about 1 MB a token (for 135M parameters)."""

Read = Callable[[str], Tensor | None]


@dataclass(frozen=True, slots=True)
class Layer:
    input_norm: Tensor
    qkv: Linear
    q_norm: Tensor | None
    k_norm: Tensor | None
    o: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is the same for every layer of one call: cos and sin [N, D] of the new tokens, which begin at `start`.

    `tails`: first and last + 1 of the sequences packed behind a common beginning, each of which sees that and itself.
    `before`: what that beginning itself begins with, read before.
    """

    weights: Weights | None
    rope: tuple[Tensor, Tensor]
    cache: LlamaCache | None
    start: int
    tails: tuple[tuple[int, int], ...] = ()
    before: LlamaCache | None = None

    def parts(self, layer: int) -> tuple[Part | None, ...]:
        """LoRA of qkv, o, gate_up and down."""
        return self.weights.of_layer(layer) if self.weights is not None else (None,) * 4


class LlamaCache:
    """Keys and values [layers, 2, B, K, room, D] in one tensor, which grows by half when it is full."""

    def __init__(self, network: Llama, batch: int, room: int) -> None:
        shape = (network.layers_count, 2, batch, network.key_heads, room, network.head_size)
        self._data = torch.empty(shape, dtype=network.dtype, device=network.device)
        self._network = network
        self.length = 0

    @property
    def nbytes(self) -> int:
        return self._data.nbytes

    def fork(self, length: int, room: int) -> LlamaCache:
        cache = LlamaCache(self._network, self._data.shape[2], max(room, length))
        cache._data[..., :length, :] = self._data[..., :length, :]
        cache.length = length
        return cache

    def repeat(self, count: int) -> LlamaCache:
        cache = LlamaCache(self._network, count, self._data.shape[4])
        cache._data[..., : self.length, :] = self._data[..., : self.length, :]
        cache.length = self.length
        return cache

    def keep(self, rows: Sequence[int]) -> None:
        self._data = self._data[:, :, list(rows)].contiguous()

    def reserve(self, new: int) -> None:
        if self.length + new > self._data.shape[4]:
            self._data = self.fork(self.length, (self.length + new) * 3 // 2 + 64)._data

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Writes [B, K, N, D] behind what is there; returns all [B, K, S, D]. `length` moves on in `commit`."""
        data = self._data[layer]
        end = self.length + keys.shape[2]
        data[0, :, :, self.length : end] = keys
        data[1, :, :, self.length : end] = values
        return data[0, :, :, :end], data[1, :, :, :end]

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The same for one token of one sequence, [K, D] each."""
        keys_seen, values_seen = self._data[layer].unbind()
        keys_seen[0].select(1, self.length).copy_(keys)
        values_seen[0].select(1, self.length).copy_(values)
        return keys_seen[:, :, : self.length + 1], values_seen[:, :, : self.length + 1]

    def of_layer(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values [B, K, S, D]."""
        keys, values = self._data[layer]
        return keys[:, :, : self.length], values[:, :, : self.length]

    def commit(self, new: int) -> None:
        self.length += new


class Llama:
    """The network. `read_tensor` gives base tensors by transformers' names, on their device and in their dtype."""

    def __init__(self, config: Any, read_tensor: Read, *, quantize: bool = False) -> None:
        self.config = config
        heads, self.key_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_size: int = getattr(config, "head_dim", None) or config.hidden_size // heads
        self._query_rows, self._key_rows = heads * self.head_size, self.key_heads * self.head_size
        self.layers_count: int = config.num_hidden_layers
        self.epsilon: float = config.rms_norm_eps
        embedding = _required(read_tensor, "model.embed_tokens.weight")
        self.dtype, self.device, self.vocabulary = embedding.dtype, embedding.device, int(embedding.shape[0])
        self.layers = [self._load(f"model.layers.{i}", read_tensor, quantize) for i in range(self.layers_count)]
        self._norm = _required(read_tensor, "model.norm.weight")
        self._tied = bool(config.tie_word_embeddings)
        head = embedding if self._tied else _required(read_tensor, "lm_head.weight")
        self._head = Linear(head, None, quantize=quantize)
        self.embedding = self._head.weight if self._tied else embedding.clone()
        self._rope: tuple[Tensor, Tensor] = (torch.empty(0), torch.empty(0))
        self._steps = self.device.type == "cpu" and self.dtype == torch.float32
        self.groups = self._groups()

    @property
    def context_length(self) -> int:
        return int(self.config.max_position_embeddings)

    def new_cache(self, room: int) -> LlamaCache:
        return LlamaCache(self, 1, room)

    def read(self, weights: Weights | None, tokens_BN: Tensor, cache: Any, wanted: Tensor) -> Tensor:
        """Features [B, W, hidden] before the head; see Network.read."""
        start, new = (cache.length if cache else 0), tokens_BN.shape[1]
        if cache is not None:
            cache.reserve(new)
            if tokens_BN.shape == (1, 1) and self._steps and not torch.is_grad_enabled():
                return self._rms(decode.step(self, weights, tokens_BN[0], cache), self._norm)[None]
        x = self._layers(_Reading(weights, self.rope_at(start, start + new), cache, start), tokens_BN, wanted)
        if cache is not None:
            cache.commit(new)
        return x

    def read_packed(
        self,
        weights: Weights | None,
        tokens_N: Tensor,
        tails: Sequence[tuple[int, int]],
        wanted: Tensor,
        before: Any = None,
    ) -> Tensor:
        """Features [W, hidden] of sequences that begin alike; see PackedNetwork.read_packed."""
        start = before.length if before else 0
        tails = [(begin + start, end + start) for begin, end in tails]
        first = tails[0][0]
        cos, sin = self.rope_at(0, first + max(end - begin for begin, end in tails))
        places = torch.cat([torch.arange(start, first), *(torch.arange(first, first + e - b) for b, e in tails)])
        places = places.to(self.device)
        return self._layers(
            _Reading(weights, (cos[places], sin[places]), None, start, tuple(tails), before), tokens_N[None], wanted
        )[0]

    def _layers(self, reading: _Reading, tokens_BN: Tensor, wanted: Tensor) -> Tensor:
        new = tokens_BN.shape[1]
        x = self.embedding[tokens_BN]
        rows = wanted if len(wanted) < new else None
        for index in range(self.layers_count):
            only = rows if index == self.layers_count - 1 else None
            if torch.is_grad_enabled() and new > RECOMPUTE_ABOVE:
                x = recompute(self._block, index, reading, x, only, use_reentrant=False)
            else:
                x = self._block(index, reading, x, only)
        return self._rms(x, self._norm)

    def logits(self, weights: Weights | None, features: Tensor) -> Tensor:
        part = weights.parts[-1] if weights is not None and not self._tied else None
        return self._head(features, part).float()

    def _block(self, index: int, reading: _Reading, x: Tensor, rows: Tensor | None) -> Tensor:
        """One layer, at all positions or only at `rows`."""
        layer, parts = self.layers[index], reading.parts(index)
        q, k, v = self._qkv(layer, parts[0], self._rms(x, layer.input_norm), rows)
        cos, sin = reading.rope
        q = _rotate(q, cos, sin) if rows is None else _rotate(q, cos[rows], sin[rows])
        k = _rotate(k, cos, sin)
        if reading.cache is not None:
            k, v = reading.cache.append(index, k, v)
        if reading.before is not None:
            k, v = (torch.cat(pair, 2) for pair in zip(reading.before.of_layer(index), (k, v), strict=True))
        tails, start = reading.tails, reading.start
        mixed = attend_packed(q, k, v, rows, tails, start) if tails else attend(q, k, v, rows, start)
        x = (x if rows is None else x[:, rows]) + layer.o(mixed, parts[1])
        return x + layer.down(layer.gate_up(self._rms(x, layer.mlp_norm), parts[2]), parts[3], gated=True)

    def _qkv(self, layer: Layer, part: Part | None, x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Rows' queries [B, H, W, D] and all keys and values [B, K, N, D], before rope."""
        if rows is not None:
            q = layer.qkv.rows(0, self._query_rows)(x[:, rows], _cut(part, 0, self._query_rows))
            end = self._query_rows + 2 * self._key_rows
            k, v = layer.qkv.rows(self._query_rows, end)(x, _cut(part, self._query_rows, end)).chunk(2, -1)
        else:
            q, k, v = torch.split(layer.qkv(x, part), [self._query_rows, self._key_rows, self._key_rows], -1)
        q, k, v = (t.reshape(*t.shape[:2], -1, self.head_size) for t in (q, k, v))
        if layer.q_norm is not None and layer.k_norm is not None:
            q, k = self._rms(q, layer.q_norm), self._rms(k, layer.k_norm)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def _rms(self, x: Tensor, weight: Tensor) -> Tensor:
        return rms_norm(x, weight, self.epsilon)

    def rope_at(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        if self._rope[0].shape[0] < end:
            self._rope = self._rotations(torch.arange(max(256, end * 3 // 2), device=self.device))
        return self._rope[0][start:end], self._rope[1][start:end]

    def _rotations(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin [N, D] of rotary position embeddings; other types than the plain one by transformers' code."""
        parameters = getattr(self.config, "rope_parameters", None)
        if parameters is not None and parameters.get("rope_type") == "default":
            pair = torch.arange(0, self.head_size, 2, dtype=torch.float32, device=self.device) / self.head_size
            angles = torch.outer(positions.float(), 1.0 / parameters["rope_theta"] ** pair).repeat(1, 2)
            return angles.cos().to(self.dtype), angles.sin().to(self.dtype)
        from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

        cos, sin = LlamaRotaryEmbedding(self.config).to(self.device)(self.embedding[:1], positions[None])
        return cos[0], sin[0]

    def _load(self, prefix: str, read: Read, quantize: bool) -> Layer:
        def fused(*names: str) -> Linear:
            weights = [_required(read, f"{prefix}.{name}.weight") for name in names]
            biases = [bias for name in names if (bias := read(f"{prefix}.{name}.bias")) is not None]
            if len(names) == 1:
                return Linear(weights[0], biases[0] if biases else None, quantize=quantize)
            return Linear(torch.cat(weights), torch.cat(biases) if biases else None, quantize=quantize)

        return Layer(
            input_norm=_required(read, f"{prefix}.input_layernorm.weight"),
            qkv=fused("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            q_norm=read(f"{prefix}.self_attn.q_norm.weight"),
            k_norm=read(f"{prefix}.self_attn.k_norm.weight"),
            o=fused("self_attn.o_proj"),
            mlp_norm=_required(read, f"{prefix}.post_attention_layernorm.weight"),
            gate_up=fused("mlp.gate_proj", "mlp.up_proj"),
            down=fused("mlp.down_proj"),
        )

    def _groups(self) -> tuple[Group, ...]:
        hidden, inner = self.config.hidden_size, self.config.intermediate_size
        q, k = self._query_rows, self._key_rows
        groups: list[Group] = []
        for index in range(self.layers_count):
            attention, mlp = f"model.layers.{index}.self_attn", f"model.layers.{index}.mlp"
            groups += [
                (
                    Slot(f"{attention}.q_proj", hidden, q),
                    Slot(f"{attention}.k_proj", hidden, k, q),
                    Slot(f"{attention}.v_proj", hidden, k, q + k),
                ),
                (Slot(f"{attention}.o_proj", q, hidden),),
                (Slot(f"{mlp}.gate_proj", hidden, inner), Slot(f"{mlp}.up_proj", hidden, inner, inner)),
                (Slot(f"{mlp}.down_proj", inner, hidden),),
            ]
        if not self._tied:
            groups.append((Slot("lm_head", hidden, self.vocabulary),))
        return tuple(groups)


def fits(config: Any) -> bool:
    """Whether this forward computes exactly what transformers does for this configuration."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    sliding = getattr(config, "sliding_window", None) is not None and getattr(config, "use_sliding_window", True)
    layer_types = set(getattr(config, "layer_types", None) or ("full_attention",))
    return (
        config.model_type in FAMILIES
        and config.hidden_act == "silu"
        and not sliding
        and layer_types == {"full_attention"}
        and rope.get("rope_type", "default") in _STATIC_ROPE
        and rope.get("partial_rotary_factor", 1.0) == 1.0
    )


def complete(written: Mapping[str, Any]) -> bool:
    """Whether a config.json says of a Llama all that is read here, so that no default of transformers is missing."""
    rope = written.get("rope_parameters") or {}
    return written.get("model_type") == "llama" and written.keys() >= _NEEDED and rope.get("rope_type") == "default"


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), -1) * sin


def _cut(part: Part | None, first: int, end: int) -> Part | None:
    return row_of(part, first, end) if part is not None else None


def _required(read: Read, name: str) -> Tensor:
    tensor = read(name)
    if tensor is None:
        raise KeyError(name)
    return tensor

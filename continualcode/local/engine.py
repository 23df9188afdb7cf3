"""Scoring and sampling with one base model and any LoRA weights over it; knows nothing of Tinker's types.

W scored rows, V vocabulary. Row i is the distribution of the token after position i.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from continualcode.errors import ConfigError, ContextLengthError
from continualcode.local.future import stop_if_asked
from continualcode.local.lora import Weights
from continualcode.local.network import Cache, Network
from continualcode.local.prefix import PrefixCache
from continualcode.local.threads import fit_threads

CHUNK = 128
"""Rows of logits alive at once."""
LOOK_EVERY = 8
"""Tokens between looks at which cores are idle: a look takes 6 ms, a token that waits for a busy core ten times its
usual time."""


@dataclass(frozen=True, slots=True)
class Draw:
    """How to sample. Stop strings end a sample with the token that completes one of them."""

    max_tokens: int
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    seed: int | None = None
    stop_tokens: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()
    candidates: int = 0


@dataclass(slots=True)
class Sample:
    """Tokens with their untempered log-probabilities, and with the most likely `candidates` where asked for."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    candidates: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    stop_reason: Literal["stop", "length"] = "length"


class Engine:
    """Runs a network. Not thread-safe: one worker calls it."""

    def __init__(self, network: Network, cache_bytes: int, decode: Callable[[list[int]], str] | None = None) -> None:
        self.network = network
        self.prefix = PrefixCache(cache_bytes)
        self._decode = decode

    def distributions(self, weights: Weights | None, tokens: Sequence[int], rows: Sequence[int]) -> Iterator[Tensor]:
        """float32 log-probabilities [<= CHUNK, V] of the next token after each of the sorted `rows`, in chunks."""
        features, cache = self._read(weights, tokens, rows)
        self.prefix.put(_version(weights), tokens, cache)
        with torch.no_grad():
            for piece in torch.split(features, CHUNK):
                yield self.network.logits(weights, piece).log_softmax(-1)

    def beginning(self, weights: Weights | None, tokens: Sequence[int]) -> Cache:
        """Keys and values of the tokens, to be read from and left as they are."""
        _, cache = self._read(weights, tokens, [len(tokens) - 1])
        self.prefix.put(_version(weights), tokens, cache)
        return cache

    def sample(
        self, weights: Weights | None, prompt: Sequence[int], count: int, draw: Draw, stop: Callable[[], bool]
    ) -> list[Sample]:
        """`count` samples that share the reading of the prompt. With a seed, sample i depends on the seed and i alone.

        Raises ContextLengthError when prompt and max_tokens do not fit, CancelledError as soon as `stop()` is true.
        """
        self.check_length(len(prompt) + draw.max_tokens, f"{len(prompt)} of prompt and {draw.max_tokens} to sample")
        samples = [Sample() for _ in range(count)]
        if not draw.max_tokens:
            return samples
        with torch.no_grad():
            self._sample(weights, prompt, samples, draw, stop)
        return samples

    def check_length(self, length: int, what: str) -> None:
        if length > self.network.context_length:
            raise ContextLengthError(
                f"{what} make {length} tokens; the model has room for {self.network.context_length}"
            )

    def _sample(
        self,
        weights: Weights | None,
        prompt: Sequence[int],
        samples: list[Sample],
        draw: Draw,
        stop: Callable[[], bool],
    ) -> None:
        stop_if_asked(stop)
        last = len(prompt) - 1
        features, cache = self._read(weights, prompt, [last], room=len(prompt) + min(draw.max_tokens, 256))
        if len(samples) > 1:
            self.prefix.put(_version(weights), prompt, cache)
            cache = cache.repeat(len(samples))
        generators = [_generator(draw.seed, index) for index in range(len(samples))]
        logits = self.network.logits(weights, features).expand(len(samples), -1)
        self._extend(weights, cache, logits, _Drawing(samples, draw, generators, stop))
        if len(samples) == 1:
            self.prefix.put(_version(weights), [*prompt, *samples[0].tokens], cache)

    def _extend(self, weights: Weights | None, cache: Cache, logits: Tensor, drawing: _Drawing) -> None:
        """Token by token until every sample has finished."""
        samples, draw = drawing.samples, drawing.draw
        active = list(range(len(samples)))
        here = torch.zeros(1, dtype=torch.long, device=self.network.device)
        while True:
            stop_if_asked(drawing.stop)
            if len(samples[active[0]].tokens) % LOOK_EVERY == 0:
                fit_threads()
            ids = self._choose(logits, [samples[i] for i in active], draw, [drawing.generators[i] for i in active])
            running = [row for row, i in enumerate(active) if not self._finished(samples[i], draw)]
            if not running:
                return
            if len(running) < len(active):
                cache.keep(running)
                active, ids = [active[row] for row in running], ids[running]
            tokens = ids[:, None].to(self.network.device)
            logits = self.network.logits(weights, self.network.read(weights, tokens, cache, here)[:, 0])

    def _read(
        self, weights: Weights | None, tokens: Sequence[int], rows: Sequence[int], room: int = 0
    ) -> tuple[Tensor, Cache]:
        """Features [W, F] at the rows, and the keys and values of all tokens."""
        self.check_tokens(tokens)
        room = max(room, len(tokens))
        cache = self.prefix.find(_version(weights), tokens, rows[0], room) or self.network.new_cache(room)
        start = cache.length
        self.prefix.stats.tokens_read += len(tokens) - start
        new = torch.tensor([list(tokens[start:])], device=self.network.device)
        wanted = torch.tensor(list(rows), device=self.network.device) - start
        with torch.no_grad():
            return self.network.read(weights, new, cache, wanted)[0], cache

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """ConfigError for none or for ids out of the vocabulary, ContextLengthError for too many."""
        if not tokens:
            raise ConfigError("the prompt is empty; it needs at least one token")
        self.check_length(len(tokens), "the prompt's tokens")
        if min(tokens) < 0 or max(tokens) >= self.network.vocabulary:
            raise ConfigError(f"token ids must be 0..{self.network.vocabulary - 1}; found {min(tokens)}..{max(tokens)}")

    def _choose(self, logits: Tensor, samples: list[Sample], draw: Draw, generators: list[torch.Generator]) -> Tensor:
        """One more token for each sample, [B]."""
        logprobs = logits.log_softmax(-1).cpu()
        ids = pick(logprobs, draw, generators)
        chosen = logprobs.gather(-1, ids[:, None])[:, 0].tolist()
        for row, (sample, token, logprob) in enumerate(zip(samples, ids.tolist(), chosen, strict=True)):
            sample.tokens.append(token)
            sample.logprobs.append(logprob)
            if draw.candidates:
                values, tokens = logprobs[row].topk(draw.candidates)
                sample.candidates.append((tokens, values))
        return ids

    def _finished(self, sample: Sample, draw: Draw) -> bool:
        if sample.tokens[-1] in draw.stop_tokens or self._says(sample.tokens, draw.stop_strings):
            sample.stop_reason = "stop"
            return True
        return len(sample.tokens) >= draw.max_tokens

    def _says(self, tokens: list[int], strings: tuple[str, ...]) -> bool:
        if not strings:
            return False
        if self._decode is None:
            raise ConfigError("stop strings need a tokenizer")
        tail = self._decode(tokens[-(max(map(len, strings)) + 8) :])
        return any(string in tail for string in strings)


@dataclass(frozen=True, slots=True)
class _Drawing:
    samples: list[Sample]
    draw: Draw
    generators: list[torch.Generator]
    stop: Callable[[], bool]


def pick(logprobs: Tensor, draw: Draw, generators: list[torch.Generator]) -> Tensor:
    """Token ids [B] drawn from log-probabilities [B, V] at the draw's temperature, top_k and top_p."""
    if draw.temperature == 0:
        return logprobs.argmax(-1)
    scores = logprobs / draw.temperature
    if draw.top_k > 0:
        threshold = scores.topk(min(draw.top_k, scores.shape[-1])).values[:, -1:]
        scores = scores.masked_fill(scores < threshold, -torch.inf)
    if draw.top_p < 1:
        scores = _nucleus(scores, draw.top_p)
    cumulative = scores.softmax(-1).double().cumsum(-1)
    uniform = torch.stack([torch.rand(1, generator=generator, dtype=torch.float64) for generator in generators])
    # The last id of positive probability bounds the search: a uniform draw of almost 1 must not leave the vocabulary.
    drawn = torch.searchsorted(cumulative, uniform * cumulative[:, -1:], right=True)[:, 0]
    return (
        torch.minimum(drawn, _last(scores))
        if draw.top_k > 0 or draw.top_p < 1
        else drawn.clamp_(max=scores.shape[1] - 1)
    )


def _nucleus(scores: Tensor, top_p: float) -> Tensor:
    """Keeps the most likely ids until their probability reaches top_p."""
    ordered, order = scores.sort(-1, descending=True)
    probabilities = ordered.softmax(-1)
    drop = probabilities.cumsum(-1) - probabilities >= top_p
    return scores.scatter(-1, order, ordered.masked_fill(drop, -torch.inf))


def _last(scores: Tensor) -> Tensor:
    positions = torch.arange(scores.shape[-1]).expand_as(scores)
    return positions.masked_fill(scores == -torch.inf, -1).amax(-1)


def _generator(seed: int | None, index: int) -> torch.Generator:
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(int(np.random.SeedSequence([seed % 2**64, index]).generate_state(1, np.uint64)[0] >> 1))
    return generator


def _version(weights: Weights | None) -> int:
    return weights.version if weights is not None else 0

"""Small real doubles for tests of gates, tools, learners and backends, and `check_backend` for those who write one.

ScriptedBackend says what it is told to, but its log-probabilities and its gradient steps are those of a real, tiny
model: softmax bigrams over bytes, with a table of weights per sum of all tokens before. Knows nothing of torch or tinker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from continualcode.errors import ContinualCodeError
from continualcode.protocols import Backend
from continualcode.types import (
    Capabilities,
    Completion,
    Conversation,
    Example,
    Floats,
    Ints,
    Json,
    Lesson,
    Message,
    Metrics,
    Reply,
    Sampling,
    Tokens,
    ToolCall,
    TrainReport,
    Turn,
    Verdict,
)

END = 256
VOCABULARY = 257
FULLY_CAPABLE = Capabilities(sample_candidates=20, top_logprobs=20, candidate_logprobs=True, weighted_candidates=True)
_TABLES = 7


class BytesRenderer:
    """A conversation as JSON lines, a token per byte. A reply that is a JSON object with "name" is a call."""

    stop: Tokens = (END,)

    def prompt(self, conversation: Conversation) -> Tokens:
        lines = [json.dumps([spec.name for spec in conversation.tools])]
        lines += [f"{m.role}: {m.content}{''.join(call.to_json() for call in m.calls)}" for m in conversation.messages]
        return tuple("\n".join([*lines, "assistant: "]).encode())

    def parse(self, tokens: Tokens) -> Reply:
        raw = bytes(token for token in tokens if token != END).decode(errors="replace")
        if not raw.startswith("{"):
            return Reply(raw, raw=raw)
        try:
            found = json.loads(raw)
            return Reply("", calls=(ToolCall(found["name"], found["arguments"]),), raw=raw)
        except (ValueError, TypeError, KeyError) as error:
            return Reply("", problem=f"not a call: {error}", raw=raw)

    def completion(self, message: Message) -> Tokens:
        return (*(message.content + "".join(call.to_json() for call in message.calls)).encode(), END)

    def decode(self, token: int) -> str:
        return "" if token == END else bytes([token]).decode(errors="replace")


class ScriptedBackend:
    """A Backend that replies what the script says next; its weights, logprobs and steps are real.

    Args:
        replies: texts, or calls as `("tool", {arguments})`; when they are used up, sampling raises LookupError.
        capabilities: what it claims and refuses, to see how others cope.
        rate: the plain gradient step is `rate * learning_rate`.
    """

    def __init__(
        self,
        replies: Iterable[str | tuple[str, dict[str, Json]]] = (),
        *,
        capabilities: Capabilities = FULLY_CAPABLE,
        rate: float = 1e4,
        seed: int = 0,
    ) -> None:
        self.script = [_text_of(reply) for reply in replies]
        self.capabilities, self.rate = capabilities, rate
        weights = np.random.default_rng(seed).normal(size=(_TABLES, VOCABULARY, VOCABULARY))
        self.initial_sampler = self.sampler = self._newest = ScriptedSampler(weights, self._next)
        self.steps: list[list[Example]] = []
        self.saved: dict[str, Floats] = {}

    async def train_step(self, examples: Sequence[Example], *, learning_rate: float, refresh: bool = True) -> Metrics:
        gradient, loss = np.zeros_like(self._newest.weights), 0.0
        for example in examples:
            table_T, previous_T, logprobs_TV = self._newest.forward(example.prompt, example.tokens)
            rows_T = np.arange(len(example.tokens))[:, None]
            loss -= float((example.weights_TK * logprobs_TV[rows_T, example.ids_TK]).sum())
            slope_TV = np.exp(logprobs_TV) * example.weights_TK.sum(axis=1, keepdims=True)
            np.subtract.at(slope_TV, (rows_T, example.ids_TK), example.weights_TK)
            np.add.at(gradient, (table_T, previous_T), slope_TV)
        self._newest = ScriptedSampler(self._newest.weights - self.rate * learning_rate * gradient, self._next)
        self.steps.append(list(examples))
        if refresh:
            await self.refresh()
        return {"loss:sum": loss}

    async def refresh(self) -> None:
        self.sampler = self._newest

    async def forward(self, examples: Sequence[Example]) -> list[Floats]:
        return [await self._newest.candidate_logprobs(e.prompt, e.tokens, e.ids_TK) for e in examples]

    async def save(self, name: str) -> str:
        self.saved[name] = self._newest.weights
        return f"scripted://{name}"

    def _next(self) -> str:
        if not self.script:
            raise LookupError("the script is used up")
        return self.script.pop(0)


class ScriptedSampler:
    """One frozen table of bigram weights [tables, V, V]."""

    def __init__(self, weights: Floats, reply: Callable[[], str]) -> None:
        self.weights, self._reply = weights, reply

    async def sample(self, prompt: Tokens, sampling: Sampling, n: int = 1) -> list[Completion]:
        return [await self._sample(prompt, sampling) for _ in range(n)]

    async def logprobs(self, prompt: Tokens, completion: Tokens) -> Floats:
        return _at(self.forward(prompt, completion)[2], np.asarray(completion, dtype=np.int64)[:, None])[:, 0]

    async def candidate_logprobs(self, prompt: Tokens, completion: Tokens, ids_TK: Ints) -> Floats:
        return _at(self.forward(prompt, completion)[2], ids_TK)

    async def top_logprobs(self, prompt: Tokens, completion: Tokens, k: int) -> tuple[Ints, Floats]:
        logprobs_TV = self.forward(prompt, completion)[2]
        ids_TK = np.argsort(-logprobs_TV, axis=1)[:, :k]
        return ids_TK, _at(logprobs_TV, ids_TK)

    def forward(self, prompt: Tokens, completion: Tokens) -> tuple[Ints, Ints, Floats]:
        """The table used [T], the token before [T] and log-probabilities [T, V] at each position of the completion."""
        tokens = np.asarray((*prompt, *completion), dtype=np.int64)
        before_T = slice(len(prompt) - 1, len(tokens) - 1)
        table_T, previous_T = np.cumsum(tokens)[before_T] % _TABLES, tokens[before_T]
        logits_TV = self.weights[table_T, previous_T]
        return table_T, previous_T, logits_TV - np.logaddexp.reduce(logits_TV, axis=1, keepdims=True)

    async def _sample(self, prompt: Tokens, sampling: Sampling) -> Completion:
        tokens: Tokens = (*self._reply().encode(), END)
        cut = tokens[: sampling.max_tokens]
        return Completion(
            prompt=prompt,
            tokens=cut,
            logprobs_T=await self.logprobs(prompt, cut),
            stop_reason="stop" if cut == tokens else "length",
            temperature=sampling.temperature,
            candidates=await self.top_logprobs(prompt, cut, sampling.candidates) if sampling.candidates else None,
            origin=self,
        )


class ScriptedGate:
    """Gives the verdicts it was handed, in order, and keeps what it was asked; then leaves calls to the next gate."""

    def __init__(self, *verdicts: Verdict | None) -> None:
        self.verdicts = list(verdicts)
        self.asked: list[ToolCall] = []

    async def review(self, turn: Turn, call: ToolCall) -> Verdict | None:
        self.asked.append(call)
        return self.verdicts.pop(0) if self.verdicts else None


class RecordingLearner:
    """Keeps the lessons it is given; raises `error`, if there is one, as often as it is asked."""

    def __init__(self, error: ContinualCodeError | None = None) -> None:
        self.lessons: list[Lesson] = []
        self.error = error

    async def learn(self, lessons: Sequence[Lesson]) -> TrainReport | None:
        if self.error is not None:
            raise self.error
        self.lessons += lessons
        return TrainReport(step=len(self.lessons), lessons=len(lessons), tokens=0, loss=0.0, seconds=0.0)


async def check_backend(backend: Backend, prompt: Tokens, completion: Tokens, *, tolerance: float = 1e-3) -> None:
    """Asserts what every Backend owes its trainer: alignment, frozen samplers, and steps in the right direction.

    Takes one small training step. `completion` needs at least two tokens, and `prompt` one.
    """
    first = backend.sampler
    whole_T = await first.logprobs(prompt, completion)
    assert whole_T.shape == (len(completion),), f"logprobs are {whole_T.shape}, the completion {len(completion)} tokens"
    assert np.all(whole_T <= tolerance), "a log-probability is above 0"
    rest_T = await first.logprobs((*prompt, completion[0]), completion[1:])
    assert np.allclose(whole_T[1:], rest_T, atol=tolerance), "logprobs are not those of the tokens they stand beside"
    if (k := backend.capabilities.distillation_topk) > 0:
        await _check_candidates(backend, prompt, completion, whole_T, min(k, 5), tolerance)
    for sample in await first.sample(prompt, Sampling(max_tokens=4)):
        again_T = await first.logprobs(prompt, sample.tokens)
        assert np.allclose(sample.logprobs_T, again_T, atol=tolerance), "sampler and scorer disagree"
    ids_TK = np.asarray(completion, dtype=np.int64)[:, None]
    await backend.train_step(
        [Example(prompt, completion, ids_TK, np.full(ids_TK.shape, 1 / len(completion)))], learning_rate=1e-4
    )
    assert backend.sampler is not first, "the sampler is not a new one after a step"
    await _check_unrefreshed(backend, Example(prompt, completion, ids_TK, np.full(ids_TK.shape, 0.0)), tolerance)
    after_T = await backend.sampler.logprobs(prompt, completion)
    assert after_T.sum() > whole_T.sum(), "a step with positive weights did not make the tokens more likely"
    kept_T = await first.logprobs(prompt, completion)
    assert np.allclose(kept_T, whole_T, atol=tolerance), "a sampler kept from before the step has changed"


async def _check_unrefreshed(backend: Backend, example: Example, tolerance: float) -> None:
    """A second step without a new sampler: the old one stays, `forward` sees the new weights, `refresh` brings them."""
    old = backend.sampler
    pushing = replace(example, weights_TK=np.full(example.ids_TK.shape, 1 / len(example.tokens)))
    await backend.train_step([pushing], learning_rate=1e-4, refresh=False)
    assert backend.sampler is old, "the sampler changed in a step that was not to refresh it"
    [forward_TK] = await backend.forward([example])
    await backend.refresh()
    newest_T = await backend.sampler.logprobs(example.prompt, example.tokens)
    assert np.allclose(forward_TK[:, 0], newest_T, atol=tolerance), "forward is not at the newest weights"


async def _check_candidates(
    backend: Backend, prompt: Tokens, completion: Tokens, whole_T: Floats, k: int, tolerance: float
) -> None:
    sampler = backend.sampler
    own_TK = await sampler.candidate_logprobs(prompt, completion, np.asarray(completion, dtype=np.int64)[:, None])
    assert np.allclose(own_TK[:, 0], whole_T, atol=tolerance), (
        "candidate logprobs at the sampled ids differ from logprobs"
    )
    ids_TK, top_TK = await sampler.top_logprobs(prompt, completion, k)
    assert ids_TK.shape == top_TK.shape == (len(completion), k), f"top logprobs are {top_TK.shape}, asked for K = {k}"
    assert np.all(np.diff(top_TK, axis=1) <= tolerance), "top logprobs are not most likely first"
    assert np.all(np.exp(top_TK).sum(axis=1) <= 1 + tolerance), "top probabilities sum to more than 1"
    at_ids_TK = await sampler.candidate_logprobs(prompt, completion, ids_TK)
    assert np.allclose(at_ids_TK, top_TK, atol=tolerance), "candidate logprobs differ from top logprobs at the same ids"


def _text_of(reply: str | tuple[str, dict[str, Json]]) -> str:
    return reply if isinstance(reply, str) else ToolCall(*reply).to_json()


def _at(logprobs_TV: Floats, ids_TK: Ints) -> Floats:
    return np.take_along_axis(logprobs_TV, ids_TK, axis=1)


__all__ = [
    "BytesRenderer",
    "RecordingLearner",
    "ScriptedBackend",
    "ScriptedGate",
    "ScriptedSampler",
    "check_backend",
]

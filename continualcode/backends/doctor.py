"""A check-up of a connected backend, for `continualcode doctor`: what works, what it costs. Never touches its weights.

Training is tried on a second, scratch LoRA of the same model, which the service forgets with the session.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Literal, TypeAlias

import numpy as np

from continualcode.backends.loss import PROMPT
from continualcode.backends.tinker import TinkerBackend
from continualcode.errors import BackendError, ConfigError
from continualcode.types import Capabilities, Example, Sampling

_SAMPLED = 16
_SCRATCH_RANK = 8

Outcome: TypeAlias = Literal["ok", "limited", "failed"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One row. `limited`: works, with less than hosted Tinker gives; `seconds` is None where nothing was timed."""

    check: str
    outcome: Outcome
    detail: str
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Report:
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether corrections can be trained on with this backend."""
        return all(finding.outcome != "failed" for finding in self.findings)


async def diagnose(backend: TinkerBackend) -> Report:
    """Asks and times everything the agent will need, one after another. Errors become rows."""
    scratch: list[TinkerBackend] = []
    asked = [
        await _timed("service", partial(_service, backend)),
        await _timed("sample", partial(_sample, backend)),
        await _timed("logprobs", partial(_logprobs, backend)),
        await _timed("forward pass", partial(_forward, backend)),
        await _timed("scratch LoRA", partial(_scratch, backend, scratch)),
    ]
    for made in scratch:
        asked.append(await _timed("training step", partial(_train, made)))
        asked.append(await _timed("old samplers stay frozen", partial(_frozen, made)))
    return Report((*asked, *_abilities(backend.capabilities)))


_Answer: TypeAlias = "tuple[Outcome, str]"


async def _timed(check: str, ask: Callable[[], Awaitable[_Answer]]) -> Finding:
    began = time.perf_counter()
    try:
        outcome, detail = await ask()
    except (BackendError, ConfigError) as error:
        outcome, detail = "failed", str(error)
    return Finding(check, outcome, detail, time.perf_counter() - began)


async def _service(backend: TinkerBackend) -> _Answer:
    await backend.line.confirm()
    return "ok", f"{backend.line.url or 'in this process'}, {backend.model_name}, tinker {version('tinker')}"


async def _sample(backend: TinkerBackend) -> _Answer:
    began = time.perf_counter()
    (completion,) = await backend.sampler.sample(PROMPT, Sampling(max_tokens=_SAMPLED))
    speed = len(completion.tokens) / (time.perf_counter() - began)
    return "ok", f"{len(completion.tokens)} tokens, {speed:.1f} tokens/s with everything on the way"


async def _logprobs(backend: TinkerBackend) -> _Answer:
    (completion,) = await backend.sampler.sample(PROMPT, Sampling(max_tokens=_SAMPLED))
    scored_T = await backend.sampler.logprobs(PROMPT, completion.tokens)
    apart_T = np.abs(scored_T - completion.logprobs_T)
    if apart_T.size and apart_T.mean() > 0.5:
        return "failed", f"sampled and scored logprobs of the same tokens are {apart_T.mean():.2f} nats apart"
    return "ok", f"sampled and scored logprobs agree to {apart_T.max(initial=0.0):.2g} nats"


async def _forward(backend: TinkerBackend) -> _Answer:
    example = _example(1.0, 1.0)
    (trainer_TK,) = await backend.forward([example])
    apart = float(np.abs(trainer_TK[:, 0] - await backend.sampler.logprobs(example.prompt, example.tokens)).max())
    return ("ok" if apart < 0.5 else "limited"), f"trainer and sampler agree to {apart:.2g} nats"


async def _scratch(backend: TinkerBackend, made: list[TinkerBackend]) -> _Answer:
    made.append(
        await TinkerBackend.connect(backend.service, model_name=backend.model_name, lora_rank=_SCRATCH_RANK, seed=0)
    )
    return "ok", f"rank {_SCRATCH_RANK}, made, probed, never saved"


async def _train(scratch: TinkerBackend) -> _Answer:
    """One step whose weights sum to less than nothing: a loss that is divided by them would turn around."""
    example = _example(1.0, -2.0)
    before_TK = (await scratch.forward([example]))[0]
    await scratch.train_step([example], learning_rate=1e-3)
    moved = float((example.weights_TK * ((await scratch.forward([example]))[0] - before_TK)).sum())
    if not moved > 0:
        return "failed", f"a step moved the weighted logprobs by {moved:.2g}: the wrong way, or not at all"
    return "ok", f"weighted logprobs moved by {moved:+.2g}, the right way"


async def _frozen(scratch: TinkerBackend) -> _Answer:
    example = _example(1.0, -2.0)
    old_T = await scratch.initial_sampler.logprobs(example.prompt, example.tokens)
    await scratch.train_step([example], learning_rate=1e-2)
    later_T = await scratch.initial_sampler.logprobs(example.prompt, example.tokens)
    new_T = await scratch.sampler.logprobs(example.prompt, example.tokens)
    drift, moved = float(np.abs(later_T - old_T).mean()), float(np.abs(new_T - old_T).mean())
    if drift > moved / 2:
        return "limited", f"an old sampler moved by {drift:.2g} nats with a step: no frozen or EMA teacher"
    return "ok", f"an old sampler moved by {drift:.2g} nats while the new weights moved by {moved:.2g}"


def _abilities(known: Capabilities) -> list[Finding]:
    def row(check: str, able: bool | int, detail: str) -> Finding:
        return Finding(check, "ok" if able else "limited", detail if able else "no")

    topk = known.distillation_topk
    return [
        row("candidates with a sample", known.sample_candidates, f"up to {known.sample_candidates}"),
        row("most likely tokens of a text", known.top_logprobs, f"up to {known.top_logprobs}"),
        row("logprobs at chosen tokens", known.candidate_logprobs, "yes"),
        row("K weighted targets a position", known.weighted_candidates, "yes"),
        row("summed cross-entropy", known.summed_cross_entropy, "yes"),
        row("top-K distillation", topk, f"up to K = {topk}"),
        row("context length", known.context_length or 0, f"{known.context_length} tokens"),
        *(Finding("note", "limited", note) for note in known.notes),
    ]


def _example(*weights: float) -> Example:
    tokens = PROMPT[1 : 1 + len(weights)]
    return Example(PROMPT[:1], tokens, np.array(tokens, np.int64)[:, None], np.array(weights)[:, None])

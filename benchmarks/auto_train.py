"""Learns to program from tests alone, by SDPO, with nobody in the loop: problems, answers, a sandbox, a trainer.

    python benchmarks/auto_train.py [key=value ...]     (--help lists the keys)
    python benchmarks/auto_train.py backend=local dataset=own num_rollouts=4 batch_size=4 max_steps=6
    TINKER_API_KEY=tml-... python benchmarks/auto_train.py dataset=release_v5 until=2024-08-01

The same command resumes a run that was ended in any way, as if it had not been: log.jsonl is the same but for the
seconds, where the service samples the same from the same seeds (on CPUs with OMP_NUM_THREADS=1; on more threads sums
differ in their last digits).

On the embedded 135M model this shows the loop, not learning: its own failures mislead it, and what it writes beside a
solution goes on for longer than what it writes without, which SDPO teaches it: it solves fewer problems after 8 steps.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from livecode.grader import Grader, Limits
from livecode.plain import PLAIN_TEMPLATE, plain_conversation
from livecode.problem import Problem
from livecode.prompts import conversation
from livecode.record import Record, plot
from livecode.run import Model, Run, Weights, fitting
from livecode.settings import Settings, described, read_settings
from livecode.sources import load
from livecode.state import State, resumed

from continualcode.backends import TinkerBackend, TinkerSampler
from continualcode.builtin import KEYLESS
from continualcode.errors import ConfigError, ContinualCodeError, MissingExtraError
from continualcode.policy import Policy
from continualcode.protocols import Renderer, Sampler
from continualcode.renderers import make_renderer
from continualcode.sdpo import ExactEMATeacher, SDPOTrainer
from continualcode.sdpo.reprompt import DEFAULT_TEMPLATE
from continualcode.types import Sampling

PROMPTS = {"livecodebench": (conversation, DEFAULT_TEMPLATE), "plain": (plain_conversation, PLAIN_TEMPLATE)}
"""How a problem is put, and how the teacher is told."""


def main(words: list[str]) -> int:
    if {"--help", "-h"} & {*words}:
        print(f"{__doc__}\nkey = default\n{described()}")
        return 0
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        asyncio.run(train(read_settings(words)))
    except ContinualCodeError as error:
        print(f"auto_train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("auto_train: stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130
    return 0


async def train(settings: Settings) -> State:
    """One run, from its beginning or from where it was saved last."""
    state = resumed(settings.log_path, settings)
    problems, held_out = await asyncio.to_thread(_problems, settings)
    async with AsyncExitStack() as stack:
        record = stack.enter_context(Record(settings, state.log_bytes))
        limits = Limits(seconds=settings.sandbox_timeout)
        workers = min(settings.sandbox_concurrency, len(os.sched_getaffinity(0)))
        grader = await stack.enter_async_context(Grader(limits, workers))
        model = await stack.enter_async_context(_connected(settings, state))
        trainer = await _trainer(settings, model, state, record)
        ask, weights = PROMPTS[settings.prompt][0], Weights(model.backend, trainer.teacher, _own(settings))
        fit = partial(fitting, ask=ask, model=model, max_tokens=settings.max_tokens)
        run = Run(settings, model, trainer, weights, grader, fit(problems), fit(held_out), record, ask)
        left_out = len(problems) + len(held_out) - len(run.problems) - len(run.held_out)
        record.say(f"{grader.note}\n{len(run.problems)} problems, {len(run.held_out)} held out, {left_out} too long")
        state = await run.train(state)
        record.progress(1.0)
    print(f"log and plot: {settings.log_path}; weights: {state.checkpoint or 'none, no step was taken'}")
    _plot(settings.log_path)
    return state


@dataclass(frozen=True, slots=True)
class Fixed:
    """A model that is not trained."""

    sampler: Sampler


@asynccontextmanager
async def _connected(settings: Settings, state: State) -> AsyncIterator[Model]:
    """The backend's first weights are the run's, resumed or not: some teachers are made of them."""
    service = await asyncio.to_thread(_service, settings)
    try:
        name = _model(settings, settings.model_name)
        backend = await TinkerBackend.connect(
            service,
            model_name=name,
            lora_rank=settings.lora_rank,
            seed=settings.shuffle_seed,
            load_checkpoint_path=settings.checkpoint_path,
        )
        if state.checkpoint is not None:
            await backend.load(state.checkpoint)
        tokenizer = await asyncio.to_thread(lambda: backend.tokenizer)
        renderer = make_renderer(tokenizer, model_name=name, family=settings.renderer)
        yield Model(backend, renderer, await _helper(settings, backend, renderer))
        await backend.close()
    finally:
        if settings.backend == "local":
            await asyncio.to_thread(service.close)


def _service(settings: Settings) -> Any:
    if settings.backend == "local":
        from continualcode.local import ServiceClient

        # Without prefixes kept from before, what is computed does not depend on when the process was started.
        return ServiceClient(state_dir=_own(settings), prefix_cache_bytes=0)
    import tinker

    try:
        return tinker.ServiceClient(base_url=settings.base_url, api_key=os.environ.get("TINKER_API_KEY") or KEYLESS)
    except (tinker.TinkerError, ValueError) as error:
        raise ConfigError(f"the Tinker client cannot be made: {error}") from error


def _model(settings: Settings, name: str) -> str:
    """The embedded model by its folder, and so without the cold start that makes it answer in tool calls."""
    if settings.backend != "local":
        return name
    from continualcode.local.pretrained import resolve

    return resolve(name)


async def _helper(settings: Settings, backend: TinkerBackend, renderer: Renderer) -> Policy | None:
    """Who explains failures. Greedy, so that the order in which it is asked has no effect."""
    sampling = Sampling(settings.llm_feedback_max_tokens, temperature=0.0)
    if not settings.llm_feedback:
        return None
    if settings.llm_feedback_model is None:
        return Policy(Fixed(backend.initial_sampler), renderer, sampling)
    name = _model(settings, settings.llm_feedback_model)
    client = await backend.line.call(backend.service.create_sampling_client, base_model=name)
    tokenizer = await asyncio.to_thread(client.get_tokenizer)
    return Policy(Fixed(TinkerSampler(client, line=backend.line)), make_renderer(tokenizer, model_name=name), sampling)


async def _trainer(settings: Settings, model: Model, state: State, record: Record) -> SDPOTrainer:
    """With its teacher and its count of steps as they were saved."""
    backend = model.backend
    trainer = SDPOTrainer(backend, model.renderer, settings.sdpo, template=PROMPTS[settings.prompt][1])
    for note in (*backend.capabilities.notes, *trainer.notes):
        record.say(note)
    trainer.steps = state.step
    if (
        state.teacher is not None
        and isinstance(trainer.teacher, ExactEMATeacher)
        and isinstance(backend, TinkerBackend)
    ):
        trainer.teacher.sampler = await backend.sampler_at(state.teacher)
    elif state.step and settings.sdpo.teacher_regularization == "ema":
        record.say("resumed: the EMA begins anew with the first weights, since this service keeps no samplers")
    return trainer


def _problems(settings: Settings) -> tuple[list[Problem], list[Problem]]:
    bounds = {"since": settings.since, "until": settings.until, "seed": settings.shuffle_seed}
    problems = load(settings.dataset, split=settings.split, limit=settings.max_problems, **bounds)
    if not (settings.eval_every and settings.eval_size):
        return problems, []
    return problems, load(settings.dataset, split=settings.eval_split, limit=settings.eval_size, **bounds)


def _own(settings: Settings) -> Path:
    return settings.log_path.absolute() / "weights"


def _plot(folder: Path) -> None:
    try:
        plot(folder)
    except MissingExtraError as error:
        print(f"no plot: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

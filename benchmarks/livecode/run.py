"""SDPO on programming problems with nobody in the loop. Knows no service and no data set: it is handed both.

Answers are sampled and run; what a failure says and what a sibling did right is what the same model, shown it, teaches.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from continualcode.backends import TinkerSampler
from continualcode.errors import ConfigError
from continualcode.policy import Policy
from continualcode.protocols import Backend, Critic, Renderer, Teacher
from continualcode.sdpo import Batched, ExactEMATeacher, SDPOTrainer
from continualcode.types import Sampling, TrainReport
from livecode.evaluation import evaluate
from livecode.grader import Grader
from livecode.problem import Problem
from livecode.record import Record
from livecode.rollouts import Ask, Explained, Graded, Rollout, attempt
from livecode.settings import Settings
from livecode.state import State, next_batch, seed, write

ROLLOUT, EVALUATION = range(2)
"""Kinds of seeds."""
TOLD = 128
"""Tokens that the words around a solution and a failure may take."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model in training, and the one that explains failures where there is one."""

    backend: Backend
    renderer: Renderer
    helper: Policy | None = None


class Weights:
    """Keeps weights, with optimiser state, and the exact EMA teacher's where there is one. Those below `own` are
    removed once newer ones are safe; a service has rules of its own."""

    def __init__(self, backend: Backend, teacher: Teacher, own: Path) -> None:
        self._backend, self._teacher, self._own = backend, teacher, own

    async def save(self, name: str) -> tuple[str, str | None]:
        """The paths of both."""
        path = await self._backend.save(name)
        if not isinstance(self._teacher, ExactEMATeacher) or not isinstance(self._teacher.sampler, TinkerSampler):
            return path, None
        folder = self._own / f"{name}-teacher"
        await self._teacher.sampler.save(folder)
        return path, str(folder)

    async def forget(self, state: State) -> None:
        for path in (state.checkpoint, state.teacher):
            if path is not None and Path(path).is_relative_to(self._own):
                await asyncio.to_thread(shutil.rmtree, path)


@dataclass(frozen=True)
class Run:
    """One run: `problems` are learned from, `held_out` are evaluated on."""

    settings: Settings
    model: Model
    trainer: SDPOTrainer
    weights: Weights
    grader: Grader
    problems: Sequence[Problem]
    held_out: Sequence[Problem]
    record: Record
    ask: Ask

    @cached_property
    def learner(self) -> Batched:
        return Batched(self.trainer, self.settings.min_sdpo_examples)

    async def train(self, state: State) -> State:
        """Until the problems or `max_steps` are used up. Raises what the backend raises, with the last save intact."""
        if state == State():
            await self._evaluate(0)
        saved = state
        while (found := next_batch(state, [p.id for p in self.problems], self.settings))[0] and not self._enough(state):
            state, report = await self._batch(state, *found)
            state, saved = await self._after(report, state, saved)
        state, saved = await self._after(await self.learner.flush(), state, saved)
        return state if state == saved else await self._save(state, saved)

    async def _batch(self, state: State, chosen: Sequence[int], place: int) -> tuple[State, TrainReport | None]:
        started = time.perf_counter()
        tries = [self._attempt(self.problems[index], state.place + i) for i, index in enumerate(chosen)]
        groups = await asyncio.gather(*tries)
        solved = [self.problems[i].id for i, group in zip(chosen, groups, strict=True) if all(r.passed for r in group)]
        self.record.event("batch", state.step, _counts(groups), time.perf_counter() - started)
        self.record.progress(self._share(state))
        report = await self.learner.learn([rollout.lesson for group in groups for rollout in group])
        return state.model_copy(update={"place": place, "solved": (*dict.fromkeys((*state.solved, *solved)),)}), report

    async def _after(self, report: TrainReport | None, state: State, saved: State) -> tuple[State, State]:
        """Of a step that was taken: its line, the evaluation and the checkpoint that are due."""
        if report is None or not report.inner_steps:
            return state, saved
        state = state.model_copy(update={"step": state.step + report.inner_steps})
        self.record.event("step", state.step, _measured(report), report.seconds)
        if self.settings.eval_every and state.step % self.settings.eval_every == 0:
            await self._evaluate(state.step)
        if state.step - saved.step >= self.settings.save_every:
            state = saved = await self._save(state, saved)
        return state, saved

    async def _attempt(self, problem: Problem, place: int) -> Sequence[Rollout]:
        wanted = seed(self.settings.shuffle_seed, ROLLOUT, place)
        policy = Policy(self.model.backend, self.model.renderer, self._sampling(wanted, self.trainer.topk))
        return await attempt(self.ask(problem), policy, self._critic(problem), self.settings.num_rollouts)

    async def _evaluate(self, step: int) -> None:
        """The same seeds every time: what differs is the weights."""
        if not self.held_out:
            return
        started, base = time.perf_counter(), self.settings.shuffle_seed

        def policy_of(index: int) -> Policy:
            return Policy(self.model.backend, self.model.renderer, self._sampling(seed(base, EVALUATION, index)))

        count = self.settings.eval_rollouts or self.settings.num_rollouts
        found = await evaluate(self.held_out, self.ask, policy_of, lambda problem: Graded(problem, self.grader), count)
        self.record.event("eval", step, found, time.perf_counter() - started)

    async def _save(self, state: State, saved: State) -> State:
        """The weights first, then the state that names them."""
        checkpoint, teacher = await self.weights.save(f"step-{state.step}-{state.place}")
        where = {"checkpoint": checkpoint, "teacher": teacher, "log_bytes": self.record.bytes_on_disk()}
        state = state.model_copy(update=where)
        await asyncio.to_thread(write, self.settings.log_path / "state.json", state.model_dump_json(indent=2))
        await self.weights.forget(saved)
        return state

    def _critic(self, problem: Problem) -> Critic:
        graded = Graded(problem, self.grader)
        return graded if self.model.helper is None else Explained(graded, self.model.helper)

    def _sampling(self, wanted: int, candidates: int = 0) -> Sampling:
        return Sampling(self.settings.max_tokens, seed=wanted, candidates=candidates)

    def _enough(self, state: State) -> bool:
        return 0 <= self.settings.max_steps <= state.step

    def _share(self, state: State) -> float:
        """Of the run that is done."""
        of_steps = state.step / self.settings.max_steps if self.settings.max_steps > 0 else 0.0
        return max(of_steps, state.place / (len(self.problems) * self.settings.epochs))


def fitting(problems: Sequence[Problem], ask: Ask, model: Model, max_tokens: int) -> list[Problem]:
    """Those that the model has room for: question, a solution to show, and the answer that is scored. ConfigError where
    that is none of them."""
    if not problems or (length := model.backend.capabilities.context_length) is None:
        return list(problems)
    room = length - 2 * max_tokens - TOLD
    fit = [problem for problem in problems if len(model.renderer.prompt(ask(problem))) <= room]
    if not fit:
        raise ConfigError(f"a context of {length} tokens holds no problem and two answers of max_tokens={max_tokens}")
    return fit


def _counts(groups: Sequence[Sequence[Rollout]]) -> dict[str, int | float]:
    """`mixed`: problems with right and wrong answers; `cut`: answers that were too long; `length`: mean tokens."""
    rollouts = [rollout for group in groups for rollout in group]
    lengths = [len(rollout.turn.completion.tokens) for rollout in rollouts]
    return {
        "problems": len(groups),
        "answers": len(rollouts),
        "reward": float(np.mean([rollout.passed for rollout in rollouts])),
        "mixed": sum(len({rollout.passed for rollout in group}) > 1 for group in groups),
        "cut": sum(rollout.turn.completion.stop_reason == "length" for rollout in rollouts),
        "length": float(np.mean(lengths)),
    }


def _measured(report: TrainReport) -> dict[str, int | float]:
    named = {"lessons": report.lessons, "tokens": report.tokens, "loss": report.loss, "gap": report.gap}
    norms = {key.partition(":")[0]: value for key, value in report.metrics.items() if key.startswith("grad_norm")}
    return {**named, **norms}

"""The EMA teacher by log-probabilities against the exact one of the weights, on the embedded model: 20 and 100 steps.

    python benchmarks/teachers.py

Both follow the same trajectory, a step at a time towards corrections of four short answers, at a rate of .05. Compared on the
answers' tokens: the advantages log q - log p of the two, with at most 8 snapshots kept (the default), 4, and the frozen and
the newest model in the EMA's place.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
import time

import numpy as np

from continualcode import Lesson, Message, SDPOConfig, SDPOTrainer
from continualcode.backends import TinkerBackend
from continualcode.local import ServiceClient
from continualcode.policy import Policy
from continualcode.protocols import Renderer, Teacher
from continualcode.renderers import make_renderer
from continualcode.sdpo import CurrentTeacher, EMATeacher, ExactEMATeacher, FrozenTeacher, teacher_context
from continualcode.types import Conversation, Floats, Sampling

MODEL, RATE = "smollm2-135m", 0.05
CORRECTED = {
    "Name a colour.": "answer with one word in capitals",
    "What is a list?": "answer in French",
    "How far is the moon?": "give the distance in miles",
    "Say hello.": "be more formal",
}
TARGET = 0.98


async def main() -> int:
    with tempfile.TemporaryDirectory() as folder, ServiceClient(state_dir=folder) as service:
        backend = await TinkerBackend.connect(service, model_name=MODEL, lora_rank=16, seed=1)
        renderer = make_renderer(backend.tokenizer)
        lessons = await _lessons(backend, renderer)
        exact = ExactEMATeacher(backend, RATE)
        others: dict[str, Teacher] = {
            "8 snapshots": EMATeacher(backend, RATE),
            "4 snapshots": EMATeacher(backend, RATE, bound=4),
            "frozen": FrozenTeacher(backend),
            "newest": CurrentTeacher(backend),
        }
        trainer = SDPOTrainer(backend, renderer, SDPOConfig(learning_rate=1e-4), teacher=exact)
        met, started = True, time.perf_counter()
        for step in range(1, 101):
            await trainer.learn([lessons[step % len(lessons)]])
            for teacher in others.values():
                await teacher.update()
            if step in (20, 100):
                found = await _correlations(backend, renderer, lessons, exact, others)
                met &= found["8 snapshots"] >= TARGET
                shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
                print(f"{step:3} steps, {time.perf_counter() - started:.0f} s: correlation with the exact EMA: {shown}")
    print(f"{'ok    ' if met else 'MISSED'} 8 snapshots >= {TARGET} after 20 and 100 steps")
    return 0 if met else 1


async def _lessons(backend: TinkerBackend, renderer: Renderer) -> list[Lesson]:
    policy = Policy(backend, renderer, Sampling(max_tokens=24, seed=1, candidates=20))
    turns = [await policy.propose(Conversation((Message("user", request),))) for request in CORRECTED]
    return [Lesson(turn, reason) for turn, reason in zip(turns, CORRECTED.values(), strict=True)]


async def _correlations(
    backend: TinkerBackend, renderer: Renderer, lessons: list[Lesson], exact: Teacher, others: dict[str, Teacher]
) -> dict[str, float]:
    advantages: dict[str, list[Floats]] = {name: [] for name in ("exact", *others)}
    for lesson in lessons:
        prompt, completion = renderer.prompt(teacher_context(lesson)), lesson.turn.completion
        student_T = await backend.sampler.logprobs(completion.prompt, completion.tokens)
        for name, teacher in (("exact", exact), *others.items()):
            advantages[name].append(await teacher.score(prompt, completion.tokens, None) - student_T)
    joined = {name: np.concatenate(parts) for name, parts in advantages.items()}
    return {name: float(np.corrcoef(joined["exact"], joined[name])[0, 1]) for name in others}


if __name__ == "__main__":
    logging.getLogger("transformers").setLevel(logging.ERROR)
    sys.exit(asyncio.run(main()))

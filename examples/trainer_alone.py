"""The SDPO trainer without agent, tools or terminal: the embedded model learns to be brief, from feedback in words.

    python examples/trainer_alone.py        (with the extra `local`; some minutes on two cores)

It answers questions, a program says of each long answer how long it was and what to do instead, and the model, shown
that, re-scores its own answer. Nobody writes a right one. Then other questions are asked, without any feedback.
"""

import asyncio
import logging
import tempfile
import time
from collections.abc import Sequence

from continualcode import Conversation, Lesson, Message, Policy, SDPOConfig, SDPOTrainer, Turn
from continualcode.backends import TinkerBackend
from continualcode.local import ServiceClient
from continualcode.renderers import make_renderer
from continualcode.types import Sampling

MODEL, WORDS, ROUNDS = "smollm2-135m", 15, 5
TRAINING = (
    "What is a volcano?", "Why is the sea salty?", "What does a baker do?", "How does a kite fly?",
    "What is a desert?", "Why do leaves fall?", "What is a bridge for?", "How do birds find their way?",
)  # fmt: skip
HELD_OUT = (
    "What is a glacier?", "Why is the sky blue?", "What does a nurse do?", "How does a boat float?",
    "What is a forest?", "Why do we sleep?", "What is a clock for?", "How do bees make honey?",
    "What is an island?", "Why does ice melt?", "What does a farmer do?", "How does a lamp work?",
)  # fmt: skip


async def main() -> None:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, ServiceClient(state_dir=folder) as service:
        backend = await TinkerBackend.connect(service, model_name=MODEL, lora_rank=16, seed=1)
        renderer = make_renderer(backend.tokenizer)
        trainer = SDPOTrainer(backend, renderer, SDPOConfig(learning_rate=3e-4))
        policy = Policy(backend, renderer, Sampling(max_tokens=60, seed=1, candidates=trainer.topk))
        await examined(policy, "before")
        started = time.perf_counter()
        for _ in range(ROUNDS):
            turns = [await policy.propose(asked(question)) for question in TRAINING]
            lessons = [Lesson(turn, reason) for turn in turns if (reason := feedback(turn))]
            if report := await trainer.learn(lessons):
                print(
                    f"step {report.step}: {report.lessons} of {len(turns)} answers too long; the told model differs by "
                    f"{report.loss:.2f} nats a token; {time.perf_counter() - started:.0f} s so far"
                )
        await examined(policy, "after")


def feedback(turn: Turn) -> str:
    """What is wrong with an answer, in words; nothing where it is right."""
    said = len(turn.reply.text.split())
    return f"too long: {said} words. Answer in one short sentence" if said > WORDS else ""


async def examined(policy: Policy, when: str) -> None:
    turns = [await policy.propose(asked(question)) for question in HELD_OUT]
    brief = sum(not feedback(turn) for turn in turns)
    print(f"{when}: {brief} of {len(turns)} held-out answers are brief, {mean_words(turns):.0f} words in the mean")
    print("\n".join(f"    {turn.context.messages[-1].content} {turn.reply.text[:90]!r}" for turn in turns[:3]))


def asked(question: str) -> Conversation:
    return Conversation((Message("user", question),))


def mean_words(turns: Sequence[Turn]) -> float:
    return sum(len(turn.reply.text.split()) for turn in turns) / len(turns)


if __name__ == "__main__":
    asyncio.run(main())

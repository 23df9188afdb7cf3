"""What a correction costs of our own time: denial to retry on a backend that answers at once.

    python benchmarks/correction_cost.py [context=8000] [corrections=20]

The conversation holds `context` tokens of read files, the rejected completion about 60, K = 20 candidates. Everything is
real (embedded model's tokenizer, renderer, loop, reprompt, divergence) but the model, whose arrays are made beforehand.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence

import numpy as np
from transformers import AutoTokenizer

from continualcode.agent import Agent
from continualcode.events import Proposed, Reviewed
from continualcode.local.pretrained import DEFAULT_MODEL, resolve
from continualcode.policy import Policy
from continualcode.renderers import make_renderer
from continualcode.sdpo import SDPOTrainer
from continualcode.testing import ScriptedGate
from continualcode.tools import ToolRegistry, Workspace, standard_tools
from continualcode.types import (
    Capabilities,
    Completion,
    Deny,
    Example,
    Floats,
    Ints,
    Message,
    Metrics,
    Sampling,
    Tokens,
    ToolCall,
)

K, TARGET = 20, 20
CALL = ToolCall("write", {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n" * 2})
FILE = "\n".join(f"{n:4}| def function_{n}(argument, other):  # line {n}" for n in range(1, 120))


class Instant:
    """Backend and sampler in one; every array it gives is ready before the clock starts."""

    capabilities = Capabilities(sample_candidates=K, top_logprobs=K, candidate_logprobs=True, weighted_candidates=True)

    def __init__(self, reply: Tokens) -> None:
        self.reply, rng = reply, np.random.default_rng(0)
        self.logprobs_T = -rng.exponential(size=len(reply))
        self.ids_TK = rng.integers(0, 40_000, size=(len(reply), K))
        self.top_TK = np.sort(np.log(rng.dirichlet(np.ones(K + 1), size=len(reply))[:, :K]))[:, ::-1]
        self.wide_TK = np.concatenate([self.logprobs_T[:, None], self.top_TK], axis=1)

    @property
    def sampler(self) -> Instant:
        return self

    initial_sampler = sampler

    async def sample(self, prompt: Tokens, sampling: Sampling, n: int = 1) -> list[Completion]:
        return [
            Completion(prompt, self.reply, self.logprobs_T, candidates=(self.ids_TK, self.top_TK), origin=self)
            for _ in range(n)
        ]

    async def logprobs(self, prompt: Tokens, completion: Tokens) -> Floats:
        return self.logprobs_T

    async def candidate_logprobs(self, prompt: Tokens, completion: Tokens, ids_TK: Ints) -> Floats:
        return self.wide_TK[:, : ids_TK.shape[1]]

    async def top_logprobs(self, prompt: Tokens, completion: Tokens, k: int) -> tuple[Ints, Floats]:
        return self.ids_TK[:, :k], self.top_TK[:, :k]

    async def train_step(self, examples: Sequence[Example], *, learning_rate: float, refresh: bool = True) -> Metrics:
        return {}

    async def refresh(self) -> None:
        pass

    async def forward(self, examples: Sequence[Example]) -> list[Floats]:
        return [self.wide_TK[:, : example.ids_TK.shape[1]] for example in examples]

    async def save(self, name: str) -> str:
        return name


async def main(context: int, corrections: int) -> int:
    renderer = make_renderer(AutoTokenizer.from_pretrained(resolve(DEFAULT_MODEL)))
    backend = Instant(renderer.completion(Message("assistant", "", calls=(CALL,))))
    gate = ScriptedGate(*[Deny(f"use edit_lines; don't overwrite the file ({n})") for n in range(corrections + 1)])
    registry = ToolRegistry(standard_tools(Workspace(".")))
    agent = Agent(
        Policy(backend, renderer), registry, [gate], learner=SDPOTrainer(backend, renderer), system="You code."
    )
    while len(renderer.prompt(agent.conversation)) < context:
        read = ToolCall("read", {"path": "calc.py"})
        agent.conversation = agent.conversation.add(
            Message("user", "read it"), Message("assistant", "", calls=(read,)), Message("tool", FILE, tool="read")
        )
    tokens = len(renderer.prompt(agent.conversation))
    seconds, denied_at = [], None
    async for event in agent.run("fix the test"):
        if isinstance(event, Reviewed):
            denied_at = time.perf_counter()
        elif isinstance(event, Proposed) and denied_at is not None:
            seconds.append(time.perf_counter() - denied_at)
            if len(seconds) == corrections:
                break
    print(f"context {tokens} tokens, rejected completion {len(backend.reply)} tokens, K = {K}")
    median, worst = 1000 * statistics.median(seconds), 1000 * max(seconds)
    print(
        f"{'ok    ' if median < TARGET else 'MISSED'} our own time per correction: median {median:.1f} ms, "
        f"worst {worst:.1f} ms over {len(seconds)} (target < {TARGET} ms)"
    )
    return 0 if median < TARGET else 1


if __name__ == "__main__":
    given = {key: int(value) for key, value in (argument.split("=") for argument in sys.argv[1:])}
    sys.exit(asyncio.run(main(given.get("context", 8000), given.get("corrections", 20))))

"""Drives continualcode, this tree, for round_trips.py: the agent as `assemble` makes it, over the official Tinker client.

    python benchmarks/round_trips_ours.py URL CORRECTIONS [sampled]

With `sampled` the sampled token alone is distilled on, else the default K = 20 candidates. Prints a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from contextlib import aclosing

from round_trips_original import COMPLETION, MODEL, REASON, padded

from continualcode import Config
from continualcode.agent import Agent
from continualcode.assembly import Additions, build
from continualcode.events import Learned, Proposed, Reviewed
from continualcode.plugins import load_plugins
from continualcode.types import Deny, Message, ToolCall, Turn


class Denies:
    """A gate that gives the same reason for everything."""

    async def review(self, turn: Turn, call: ToolCall) -> Deny:
        return Deny(REASON)


async def main(url: str, count: int, sampled: bool) -> list[tuple[float, float]]:
    """When each denial was given and its retry there, by time.monotonic(); the first is a warm-up."""
    with tempfile.TemporaryDirectory() as folder:
        settings = {"alpha": 1.0, "distillation_topk": None} if sampled else {}
        config = Config(
            backend="tinker",
            base_url=url,
            model_name=MODEL,
            max_tokens=COMPLETION,
            workspace=folder,
            state_dir=folder,
            **settings,  # type: ignore[arg-type]
        )
        plugins = load_plugins(entry_points=False)
        async with await build(config, plugins, Additions(gates=[Denies()])) as assembly:
            agent = assembly.agent
            renderer = agent.policy.renderer  # type: ignore[attr-defined]
            request = padded(lambda text: len(renderer.prompt(agent.conversation.add(Message("user", text)))))
            return [await correction(agent, request) for _ in range(count)]


async def correction(agent: Agent, request: str) -> tuple[float, float]:
    """From the verdict on the first proposal to the second proposal."""
    agent.clear()
    began: float | None = None
    async with aclosing(agent.run(request)) as events:
        async for event in events:
            match event:
                case Reviewed():
                    began = time.monotonic()
                case Learned(report):
                    assert report.gap > 0, report
                case Proposed() if began is not None:
                    return began, time.monotonic()
    raise SystemExit("the run ended before a retry was proposed")


if __name__ == "__main__":
    os.environ.update(TINKER_TELEMETRY="0", TINKER_API_KEY="tml-test")
    print(json.dumps(asyncio.run(main(sys.argv[1], int(sys.argv[2]), "sampled" in sys.argv[3:]))))

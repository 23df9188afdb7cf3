"""Drives continualcode 0.6.0 for round_trips.py, in a Python that has it: `make original` makes one.

    .venv-original/bin/python benchmarks/round_trips_original.py URL TOKENIZER CORRECTIONS

Everything is that package's own: ContinualSDPOSession with its defaults, called as its terminal interface does at a denial
(tui.py, "SDPO training on correction"). Substituted: the tokenizer, a folder on this disk, through tinker_cookbook's
register_tokenizer, since a hub may be out of reach; and max_tokens. Left out: the terminal itself, whose animation
delays the retry by up to 0.1 s more. Prints a line of JSON. Needs nothing of ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
import warnings
from collections.abc import Callable

PROMPT, COMPLETION = 1200, 60
REQUEST = "Update add() in calc.py so that it returns a + b."
REASON = "use edit_lines; don't overwrite the file"
MODEL = "Qwen/Qwen3-4B-Instruct-2507"


def padded(length: Callable[[str], int]) -> str:
    """The request, with words after it that make its prompt PROMPT tokens long."""
    text = REQUEST + " the" * (PROMPT - length(REQUEST))
    if length(text) != PROMPT:
        raise SystemExit(f"the prompt has {length(text)} tokens instead of {PROMPT}")
    return text


async def main(url: str, folder: str, count: int) -> list[tuple[float, float]]:
    """When each denial was given and its retry there, by time.monotonic(); the first is a warm-up."""
    from continualcode.train import ContinualSDPOSession
    from tinker_cookbook.tokenizer_utils import register_tokenizer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    register_tokenizer(MODEL, lambda: tokenizer)
    session = ContinualSDPOSession(model=MODEL, tinker_url=url, enable_training=True, max_tokens=COMPLETION)
    await session.init()

    def length(text: str) -> int:
        messages = [*session._prefix, {"role": "user", "content": text}]
        return session.renderer.build_generation_prompt(messages).length

    request, times = padded(length), []
    for _ in range(count):
        session.clear()
        session.add_user_message(request)
        message, _, completion = await session.sample()
        (call,) = message["tool_calls"]
        assert len(completion.tokens) == COMPLETION, completion
        began = time.monotonic()
        session.add_assistant_message(message)
        denied = {
            "status": "denied",
            "tool_name": call.function.name,
            "tool_args": json.loads(call.function.arguments),
            "reason": REASON,
            "correction": REASON,
        }
        session.add_tool_result(getattr(call, "id", "") or "", json.dumps(denied, ensure_ascii=False))
        session.record_denial(completion, REASON)
        metrics = await session.train_sdpo()
        await session.sample()
        times.append((began, time.monotonic()))
        assert metrics["credit/adv_abs_mean"] > 0, metrics
    return times


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    os.environ.update(TINKER_TELEMETRY="0", TINKER_API_KEY="tml-test", HF_HUB_OFFLINE="1")
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))))

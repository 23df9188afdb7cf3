"""What one correction moves, by divergence: forward KL, Jensen-Shannon, reverse KL, side by side on the embedded model.

    python benchmarks/one_correction.py

One rejected `write` on an existing file, the reason "use edit_lines; don't overwrite the file", one and two steps at the
default learning rate, each from the same start. Printed: the probability that a reply begins with a call of each tool, in a
new conversation without the reason, for the corrected request and for two others.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import sys
import tempfile
from pathlib import Path
from types import ModuleType

from continualcode import Config, Lesson, Message, SDPOConfig, SDPOTrainer, Turn
from continualcode.assembly import Assembly, build
from continualcode.plugins import load_plugins

EXAMPLES = Path(__file__).parents[1] / "examples"
INLINE = "Update add() in calc.py so that it returns a + b. The file is: def add(a, b): return a - b"


async def main() -> int:
    demo = _demo()
    corrected = demo.REQUEST + (EXAMPLES / "demo_repo" / "calc.py").read_text()
    requests = {"corrected": corrected, "reworded": INLINE, "other file": demo.ELSEWHERE}
    for alpha in (0.0, 0.5, 1.0):
        with tempfile.TemporaryDirectory() as folder:
            config = Config(workspace=folder, backend="local", model_name="smollm2-135m", seed=1, state_dir=folder)
            async with await build(config, load_plugins(entry_points=False)) as assembly:
                await _one(assembly, requests, SDPOConfig(learning_rate=3e-4, alpha=alpha), demo)
    return 0


async def _one(assembly: Assembly, requests: dict[str, str], settings: SDPOConfig, demo: ModuleType) -> None:
    lesson = Lesson(await _write(assembly, requests["corrected"]), demo.REASON)
    trainer = SDPOTrainer(assembly.backend, assembly.agent.policy.renderer, settings)
    before = {name: await demo.chances(assembly, request) for name, request in requests.items()}
    for _ in range(2):
        report = await trainer.learn([lesson])
        print(
            f"alpha {settings.alpha}  step {report.step}  {report.seconds:4.1f} s  "
            f"log P(rejected) {report.logprob_before:6.1f} -> {report.logprob_after:6.1f}"
        )
        for name, request in requests.items():
            now = await demo.chances(assembly, request)
            moved = "  ".join(f"P({tool}) {before[name][tool]:.2f} -> {now[tool]:.2f}" for tool in now)
            print(f"    {name:11} {moved}")


async def _write(assembly: Assembly, request: str) -> Turn:
    """The first sampled proposal that overwrites the file."""
    conversation = assembly.agent.conversation.add(Message("user", request))
    for _ in range(20):
        turn = await assembly.agent.policy.propose(conversation)
        if turn.reply.call is not None and turn.reply.call.name == "write":
            return turn
    raise SystemExit("20 proposals and no write among them: this model has no such habit to correct")


def _demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", EXAMPLES / "demo.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    logging.getLogger("transformers").setLevel(logging.ERROR)
    sys.exit(asyncio.run(main()))

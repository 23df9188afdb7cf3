"""The story of continualcode with nobody typing: ask, deny with a reason, one training step, retry. Real numbers.

    make demo        (or: python examples/demo.py, with the extra `local` installed)

A gate plays the person: it reads and line edits freely, and denies what overwrites with "use edit_lines; ...".
"""

from __future__ import annotations

import asyncio
import logging
import math
import shutil
import tempfile
import time
from pathlib import Path

from continualcode import Approve, Config, Conversation, Deny, Message, ToolCall, Turn
from continualcode.assembly import Additions, Assembly, build
from continualcode.events import Learned, Malformed, Proposed, Reviewed, Stopped, ToolReturned
from continualcode.plugins import load_plugins

REASON = "use edit_lines; don't overwrite the file"
REQUEST = "Update add() in calc.py so that it returns a + b. The file is:\n"
ELSEWHERE = "greet.py is:\ndef greet():\n    return 'hello'\n\nThe greeting should be 'hi'. Change it."


class Person:
    """Wants line edits. Denies an overwriting call with the reason, and gives up after three denials."""

    def __init__(self) -> None:
        self.denials = 0

    async def review(self, turn: Turn, call: ToolCall) -> Approve | Deny:
        if call.name in ("read", "glob", "grep", "edit_lines"):
            return Approve()
        self.denials += 1
        return Deny(REASON, teach=self.denials <= 3)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder, "demo")
        shutil.copytree(Path(__file__).parent / "demo_repo", workspace)
        started = time.perf_counter()
        config = Config(
            workspace=workspace, backend="local", model_name="smollm2-135m", seed=1, state_dir=Path(folder, "state")
        )
        async with await build(config, load_plugins(entry_points=False), Additions(gates=[Person()])) as assembly:
            print(f"{config.model_name} is ready in {time.perf_counter() - started:.1f} s\n")
            shown = assembly.workspace.read("calc.py")
            assembly.workspace.note_seen("calc.py", shown)  # by the request; else it would have to be read first
            request = REQUEST + shown.decode()
            before = await chances(assembly, ELSEWHERE)
            await narrate(assembly, request)
            after = await chances(assembly, ELSEWHERE)
    print("\nAnother file, a new conversation, nothing of this in the context. What the weights alone propose:")
    for name in before:
        print(f"  P({name:<10}) {before[name]:6.1%} -> {after[name]:6.1%}")


async def narrate(assembly: Assembly, request: str) -> None:
    print(f"you    {request.splitlines()[0]} ...")
    proposals = 0
    async for event in assembly.agent.run(request):
        match event:
            case Proposed(turn=Turn(reply=reply)):
                proposals += 1
                print(f"agent  {short(reply.call.to_json() if reply.call else reply.text)}")
            case Malformed(problem=problem):
                print(f"agent  (no valid call: {short(problem)})")
            case Reviewed(call=call, verdict=Deny(reason=reason)):
                print(f"you    no: {reason}      [{call.name} did not run]")
            case Learned(report=report):
                print(
                    f"       learned in {report.seconds:.1f} s over {report.tokens} tokens: log P(rejected call) "
                    f"{report.logprob_before:.1f} -> {report.logprob_after:.1f}"
                )
                if report.approved:
                    print(f"       {report.left:.0%} of the gap between the model and itself, told the reason, is left")
                    return
            case ToolReturned(call=call, result=result):
                print(f"       {call.name}: {short(result.output)}")
                if proposals > 6:
                    return
            case Stopped(detail=detail):
                print(f"       {short(detail)}")


async def chances(assembly: Assembly, request: str) -> dict[str, float]:
    """Probability that the model's reply begins with a call of each tool that changes a file."""
    policy = assembly.agent.policy
    opening = assembly.agent.conversation.messages[:1]
    prompt = policy.renderer.prompt(Conversation((*opening, Message("user", request)), assembly.agent.tools.specs))
    found = {}
    for name in ("write", "edit", "edit_lines"):
        beginning = up_to_arguments(policy.renderer, name)
        found[name] = math.exp(float((await assembly.backend.sampler.logprobs(prompt, beginning)).sum()))
    return found


def up_to_arguments(renderer, name: str) -> tuple[int, ...]:
    """The tokens of a call up to its name and the quote that closes it."""
    tokens = renderer.completion(Message("assistant", "", calls=(ToolCall(name, {}),)))
    for end in range(1, len(tokens)):
        if f'"{name}"' in "".join(renderer.decode(token) for token in tokens[:end]):
            return tokens[:end]
    return tokens


def short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 110 else f"{flat[:107]}..."


if __name__ == "__main__":
    logging.getLogger("transformers").setLevel(logging.ERROR)
    asyncio.run(main())

"""A gate that runs the tests: what breaks one is denied in the failing test's own words, before it reaches any file.

python examples/test_gate.py        (a script stands in for the model; with one: assemble(config, gates=[TestRunner(...)]))
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from continualcode import Agent, Policy, ToolRegistry
from continualcode.approval import ApproveAll, TestRunner
from continualcode.events import Reviewed, Tried
from continualcode.testing import BytesRenderer, RecordingLearner, ScriptedBackend
from continualcode.tools import Workspace, standard_tools

WRONG = {"path": "calc.py", "old": "a + b", "new": "a - b"}
RIGHT = {"path": "calc.py", "old": "a + b", "new": "sum((a, b))"}


async def main(folder: str) -> None:
    workspace, learner = Workspace(folder), RecordingLearner()
    model = ScriptedBackend([("read", {"path": "calc.py"}), ("edit", WRONG), ("edit", RIGHT), "Done."])
    tests = TestRunner(workspace, f"{sys.executable} -m pytest -q")
    tools = ToolRegistry(standard_tools(workspace))
    agent = Agent(Policy(model, BytesRenderer()), tools, [tests, ApproveAll()], learner=learner)
    async for event in agent.run("Rewrite add()"):
        if isinstance(event, Tried):
            print(f"{event.command}: {event.seconds:.1f} s, {event.summary}")
        if isinstance(event, Reviewed):
            print(f"{event.call.to_json()}\n  {event.gate}: {event.verdict}\n")
    print(f"learned from: {learner.lessons[0].reason}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "calc.py").write_text("def add(a, b):\n    return a + b\n")
        Path(folder, "test_calc.py").write_text("import calc\n\ndef test_add():\n    assert calc.add(1, 2) == 3\n")
        asyncio.run(main(folder))

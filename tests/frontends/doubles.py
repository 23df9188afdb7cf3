"""Doubles for the frontends' tests: a policy that proposes what it is told, a learner that learns at once.

Run as a program it is a terminal with a scripted model in the folder given: what the tests drive through a pty.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np

from continualcode.agent import Agent
from continualcode.approval import Remember
from continualcode.tools import ToolRegistry, Workspace, standard_tools
from continualcode.tools.snapshots import Snapshots
from continualcode.types import Completion, Conversation, Reply, TokenView, ToolCall, TrainReport, Turn


def reply(text="", *calls, thinking="", problem=None):
    return Reply(text, thinking, calls, problem, raw=text)


class Scripted:
    """Proposes the steps in order: a Reply, a call, a text, or an error to raise; then says it is done."""

    def __init__(self, steps, seconds=0.0):
        self.steps, self.seconds, self.seen = list(steps), seconds, []

    async def propose(self, conversation: Conversation) -> Turn:
        self.seen.append(conversation)
        await asyncio.sleep(self.seconds)
        step = self.steps.pop(0) if self.steps else "done"
        if isinstance(step, Exception):
            raise step
        if isinstance(step, ToolCall):
            step = reply("", step)
        if isinstance(step, str):
            step = reply(step)
        return Turn(conversation, step, Completion((1, 2), (3, 4, 5), np.log([0.9, 0.8, 0.7])))


class Learner:
    """Remembers its lessons; P of the rejected reply goes from 0.5 to 0.004 in every step, or it fails as told."""

    def __init__(self, seconds=0.0, error=None):
        self.lessons, self.seconds, self.error = [], seconds, error

    async def learn(self, lessons):
        await asyncio.sleep(self.seconds)
        if self.error is not None:
            raise self.error
        self.lessons.extend(lessons)
        view = TokenView((3, 4, 5), np.log([1, 0.5, 1]), np.log([1, 0.1, 1]), np.log([0.1, 0.4, 0.1]))
        return TrainReport(len(self.lessons), len(lessons), 3, 0.25, 1.5, (view,))


def agent_of(steps, workspace, frontend, *gates, learner=None, seconds=0.0):
    tools, snapshots = ToolRegistry(standard_tools(workspace)), Snapshots(workspace, workspace.root.parent / "state")
    policy, gates = Scripted(steps, seconds), [*gates, frontend]
    return Agent(policy, tools, gates, learner=learner, critics=[frontend], snapshots=snapshots)


async def main(folder: Path) -> None:
    from continualcode.frontends.terminal import Terminal

    workspace, remember = Workspace(folder), Remember()
    calls = [ToolCall("bash", {"cmd": f"echo ran >> ran-{number}"}) for number in range(3)]
    terminal = Terminal(workspace=workspace, remember=remember, history=folder / "history", greeting=["hello"])
    await terminal.run(agent_of(calls, workspace, terminal, remember, learner=Learner(), seconds=0.7))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))

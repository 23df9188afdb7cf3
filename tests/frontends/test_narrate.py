import io

import pytest
from rich.console import Console

from continualcode.agent import Agent
from continualcode.frontends.terminal.narrate import Narrator
from continualcode.frontends.terminal.progress import Progress
from continualcode.policy import Policy
from continualcode.testing import BytesRenderer, ScriptedBackend
from continualcode.tools import ToolRegistry
from continualcode.types import TrainReport


class Looked(list):
    """A list that counts how many of its items were looked at."""

    looked = 0

    def __iter__(self):
        for item in super().__iter__():
            self.looked += 1
            yield item

    def __reversed__(self):
        for item in super().__reversed__():
            self.looked += 1
            yield item


@pytest.fixture
def agent():
    made = Agent(Policy(ScriptedBackend(), BytesRenderer()), ToolRegistry([]))
    made.reports = Looked()
    return made


@pytest.fixture
def printed():
    return io.StringIO()


@pytest.fixture
def narrator(printed):
    console = Console(file=printed, width=100)
    return Narrator(console, Progress(console))


def step(number):
    return TrainReport(number, 1, 2, 0.5, 0.1)


def test_every_step_is_told_once_and_in_order(agent, narrator, printed):
    for arrived in ([step(1)], [], [step(2), step(3)]):
        agent.reports += arrived
        narrator.tell_reports(agent)
    told = [line for line in printed.getvalue().splitlines() if "learned in" in line]
    assert ["step 1" in told[0], "step 2" in told[1], "step 3" in told[2], len(told)] == [True, True, True, 3]


def test_a_step_late_in_a_session_is_told_without_looking_through_all_before_it(agent, narrator):
    for number in range(100):
        agent.reports.append(step(number))
        narrator.tell_reports(agent)
    assert agent.reports.looked < 300

"""Undo of an agent's calls: files and conversation together, and what interrupts it."""

import asyncio
import json
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise

import pytest

from continualcode.agent import Agent
from continualcode.assembly import build
from continualcode.config import Config
from continualcode.errors import WorkspaceError
from continualcode.events import ToolReturned
from continualcode.journal import Journal
from continualcode.plugins import load_plugins
from continualcode.policy import Policy
from continualcode.testing import BytesRenderer, RecordingLearner, ScriptedBackend, ScriptedGate
from continualcode.tools import ToolRegistry, Workspace, standard_tools
from continualcode.tools.snapshots import Snapshots
from continualcode.types import Approve, Deny, Edit

FIRST = ("bash", {"cmd": "echo one > a; echo $$ > b"})
SECOND = ("write", {"path": "c", "content": "two"})


class Everything:
    async def review(self, turn, call):
        return Approve()


@pytest.fixture
def root(tmp_path):
    (tmp_path / "work").mkdir()
    return tmp_path / "work"


@pytest.fixture
def make(root, tmp_path):
    def agent(*replies, gate=None, state=tmp_path / "state", learner=None):
        workspace, backend = Workspace(root), ScriptedBackend(replies)
        return Agent(
            Policy(backend, BytesRenderer()),
            ToolRegistry(standard_tools(workspace)),
            [gate or Everything()],
            learner=learner,
            snapshots=Snapshots(workspace, state),
        )

    return agent


async def run(agent, text):
    return [event async for event in agent.run(text)]


def files(root):
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


async def test_files_and_conversation_go_back_together_and_forth_again(root, make):
    agent = make(FIRST, "done", SECOND, ("glob", {"pat": "*"}), "done")
    await run(agent, "go")
    half, halfway = files(root), agent.conversation
    await run(agent, "go on")
    whole, end = files(root), agent.conversation
    undone = await agent.undo()
    assert (undone.call, undone.said) == ("write c", "removed c")
    assert (files(root), agent.conversation.messages[-1].content) == (half, "go on")
    assert agent.conversation.messages[:-1] == halfway.messages
    assert (await agent.undo()).said == "removed a, removed b"
    assert (files(root), [message.content for message in agent.conversation.messages]) == ({}, ["go"])
    assert await agent.undo() is None
    await agent.redo()
    assert (files(root), agent.conversation.messages[-1].content) == (half, "go on")
    await agent.redo()
    assert (files(root), agent.conversation) == (whole, end)
    assert await agent.redo() is None


async def test_the_conversation_goes_on_from_where_it_was_put_back_to(root, make):
    agent = make(FIRST, "done", SECOND, "done")
    await run(agent, "go")
    await agent.undo()
    await run(agent, "no, otherwise")
    assert [message.role for message in agent.conversation.messages][:4] == ["user", "user", "assistant", "tool"]
    assert await agent.redo() is None
    await agent.undo()
    assert files(root) == {}


async def test_calls_that_only_read_and_denied_ones_take_no_snapshot(root, make, tmp_path):
    (root / "a").write_text("x")
    reading = [("read", {"path": "a"}), ("glob", {"pat": "*"}), ("grep", {"pat": "x"})]
    gate = ScriptedGate(Approve(), Approve(), Approve(), Deny("no"))
    agent = make(*reading, FIRST, "done", gate=gate)
    await run(agent, "go")
    assert not (tmp_path / "state").exists()
    assert await agent.undo() is None


async def test_what_was_learned_and_waits_to_be_learned_stays(root, make):
    learner = RecordingLearner()
    agent = make(FIRST, "done", gate=ScriptedGate(Edit({"cmd": "echo mine > a"}, "shorter")), learner=learner)
    await run(agent, "go")
    assert files(root) == {"a": "mine\n"}
    await agent.undo()
    assert files(root) == {}
    assert [lesson.reason for lesson in learner.lessons] == ["shorter"]


async def test_a_call_of_an_earlier_session_is_taken_back_without_touching_the_conversation_of_this_one(root, make):
    await run(make(FIRST, "done"), "go")
    agent = make("hello")
    await run(agent, "hi")
    assert (await agent.undo()).call == "bash echo one > a; echo $$ > b"
    assert files(root) == {}
    assert [message.content for message in agent.conversation.messages] == ["hi", "hello"]


async def test_after_clear_only_files_are_taken_back(root, make):
    agent = make(FIRST, "done")
    await run(agent, "go")
    agent.clear()
    await agent.undo()
    assert files(root) == {}
    assert agent.conversation.messages == ()


async def test_an_undo_that_is_refused_leaves_files_and_conversation_as_they_are(root, make):
    agent = make(FIRST, "done")
    await run(agent, "go")
    (root / "a").write_text("by hand")
    before = agent.conversation
    with pytest.raises(WorkspaceError, match="a has changed since"):
        await agent.undo()
    assert agent.conversation == before
    assert files(root)["a"] == "by hand"


async def test_an_interrupted_command_is_taken_back_as_far_as_it_came(root, make):
    agent = make(("bash", {"cmd": "echo x > half; sleep 60"}))
    running = asyncio.create_task(run(agent, "go"))
    for _ in range(1000):
        if (root / "half").exists():
            break
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    undone = await agent.undo()
    assert (undone.interrupted, files(root)) == (True, {})
    assert [message.content for message in agent.conversation.messages] == ["go"]


async def test_without_room_for_a_snapshot_the_call_does_not_run_and_the_model_hears_why(root, make, tmp_path):
    (tmp_path / "state").write_text("in the way")
    agent = make(FIRST, "done")
    (returned,) = [event for event in await run(agent, "go") if isinstance(event, ToolReturned)]
    assert returned.result.output.startswith("not run: no snapshot can be kept")
    assert files(root) == {}


async def test_an_agent_without_snapshots_has_nothing_to_take_back(root):
    agent = Agent(Policy(ScriptedBackend(), BytesRenderer()), ToolRegistry())
    assert (await agent.undo(), await agent.redo()) == (None, None)


STORY = (
    ("write", {"path": "DENIED", "content": "x"}),
    ("write", {"path": "new/a.py", "content": "x = 1\n"}),
    ("bash", {"cmd": "touch DENIED"}),
    ("edit", {"path": "new/a.py", "old": "1", "new": "2"}),
    ("bash", {"cmd": "touch one; touch two"}),
    "done",
)


class Judge:
    async def review(self, turn, call):
        await asyncio.sleep(0)
        return Deny("not that") if "DENIED" in call.to_json() else Approve()


@types.coroutine
def faulted(coroutine, at, fault):
    """Awaits the coroutine until the fault comes at its at-th suspension; whether there is so late a one."""
    thrown = None
    for number in count():
        try:
            waited = coroutine.send(None) if thrown is None else coroutine.throw(thrown)
        except StopIteration:
            return number > at
        except RuntimeError:
            return True
        if number == at and fault == "cancel":
            asyncio.current_task().cancel()
        try:
            thrown = yield waited
        except BaseException as error:
            thrown = error
        if number == at and fault == "error":
            thrown = RuntimeError("a fault, where the result should have come")


@pytest.mark.parametrize("fault", ["cancel", "error"])
async def test_a_fault_at_any_await_leaves_files_between_two_calls_and_a_conversation_that_goes_on(tmp_path, fault):
    loop = asyncio.get_running_loop()
    for at in count():
        root = tmp_path / str(at) / "work"
        root.mkdir(parents=True)
        workspace, backend, learner = Workspace(root), ScriptedBackend(STORY), RecordingLearner()
        snapshots = Snapshots(workspace, tmp_path / str(at) / "state")
        tools = ToolRegistry(standard_tools(workspace))
        agent = Agent(Policy(backend, BytesRenderer()), tools, [Judge()], learner=learner, snapshots=snapshots)
        loop.set_default_executor(threads := ThreadPoolExecutor())
        try:
            reached = await asyncio.create_task(faulted(run(agent, "go"), at, fault))
        except asyncio.CancelledError:
            reached = True
        threads.shutdown()
        loop.set_default_executor(ThreadPoolExecutor())
        if not reached:
            assert files(root) == {"new/a.py": "x = 2\n", "one": "", "two": ""}
            break
        interrupted = snapshots.history()[-1:]
        if interrupted and interrupted[0].interrupted and interrupted[0].call.startswith("bash"):
            await agent.undo()
        left = files(root)
        assert left.pop("new/a.py", None) in (None, "x = 1\n", "x = 2\n")
        assert left in ({}, {"one": "", "two": ""})
        for before, after in pairwise(agent.conversation.messages):
            assert (after.role == "tool") == bool(before.calls)
        backend.script = ["still here"]
        assert (await run(agent, "are you there?"))[-1].detail == "still here"
        while await agent.undo():
            pass
        assert files(root) == {}
    assert at > 15


async def test_a_session_says_at_its_start_what_an_earlier_one_did_not_live_to_finish(isolated, scripted_plugin):
    config = Config(backend="scripted", renderer="bytes", workspace=isolated / "work", state_dir=isolated / "state")
    dying = (
        "import os, pathlib, sys\n"
        "from continualcode.tools.snapshots import Snapshots, ToolCall, Workspace\n"
        "root, state = map(pathlib.Path, sys.argv[1:])\n"
        "Snapshots(Workspace(root), state).begin(ToolCall('bash', {'cmd': 'make it'}))\n"
        "(root / 'a').write_text('half')\n"
        "os._exit(0)\n"
    )
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", dying, config.workspace, config.state_dir)
    assert await child.wait() == 0
    manager = load_plugins(scripted_plugin(ScriptedBackend([])), entry_points=False)
    async with await build(config, manager) as assembly:
        (note,) = [note for note in assembly.notes if "earlier session" in note]
        assert note.endswith("in the middle of bash make it; undo takes back what it did: removed a")
        await assembly.agent.undo()
    assert files(config.workspace) == {}


async def test_the_journal_tells_what_was_taken_back_and_brought_again(root, make, tmp_path):
    journal = Journal(tmp_path / "session.jsonl")
    agent = make(SECOND, "done")
    agent.observers = (journal.observe,)
    await run(agent, "go")
    await agent.undo()
    await agent.redo()
    await agent.redo()
    lines = [json.loads(line) for line in journal.path.read_text().splitlines()]
    told = [
        [line[key] for key in ("what", "call", "said", "messages")] for line in lines if line["event"] == "Restored"
    ]
    assert told == [["undone", "write c", "removed c", 1], ["redone", "write c", "restored c", 4]]

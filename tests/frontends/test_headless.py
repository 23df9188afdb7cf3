"""The headless frontend over real pipes, with the real agent and the real tools."""

import asyncio
import io
import json
import os
from contextlib import asynccontextmanager

import pytest

from continualcode.approval import ApproveAll, TestRunner
from continualcode.errors import BackendUnavailableError
from continualcode.frontends.headless import Headless
from continualcode.tools import find_sandbox
from continualcode.types import ToolCall

FIX = ToolCall("edit_lines", {"path": "calc.py", "start_line": 2, "end_line": 2, "content": "    return a + b"})
MADE = ToolCall("bash", {"cmd": "touch made"})


class Client:
    """The program at the other end of two pipes."""

    def __init__(self, to_agent, from_agent, agent):
        self.to_agent, self.from_agent, self.agent = to_agent, from_agent, agent
        self.lines = []

    def send(self, line):
        text = line if isinstance(line, str) else json.dumps(line)
        self.to_agent.write(text.encode() + b"\n")
        self.to_agent.flush()

    async def read(self):
        line = await asyncio.wait_for(asyncio.to_thread(self.from_agent.readline), 10)
        assert line.isascii()
        message = json.loads(line) if line else None
        self.lines.append(message)
        return message

    async def until(self, kind):
        while (message := await self.read()) is not None:
            if message["type"] == kind:
                return message
        raise AssertionError(f"no {kind} in {self.lines}")

    def types(self):
        return [message["type"] for message in self.lines]


@pytest.fixture
def connect(doubles, workspace):
    @asynccontextmanager
    async def open_client(steps, *, gates=(), learner=None, seconds=0.0, **arguments):
        (command_end, client_out), (client_in, event_end) = os.pipe(), os.pipe()
        with (
            os.fdopen(command_end, "rb") as stdin,
            os.fdopen(client_out, "wb") as to_agent,
            os.fdopen(client_in) as from_agent,
            os.fdopen(event_end, "w") as stdout,
        ):
            frontend = Headless(workspace=workspace, stdin=stdin, stdout=stdout, **arguments)
            agent = doubles.agent_of(steps, workspace, frontend, *gates, learner=learner, seconds=seconds)
            running = asyncio.create_task(frontend.run(agent))
            client = Client(to_agent, from_agent, agent)
            await client.until("ready")
            try:
                yield client
                to_agent.close()
                await asyncio.wait_for(running, 10)
            finally:
                running.cancel()

    return open_client


async def test_an_approved_call_runs_and_every_step_is_told(connect, workspace):
    async with connect([FIX]) as client:
        client.send({"type": "ask", "text": "fix it"})
        review = await client.until("review")
        assert review["call"] == {"name": "edit_lines", "arguments": dict(FIX.arguments)}
        assert "-    return a - b\n+    return a + b" in review["diff"]
        assert review["problem"] is None
        client.send({"type": "approve", "id": review["id"]})
        stopped = await client.until("stopped")
    assert stopped == {"type": "stopped", "reason": "answered", "detail": "done"}
    told = [
        "ready",
        "asked",
        "thinking",
        "proposed",
        "review",
        "reviewed",
        "tool_returned",
        "thinking",
        "proposed",
        "stopped",
    ]
    assert client.types() == told
    proposed = client.lines[3]
    assert (proposed["tokens"], proposed["prompt_tokens"]) == (3, 2)
    assert proposed["logprob"] == pytest.approx(-0.6851790)
    assert "a + b" in (workspace.root / "calc.py").read_text()


async def test_a_denial_teaches_and_its_numbers_are_told(connect, workspace, doubles):
    learner = doubles.Learner()
    async with connect([MADE], learner=learner) as client:
        client.send({"type": "ask", "text": "fix it"})
        client.send({"type": "deny", "id": (await client.until("review"))["id"], "reason": "read first"})
        learned = await client.until("learned")
        await client.until("stopped")
    assert [lesson.reason for lesson in learner.lessons] == ["read first"]
    assert learned["logprob_before"] == pytest.approx(-0.6931472)
    assert learned["logprob_after"] == pytest.approx(-5.5214609)
    assert not (workspace.root / "made").exists()


async def test_a_denial_that_does_not_teach_does_not(connect, doubles):
    learner = doubles.Learner()
    async with connect([MADE], learner=learner) as client:
        client.send({"type": "ask", "text": "fix it"})
        review = await client.until("review")
        client.send({"type": "deny", "id": review["id"], "reason": "not now", "teach": False})
        await client.until("stopped")
    assert learner.lessons == []


async def test_an_edit_runs_the_edited_call_and_is_a_demonstration(connect, workspace, doubles):
    learner = doubles.Learner()
    async with connect([MADE], learner=learner) as client:
        client.send({"type": "ask", "text": "fix it"})
        review = await client.until("review")
        client.send({"type": "edit", "id": review["id"], "arguments": {"cmd": "touch better"}, "reason": "better"})
        learning = await client.until("learning")
        await client.until("stopped")
    assert learning["lessons"][0]["demonstration"] == {"name": "bash", "arguments": {"cmd": "touch better"}}
    assert (workspace.root / "better").exists()


async def test_a_stale_answer_decides_nothing(connect, workspace):
    async with connect([MADE, MADE]) as client:
        client.send({"type": "ask", "text": "fix it"})
        first = (await client.until("review"))["id"]
        client.send({"type": "deny", "id": first, "reason": "no", "teach": False})
        second = (await client.until("review"))["id"]
        client.send({"type": "approve", "id": first})
        assert (await client.until("error"))["message"] == f"review {second} is waiting; {first} decides nothing"
        assert not (workspace.root / "made").exists()
        client.send({"type": "approve"})
        assert "id: Field required" in (await client.until("error"))["message"]
        client.send({"type": "approve", "id": second})
        await client.until("stopped")
        client.send({"type": "approve", "id": second})
        assert "no review is waiting" in (await client.until("error"))["message"]
    assert (workspace.root / "made").exists()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{oops", "Invalid JSON"),
        ("[]", "should be"),
        ('{"type": "dance"}', "'dance'"),
        ('{"type": "ask"}', "text: Field required"),
        ('{"type": "ask", "text": "x", "model": "y"}', "model: Extra inputs"),
        ('{"type": "interrupt"}', "nothing to interrupt"),
    ],
)
async def test_a_line_that_is_no_command_is_an_error_and_the_next_is_read(connect, line, said):
    async with connect([]) as client:
        client.send(line)
        assert said in (await client.until("error"))["message"]
        client.send({"type": "ask", "text": "hello"})
        await client.until("stopped")


async def test_only_one_turn_runs_at_a_time(connect):
    async with connect([MADE]) as client:
        client.send({"type": "ask", "text": "one"})
        await client.until("review")
        for command in ({"type": "ask", "text": "two"}, {"type": "undo"}, {"type": "clear"}):
            client.send(command)
            assert "a turn is running" in (await client.until("error"))["message"]


async def test_an_interrupt_ends_the_turn_and_the_next_can_begin(connect, workspace):
    async with connect([MADE, "fine"]) as client:
        client.send({"type": "ask", "text": "one"})
        review = await client.until("review")
        client.send({"type": "interrupt"})
        await client.until("interrupted")
        client.send({"type": "approve", "id": review["id"]})
        await client.until("error")
        client.send({"type": "ask", "text": "two"})
        assert (await client.until("stopped"))["detail"] == "fine"
    assert not (workspace.root / "made").exists()


async def test_the_end_of_input_denies_what_waits_and_teaches_nothing(connect, workspace, doubles):
    learner = doubles.Learner()
    async with connect([MADE], learner=learner) as client:
        client.send({"type": "ask", "text": "one"})
        await client.until("review")
        client.to_agent.close()
        reviewed = await client.until("reviewed")
        await client.until("interrupted")
        assert (await client.until("quit")) == {"type": "quit", "saved": None}
    assert reviewed["verdict"] == {"type": "deny", "reason": "nobody is left to approve it", "teach": False}
    assert learner.lessons == []
    assert not (workspace.root / "made").exists()


async def test_the_end_of_input_lets_a_turn_end_that_needs_no_answer(connect, workspace):
    async with connect([MADE], gates=[ApproveAll()], seconds=0.1) as client:
        client.send({"type": "ask", "text": "one"})
        client.to_agent.close()
        await client.until("stopped")
        await client.until("quit")
    assert (workspace.root / "made").exists()


async def test_quit_denies_what_waits_saves_and_says_where(connect, workspace):
    async def save():
        return "/somewhere"

    async with connect([MADE], save=save) as client:
        client.send({"type": "ask", "text": "one"})
        await client.until("review")
        client.send({"type": "quit"})
        assert (await client.until("quit"))["saved"] == "/somewhere"
    assert "reviewed" in client.types()
    assert not (workspace.root / "made").exists()


async def test_undo_takes_files_and_conversation_back_and_redo_brings_them_again(connect, workspace):
    async with connect([FIX], gates=[ApproveAll()], prompt="fix it") as client:
        await client.until("stopped")
        for command, answer, said in [
            (
                "undo",
                "undone",
                {"what": "restored calc.py", "call": "edit_lines calc.py", "left_out": [], "messages": 1},
            ),
            ("undo", "undone", {"what": None, "messages": 1}),
            (
                "redo",
                "redone",
                {"what": "restored calc.py", "call": "edit_lines calc.py", "left_out": [], "messages": 4},
            ),
            ("redo", "redone", {"what": None, "messages": 4}),
        ]:
            client.send({"type": command})
            assert await client.until(answer) == {"type": answer, **said}
        assert "a + b" in (workspace.root / "calc.py").read_text()
        (workspace.root / "calc.py").write_text("by hand")
        client.send({"type": "undo"})
        assert "calc.py has changed since" in (await client.until("error"))["message"]
        client.send({"type": "clear"})
        await client.until("cleared")
        assert client.agent.conversation.messages == ()


async def test_a_failure_is_a_lesson_only_where_the_approval_says_so(connect, doubles):
    gone, learner = ToolCall("read", {"path": "gone.py"}), doubles.Learner()
    async with connect([gone, gone], learner=learner) as client:
        client.send({"type": "ask", "text": "read it"})
        client.send({"type": "approve", "id": (await client.until("review"))["id"]})
        client.send({"type": "approve", "id": (await client.until("review"))["id"], "teach_on_failure": True})
        await client.until("stopped")
    assert [lesson.reason for lesson in learner.lessons] == ["no file gone.py; find it with glob"]


async def test_a_dead_backend_fails_the_turn_and_not_the_program(connect):
    async with connect([BackendUnavailableError("nobody answers")]) as client:
        client.send({"type": "ask", "text": "one"})
        failed = await client.until("failed")
        assert failed == {"type": "failed", "error": "BackendUnavailableError", "message": "nobody answers"}
        client.send({"type": "ask", "text": "two"})
        await client.until("stopped")


async def test_odd_numbers_and_characters_are_json_too(connect, doubles):
    learner = doubles.Learner()
    odd = doubles.reply("caf\u00e9 \ud800 \u2028", ToolCall("bash", {"cmd": "echo", "n": float("nan")}))
    async with connect([odd]) as client:
        client.send({"type": "ask", "text": "one"})
        await client.until("stopped")
    malformed = client.lines[3]
    assert malformed["calls"][0]["arguments"] == {"cmd": "echo", "n": None}
    assert malformed["text"] == "caf\u00e9 \ud800 \u2028"
    assert learner.lessons == []


async def test_what_others_print_stays_out_of_the_protocol(connect, capsys):
    class Chatty:
        async def review(self, turn, call):
            print("looking at", call.name)

    async with connect([MADE], gates=[Chatty()]) as client:
        client.send({"type": "ask", "text": "one"})
        review = await client.until("review")
        client.send({"type": "deny", "id": review["id"], "reason": "no"})
        await client.until("stopped")
    assert "looking at bash" in capsys.readouterr().err


async def test_when_nobody_reads_any_more_the_run_ends(doubles, workspace, tmp_path):
    (command_end, client_out), (client_in, event_end) = os.pipe(), os.pipe()
    os.close(client_in)
    with os.fdopen(command_end, "rb") as stdin, os.fdopen(client_out, "wb"):
        stdout = io.TextIOWrapper(io.FileIO(event_end, "w"), write_through=True)
        frontend = Headless(workspace=workspace, stdin=stdin, stdout=stdout)
        await asyncio.wait_for(frontend.run(doubles.agent_of([], workspace, frontend)), 10)
        stdout.close()


async def test_a_change_to_a_file_the_model_has_not_read_is_shown_as_what_it_would_be_and_that_it_will_be_refused(
    connect, workspace
):
    (workspace.root / "other.py").write_text("x = 1\n")
    async with connect([ToolCall("write", {"path": "other.py", "content": "x = 2\n"})]) as client:
        client.send({"type": "ask", "text": "change it"})
        review = await client.until("review")
        assert "-x = 1\n+x = 2" in review["diff"]
        assert "you have not read it" in review["problem"]
        client.send({"type": "approve", "id": review["id"]})
        assert not (await client.until("tool_returned"))["ok"]
    assert (workspace.root / "other.py").read_text() == "x = 1\n"


async def test_what_a_trial_cost_and_found_is_a_line_before_and_after_the_call(connect, workspace):
    runner = TestRunner(workspace, "test ! -e made && grep -q def calc.py", sandbox=find_sandbox("off"))
    spoil = ToolCall("write", {"path": "calc.py", "content": "nothing = 1\n"})
    async with connect([spoil, FIX, MADE], gates=[runner, ApproveAll()]) as client:
        client.agent.critics = (runner, *client.agent.critics)
        client.send({"type": "ask", "text": "go"})
        await client.until("stopped")
    tried = [line for line in client.lines if line["type"] == "tried"]
    assert [(line["when"], line["runs"], line["reason"] is None) for line in tried] == [
        ("before", 3, False),
        ("before", 1, True),
        ("after", 2, False),
    ]
    assert all(line["seconds"] > 0 and line["command"].startswith("test ! -e made") for line in tried)
    assert client.types()[3:6] == ["proposed", "tried", "reviewed"]

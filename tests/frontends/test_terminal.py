"""The terminal driven key by key, with the real agent and the real tools."""

import asyncio
import json
import os
import re
import signal
import stat

import pytest

from continualcode.approval import ApproveAll, TestRunner
from continualcode.errors import BackendUnavailableError, CapabilityError, ConfigError
from continualcode.frontends.terminal import Terminal
from continualcode.tools import find_sandbox
from continualcode.types import ToolCall

FIX = ToolCall("edit_lines", {"path": "calc.py", "start_line": 2, "end_line": 2, "content": "    return a + b"})
OVERWRITE = ToolCall("write", {"path": "calc.py", "content": "def add(a, b):\n    return a + b\n"})
FIXED = "def add(a, b):\n    return a + b\n"


def touch(name):
    return ToolCall("bash", {"cmd": f"touch {name}"})


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Sets what the user's editor writes, one text per time it is opened."""

    def set_texts(*texts):
        for number, text in enumerate(texts):
            (tmp_path / f"edit-{number}").write_text(text)
        script = tmp_path / "editor"
        script.write_text(
            f'#!/bin/sh\ncd {tmp_path}\nn=$(ls edit-* | head -1)\ncp "$1" given.json\ncp "$n" "$1"\nrm "$n"\n'
        )
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.delenv("VISUAL", raising=False)
        monkeypatch.setenv("EDITOR", str(script))
        return tmp_path / "given.json"

    return set_texts


async def test_y_runs_the_call_that_was_shown(sit, workspace):
    async with sit([FIX]) as seat:
        await seat.answer("y")
        await seat.until("done")
    assert (workspace.root / "calc.py").read_text() == FIXED
    assert "2 -     return a - b" in seat.shown
    assert "2 +     return a + b" in seat.shown


async def test_text_and_enter_deny_with_that_reason_and_teach(sit, workspace, doubles):
    learner = doubles.Learner()
    async with sit([OVERWRITE], learner=learner) as seat:
        await seat.answer("use edit_lines\r")
        await seat.until("done")
    assert [lesson.reason for lesson in learner.lessons] == ["use edit_lines"]
    assert "a - b" in (workspace.root / "calc.py").read_text()
    assert "P(rejected call) 50 % -> 0.4 %" in seat.shown.replace("\n", " ")


@pytest.mark.parametrize("reason", ["the file is wrong", "you must read it first", "always test", "no", "1 is wrong"])
async def test_a_reason_may_begin_like_a_key_and_approves_nothing(sit, workspace, doubles, reason):
    learner = doubles.Learner()
    async with sit([touch("made"), touch("made")], learner=learner) as seat:
        await seat.question()
        for letter in reason:
            seat.type(letter)
            await asyncio.sleep(0.02)
        seat.type("\r")
        await seat.answer("\x1b")  # asked again: nothing was allowed for good
        await seat.until("interrupted")
    assert [lesson.reason for lesson in learner.lessons] == [reason]
    assert not (workspace.root / "made").exists()


async def test_a_ready_reason_is_one_key(sit, doubles):
    learner = doubles.Learner()
    async with sit([OVERWRITE], learner=learner) as seat:
        await seat.answer("3")
        await seat.until("done")
    assert [lesson.reason for lesson in learner.lessons] == ["Use edit_lines; don't overwrite the file."]


async def test_n_and_an_empty_reason_deny_without_teaching(sit, workspace, doubles):
    learner = doubles.Learner()
    async with sit([touch("made")], learner=learner) as seat:
        await seat.answer("n")
        await seat.answer("\r", "why not?")
        await seat.until("done")
    assert learner.lessons == []
    assert "nothing is learned" in seat.shown
    assert not (workspace.root / "made").exists()


async def test_escape_takes_a_half_written_reason_back_and_the_keys_work_again(sit, workspace):
    async with sit([touch("made")]) as seat:
        await seat.answer("wait")
        await asyncio.sleep(0.05)
        seat.type("\x1b")
        await asyncio.sleep(0.2)
        seat.type("y")
        await seat.until("done")
    assert (workspace.root / "made").exists()


@pytest.mark.parametrize("key", ["\x1b", "\x03"])
async def test_leaving_the_question_ends_the_turn_and_runs_nothing(sit, workspace, doubles, key):
    learner = doubles.Learner()
    async with sit([touch("made")], learner=learner) as seat:
        await seat.answer(key)
        await seat.until("interrupted")
        await seat.question("> ")
        seat.type("go on\r")
        await seat.until("done")
    assert not (workspace.root / "made").exists()
    assert learner.lessons == []


async def test_enter_alone_decides_nothing(sit, workspace):
    async with sit([touch("made")]) as seat:
        await seat.answer("\r\r")
        await asyncio.sleep(0.4)
        assert not (workspace.root / "made").exists()
        assert "denied" not in seat.shown
        seat.type("y")
        await seat.until("done")


async def test_keys_typed_before_the_question_never_decide(sit, workspace):
    async with sit([touch("made")], seconds=0.3) as seat:
        seat.type("y")
        await asyncio.sleep(0.1)
        seat.type("y\r")
        await seat.until("why not:", "asked")
        seat.type("y")  # drawn, but before anybody can have read it
        await asyncio.sleep(0.6)
        assert not (workspace.root / "made").exists()
        assert "interrupted" not in seat.shown
        seat.type("y")
        await seat.until("done")
    assert (workspace.root / "made").exists()


async def test_a_paste_that_begins_like_a_key_is_text(sit, workspace, doubles):
    learner = doubles.Learner()
    async with sit([touch("made")], learner=learner) as seat:
        await seat.answer("\x1b[200~y\ny\x1b[201~")
        await asyncio.sleep(0.4)
        assert not (workspace.root / "made").exists()
        seat.type("\r")
        await seat.until("done")
    assert [lesson.reason for lesson in learner.lessons] == ["y\ny"]


async def test_alt_and_a_key_approve_nothing(sit, workspace):
    async with sit([touch("made")]) as seat:
        await seat.answer("\x1by")
        await asyncio.sleep(0.5)
        assert not (workspace.root / "made").exists()
        seat.type("\x1b")
        await seat.until("interrupted")


async def test_always_this_call_is_exact_and_always_this_tool_is_not(sit, workspace):
    steps = [touch("one"), touch("one"), touch("two"), touch("three")]
    async with sit(steps) as seat:
        await seat.answer("a")
        await seat.answer("t")
        await seat.until("done")
    assert {"two", "three"} <= set(os.listdir(workspace.root))
    assert seat.shown.count("approved by Remember") == 2


async def test_always_a_prefix_covers_its_commands_and_nothing_more_and_is_listed_and_revoked(sit, workspace):
    steps = [touch("one"), touch("two"), ToolCall("bash", {"cmd": "touch three; ls"}), "done", touch("four"), "done"]
    async with sit(steps) as seat:
        await seat.answer("p")
        await seat.until("`touch ...` will not be asked about again")
        await seat.answer("n\r", "always `touch ...`, `ls ...`")
        await seat.question("why not?")
        seat.type("\r")
        await seat.question("> ")
        assert {"one", "two"} <= set(os.listdir(workspace.root))
        assert "three" not in os.listdir(workspace.root)
        for command, said in {
            "/allowed": "1  bash commands that begin with touch",
            "/allowed 2": "/allowed and a number",
            "/allowed 1": "asked about again: bash commands that begin with touch",
            "/allowed 01": "every call is asked about",
        }.items():
            seat.type(f"{command}\r")
            await seat.until(said)
            await seat.question("> ")
        seat.type("again\r")
        await seat.answer("\x1b")
        await seat.until("interrupted")
    assert "four" not in os.listdir(workspace.root)


async def test_no_prefix_is_offered_for_what_cannot_be_covered(sit):
    async with sit([ToolCall("bash", {"cmd": "rm $HOME"})]) as seat:
        await seat.question("why not:")
        assert "always bash" in seat.asked
        assert "always `" not in seat.asked
        seat.type("\x1b")
        await seat.until("interrupted")


async def test_edited_arguments_are_shown_and_run_and_learned_as_a_demonstration(sit, workspace, doubles, editor):
    learner = doubles.Learner()
    given = editor(json.dumps({"cmd": "touch better"}))
    async with sit([touch("worse")], learner=learner) as seat:
        await seat.answer("e")
        await seat.answer("y", "why neither:")
        await seat.until("done")
    assert json.loads(given.read_text()) == {"cmd": "touch worse"}
    assert "$ touch better" in seat.shown
    assert (workspace.root / "better").exists()
    assert not (workspace.root / "worse").exists()
    assert learner.lessons[0].demonstration == ToolCall("bash", {"cmd": "touch better"})


async def test_a_slip_in_the_edited_json_is_told_with_its_place_and_the_draft_is_kept(sit, workspace, editor):
    given = editor('{"cmd":\n "touch better}', json.dumps({"cmd": "touch better"}))
    async with sit([touch("worse")]) as seat:
        await seat.answer("e")
        await seat.until("line 2, column 2")
        await seat.answer("e")
        await seat.answer("y", "why neither:")
        await seat.until("done")
    assert given.read_text() == '{"cmd":\n "touch better}'
    assert (workspace.root / "better").exists()


async def test_unchanged_and_invalid_edits_go_back_to_the_question(sit, workspace, editor):
    editor(json.dumps({"cmd": "touch made"}), json.dumps({"command": "ls"}))
    async with sit([touch("made")]) as seat:
        await seat.answer("e")
        await seat.until("unchanged")
        await seat.answer("e")
        await seat.until("argument 'cmd' is missing")
        await seat.answer("y")
        await seat.until("done")
    assert (workspace.root / "made").exists()


async def test_without_an_editor_it_is_said_and_asked_again(sit, monkeypatch):
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "/no/such/editor")
    async with sit([touch("made")]) as seat:
        await seat.answer("e")
        await seat.until("does not start")
        await seat.answer("\x1b")


async def test_a_call_that_would_fail_says_why_and_offers_it_as_a_reason(sit, doubles):
    learner = doubles.Learner()
    async with sit([ToolCall("edit", {"path": "calc.py", "old": "nothing", "new": "x"})], learner=learner) as seat:
        await seat.until("this call would fail: old is not in calc.py")
        await seat.answer("5", "why not:")
        await seat.until("done")
    assert learner.lessons[0].reason.startswith("old is not in calc.py")


@pytest.mark.parametrize(
    ("keys", "reasons"), [("\r", []), ("c", ["no file gone.py; find it with glob"]), ("list first\r", ["list first"])]
)
async def test_a_failed_call_offers_its_error_as_the_correction(sit, doubles, keys, reasons):
    learner = doubles.Learner()
    async with sit([ToolCall("read", {"path": "gone.py"})], learner=learner) as seat:
        await seat.answer("y")
        await seat.answer(keys, "correction:")
        await seat.until("done")
    assert [lesson.reason for lesson in learner.lessons] == reasons


async def test_a_failing_command_is_not_asked_about_but_can_be_the_reason_of_the_next_denial(sit, doubles):
    learner = doubles.Learner()
    async with sit([ToolCall("bash", {"cmd": "echo oh no; exit 3"}), touch("made")], learner=learner) as seat:
        await seat.answer("y")
        await seat.answer("5")
        await seat.until("done")
    assert "oh no" in learner.lessons[0].reason


async def test_calls_that_another_gate_decides_are_shown_and_ask_nothing(sit, workspace):
    async with sit([FIX, ToolCall("read", {"path": "gone.py"})], gates=[ApproveAll()]) as seat:
        await seat.until("done")
    assert "2 +     return a + b" in seat.shown
    assert "approved by ApproveAll" in seat.shown
    assert "failed: no file gone.py" in seat.shown


async def test_all_of_a_shortened_change_can_be_seen(sit):
    content = "".join(f"row {number}\n" for number in range(300))
    async with sit([ToolCall("write", {"path": "rows.txt", "content": content})]) as seat:
        await seat.until("more lines not shown")
        assert "row 299" not in seat.shown
        await seat.answer("v")
        await seat.until("row 299")
        await seat.answer("\x1b")
        await seat.until("interrupted")


async def test_ctrl_c_while_it_learns_ends_the_turn_and_the_step_is_told_later(sit, doubles):
    async with sit([touch("made")], learner=doubles.Learner(seconds=0.5)) as seat:
        await seat.answer("not that\r")
        await seat.until("learning from 1 correction")
        os.kill(os.getpid(), signal.SIGINT)
        await seat.until("still completed")
        assert "learned in" not in seat.shown
        await seat.question("> ")
        seat.type("go on\r")
        await seat.until("done")
    assert seat.shown.count("learned in 1.5 s") == 1


async def test_a_dead_backend_is_one_line_and_the_conversation_goes_on(sit):
    async with sit([BackendUnavailableError("nobody at http://localhost:1")]) as seat:
        await seat.until("the model does not answer: nobody at")
        await seat.question("> ")
        seat.type("again\r")
        await seat.until("done")
    assert [message.content for message in seat.agent.conversation.messages] == ["fix it", "again", "done"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BackendUnavailableError("no answer"), "the correction is kept"),
        (CapabilityError("cannot"), "cannot be learned here"),
    ],
)
async def test_a_step_that_fails_says_what_becomes_of_the_correction(sit, doubles, error, said):
    async with sit([touch("made")], learner=doubles.Learner(error=error)) as seat:
        await seat.answer("why at all\r")
        await seat.until("done")
    assert said in seat.shown.replace("\n", " ")


async def test_malformed_replies_are_shown_with_what_was_wrong(sit, doubles):
    bad = doubles.reply("<tool_call>{oops", problem="Expecting property name")
    async with sit([bad, bad, bad]) as seat:
        await seat.until("stopped: too many replies")
    assert seat.shown.count("<tool_call>{oops") == 3
    assert "not one valid call: Expecting property name" in seat.shown


async def test_the_commands_work_between_turns(sit, workspace):
    async with sit([FIX]) as seat:
        await seat.answer("y")
        await seat.until("done")
        for command, said in {
            "/metrics": "nothing has been learned",
            "/undo": "edit_lines calc.py: restored calc.py\nthe conversation goes with it",
            "/undo ": "no change to take back",
            "/redo": "the conversation goes with it; what was learned stays",
            "/redo ": "nothing was taken back since",
            "/undo  ": "what was learned stays",
            "/help": "take back the last call",
            "/metrix": "did you mean /metrics",
            "/forget": "every call is asked about again",
            "/clear": "a new conversation",
        }.items():
            await seat.question("> ")
            seat.type(f"{command}\r")
            await seat.until(said)
            if command == "/undo":
                assert [message.content for message in seat.agent.conversation.messages] == ["fix it"]
    assert (workspace.root / "calc.py").read_text() == "def add(a, b):\n    return a - b\n"
    assert seat.agent.conversation.messages == ()


async def test_metrics_show_every_step_and_why_the_tokens_of_the_last(sit, doubles):
    class Renderer:
        def decode(self, token):
            return f"<{token}>"

    async with sit([touch("a"), touch("b")], learner=doubles.Learner(), renderer=Renderer()) as seat:
        await seat.answer("not that\r")
        await seat.answer("nor this\r")
        await seat.until("done")
        await seat.question("> ")
        seat.type("/metrics\r")
        await seat.question("> ")
        seat.type("/why\r")
        await seat.until("much the same")
        seat.type("/note uses Poetry\r")
        await seat.until("goes along with every correction: uses Poetry")
        assert seat.agent.notes == ("uses Poetry",)
    assert "<3><4><5>" in seat.shown
    assert seat.shown.count("50 % -> 0.4 %") == 4


async def test_a_request_keeps_its_lines_and_the_history_its_requests(sit, tmp_path):
    async with sit([], prompt=None) as seat:
        await seat.question("> ")
        seat.type("first\x0asecond\x1b\rthird \x1b[200~a\nb\x1b[201~\r")
        await seat.until("done")
    assert seat.agent.conversation.messages[0].content == "first\nsecond\nthird a\nb"
    assert "third" in (tmp_path / "history").read_text()


async def test_ctrl_c_clears_the_line_and_does_not_leave(sit):
    async with sit([], prompt=None) as seat:
        await seat.question("> ")
        seat.type("never mind\x03")
        await seat.until("/quit leaves")
        await seat.question("> ")
        seat.type("hello\r")
        await seat.until("done")
    assert seat.agent.conversation.messages[0].content == "hello"


async def test_quitting_saves_and_says_where(sit):
    async def save():
        return "/somewhere/weights"

    async with sit(["hi"], save=save) as seat:
        await seat.until("hi")
    assert "saved to /somewhere/weights" in seat.shown


async def test_nothing_printed_is_wider_than_the_terminal(sit, doubles):
    thinking = doubles.reply("word " * 50, ToolCall("bash", {"cmd": "echo " + "x" * 200}), thinking="deep " * 40)
    async with sit([thinking, OVERWRITE], learner=doubles.Learner()) as seat:
        await seat.answer("y")
        await seat.answer("no thanks, not like this\r")
        await seat.until("done")
        await seat.question("> ")
        seat.type("/help\r")
        await seat.until("clear the line")
    assert max(len(line) for line in seat.shown.splitlines()) <= 60


async def test_without_a_terminal_the_headless_frontend_is_named(workspace, doubles):
    terminal = Terminal(workspace=workspace, remember=None)
    with pytest.raises(ConfigError, match="frontend=headless"):
        await terminal.run(doubles.agent_of([], workspace, terminal))


async def test_what_a_trial_cost_is_told_before_the_question_and_what_a_call_broke_after_it(sit, workspace, doubles):
    command = "test ! -e made || { echo it is there; exit 1; }"
    runner, learner = TestRunner(workspace, command, sandbox=find_sandbox("off")), doubles.Learner()
    async with sit([FIX, touch("made")], learner=learner) as seat:
        seat.agent.gates = (runner, *seat.agent.gates)
        seat.agent.critics = (runner, *seat.agent.critics)
        await seat.question()
        told = r"checking it \.\.\. `test ! -e made .* }` in a copy: \d\.\d s edit_lines calc.py"
        assert re.search(told, " ".join(seat.shown.split()))
        seat.type("y")
        await seat.answer("y")
        await seat.until("done")
    shown = " ".join(seat.shown.split())
    assert "after the call: " in shown
    assert "fails, as it did not before: it is there" in shown
    assert shown.count("in a copy:") == 1, "what was tried and found good is not run again"
    assert len(learner.lessons) == 1

import asyncio
import shutil
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from continualcode import Agent, Config, Policy, assemble
from continualcode.approval import ApproveAll, TestRunner
from continualcode.errors import ConfigError
from continualcode.events import Reviewed, ToolReturned, Tried
from continualcode.testing import BytesRenderer, RecordingLearner, ScriptedBackend, ScriptedGate
from continualcode.tools import ToolRegistry, Workspace, standard_tools, tool
from continualcode.tools.sandbox import find_sandbox
from continualcode.types import Approve, Deny, Edit, ToolCall

PYTEST = f"{sys.executable} -m pytest -q"
IMPORT = f"{sys.executable} -c 'import calc; assert calc.add(1, 2) == 3'"
UNITTEST = f"{sys.executable} -m unittest"
TESTS = """\
from calc import add


def test_add():
    assert add(1, 2) == 3


def test_wrong_already():
    assert add(1, 1) == 3
"""
REASON = """\
this breaks a test that passed before:

test_calc.py::test_add
test_calc.py:5: in test_add
    assert add(1, 2) == 3
E   assert -1 == 3
E    +  where -1 = add(1, 2)"""


@pytest.fixture(autouse=True)
def _without_plugins(monkeypatch):
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def project(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "calc.py").write_text("def add(a, b):\n    return a + b\n")
    (tmp_path / "work" / "test_calc.py").write_text(TESTS)
    return tmp_path / "work"


def edit(new, old="a + b", path="calc.py"):
    return ToolCall("edit", {"path": path, "old": old, "new": new})


def write(path, content):
    return ToolCall("write", {"path": path, "content": content})


def contents(folder):
    return {path.relative_to(folder): path.read_text() for path in folder.rglob("*") if path.is_file()}


async def test_what_breaks_a_test_is_denied_with_that_tests_own_output_and_what_failed_before_is_not_blamed(project):
    before = contents(project)
    runner = TestRunner(project, PYTEST)
    assert await runner.review(None, edit("a - b")) == Deny(REASON)
    assert await runner.review(None, edit("b + a")) is None
    assert contents(project) == before


async def test_the_reason_is_the_same_byte_for_byte_in_another_copy(project):
    (project / "test_more.py").write_text(
        "from calc import add\n\nclass Odd:\n    pass\n\ndef test_odd(tmp_path):\n    assert add(1, 2) == 3, (Odd(), tmp_path)\n"
    )
    reasons = {(await TestRunner(project, PYTEST).review(None, edit("a - b"))).reason for _ in range(2)}
    assert len(reasons) == 1
    assert "Odd object at 0x..." in reasons.pop()


async def test_results_are_known_by_content(project):
    runner = TestRunner(project, PYTEST)
    await runner.review(None, edit("b + a"))
    assert runner.last.runs == 2  # the wrong test fails, so what was before had to be known
    (project / "calc.py").write_text("def add(a, b):\n    return b + a\n")
    await runner.review(None, edit("a - b", old="b + a"))
    assert runner.last.runs == 2  # tried, and confirmed; what was before is known from its own trial
    await runner.review(None, edit("a - b", old="b + a"))
    assert runner.last.runs == 0
    assert [(tried.runs, tried.reason is None) for tried in runner.trials()] == [(2, True), (2, False), (0, False)]
    assert (runner.trials(), runner.last.summary) == ([], "0 passed, 2 failed")


async def test_a_path_given_in_full_is_tried_as_well(project):
    found = await TestRunner(project, IMPORT).review(None, edit("a - b", path=str(project / "calc.py")))
    assert found.reason.endswith("\nAssertionError")


async def test_edits_of_one_length_within_a_second_are_told_apart(project):
    runner = TestRunner(project, IMPORT)
    verdicts = [await runner.review(None, edit(new)) for new in ("b + a", "a - b", "a +  b", "a * b", "b+a  ")]
    assert [type(verdict) for verdict in verdicts] == [type(None), Deny, type(None), Deny, type(None)]


async def test_a_new_test_may_fail(project):
    runner = TestRunner(project, PYTEST)
    assert await runner.review(None, write("test_new.py", "def test_new():\n    assert False\n")) is None
    assert await runner.review(None, write("test_later.py", "import not_written_yet\n")) is None


async def test_a_file_that_cannot_be_loaded_any_more_breaks_its_tests(project):
    found = await TestRunner(project, PYTEST).review(None, write("calc.py", "import nothing_of_the_kind\n"))
    assert found.reason == (
        "this breaks a test that passed before:\n\ntest_calc.py\ntest_calc.py:1: in <module>\n    from calc import add\n"
        "calc.py:1: in <module>\n    import nothing_of_the_kind\n"
        "E   ModuleNotFoundError: No module named 'nothing_of_the_kind'"
    )


async def test_a_conftest_that_stops_pytest_itself_is_blamed(project):
    found = await TestRunner(project, PYTEST).review(None, write("conftest.py", "import nothing_of_the_kind\n"))
    assert "runs no test any more:\nImportError while loading conftest" in found.reason
    assert found.reason.endswith("No module named 'nothing_of_the_kind'")


async def test_a_change_that_ends_the_tests_early_does_not_pass_for_good(project):
    runner = TestRunner(project, PYTEST)
    found = await runner.review(None, write("conftest.py", "import os\n\nos._exit(0)\n"))
    assert f"`{PYTEST}` runs no test any more" in found.reason
    found = await runner.review(None, write("pytest.ini", "[pytest]\naddopts = -k nothing\n"))
    assert f"`{PYTEST}` runs no test any more" in found.reason


async def test_where_nothing_passes_it_says_that_it_cannot_tell(project):
    (project / "test_calc.py").write_text("def test_to_be():\n    import not_written_yet\n")
    runner = TestRunner(project, PYTEST, approve=True)
    assert await runner.review(None, edit("a - b")) is None
    assert runner.last.blind


async def test_a_test_that_fails_now_and_then_is_not_blamed(project):
    (project / "test_calc.py").write_text(
        "import pathlib, tempfile\nimport calc\n\ndef test_unsteady():\n"
        f"    flag = pathlib.Path(tempfile.gettempdir(), 'failed-once-{uuid4()}')\n"
        "    if 'new' in open(calc.__file__).read() and not flag.exists():\n        flag.touch()\n        assert False\n"
    )
    runner = TestRunner(project, PYTEST)
    assert await runner.review(None, edit("a + b  # new")) is None
    assert runner.last.runs == 3  # failed, did not before, and did not again


async def test_what_one_run_leaves_behind_is_gone_in_the_next(project):
    (project / "test_calc.py").write_text(
        "import os\nimport calc\n\ndef test_fresh():\n    assert not os.path.exists('made/here')\n    os.mkdir('made')\n"
        "    open('made/here', 'w').close()\n    open('calc.py', 'a').write('raise SystemError')\n"
    )
    runner = TestRunner(project, PYTEST, approve=True)
    assert [await runner.review(None, edit(new)) for new in ("b + a", "a +  b")] == [Approve()] * 2


async def test_what_changes_nothing_or_cannot_be_tried_is_left_to_the_next_gate(project):
    runner = TestRunner(project, "false", approve=True)
    (project / ".gitignore").write_text("*.log\n")
    for call in (
        write("ignored.log", "x"),
        ToolCall("read", {"path": "calc.py"}),
        ToolCall("deploy", {}),
        edit("x", old="not there"),
        write("calc.py", "def add(a, b):\n    return a + b\n"),
        write("../calc.py", ""),
    ):
        assert await runner.review(None, call) is None
    assert runner.last is None


async def test_tests_that_no_longer_end_are_blamed(project):
    (project / "test_calc.py").write_text("import calc\n")
    runner = TestRunner(project, f"{sys.executable} test_calc.py", time_limit=2)
    found = await runner.review(None, write("calc.py", "while True:\n    pass\n"))
    assert found == Deny("with this change the tests do not end within the time limit, as they did before")


@pytest.mark.parametrize(
    ("command", "limit", "said"),
    [
        ("no-such-program -q", 5, "cannot be run:\nbash: line 1: no-such-program: command not found"),
        (f"{sys.executable} -S -m pytest", 5, "cannot be run:.*No module named pytest"),
        ("sleep 5", 0.3, "takes longer than the time limit"),
    ],
)
async def test_tests_that_have_never_run_are_an_error(project, command, limit, said):
    with pytest.raises(ConfigError, match=f"(?s)the test command `{command}` {said}"):
        await TestRunner(project, command, time_limit=limit).review(None, edit("a - b"))


def test_nonsense_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match="test command is empty"):
        TestRunner(tmp_path, " ")
    with pytest.raises(ConfigError, match="must be positive"):
        TestRunner(tmp_path, time_limit=0)
    with pytest.raises(ConfigError, match="folder that exists"):
        TestRunner(tmp_path / "missing")


async def test_unittest_is_judged_test_by_test(project):
    (project / "test_calc.py").write_text(
        "import unittest\nfrom calc import add\n\n\nclass Adding(unittest.TestCase):\n    def test_add(self):\n"
        "        self.assertEqual(add(1, 2), 3)\n\n    def test_wrong_already(self):\n        self.assertEqual(add(1, 1), 3)\n"
    )
    runner = TestRunner(project, f"{UNITTEST} -b")
    assert await runner.review(None, edit("a - b")) == Deny(
        "this breaks a test that passed before:\n\ntest_calc.Adding.test_add\nTraceback (most recent call last):\n"
        '  File "test_calc.py", line 7, in test_add\n    self.assertEqual(add(1, 2), 3)\nAssertionError: -1 != 3'
    )
    assert await runner.review(None, edit("b + a")) is None
    unloadable = await runner.review(None, write("test_calc.py", "import nothing_of_the_kind\n"))
    assert unloadable.reason.startswith("this breaks a test that passed before:\n\ntest_calc\nImportError")
    assert await runner.review(None, write("test_new.py", "import nothing_of_the_kind\n")) is None


async def test_any_command_is_judged_by_its_exit_code(project):
    runner = TestRunner(project, "grep -c + calc.py || { echo 'no + left after 0.12 s'; exit 3; }")
    assert await runner.review(None, edit("b + a")) is None
    found = await runner.review(None, edit("a - b"))
    assert found.reason.splitlines()[1:] == ["0", "no + left after 0.12 s"]
    (project / "calc.py").write_text("def add(a, b):\n    return a * b\n")
    assert await runner.review(None, edit("a - b", old="a * b")) is None
    assert runner.last.blind


async def test_a_program_in_an_ignored_folder_is_found_and_one_on_the_path_is_not_mistaken(project):
    (project / ".gitignore").write_text(".venv/\ngrep\n")
    for name, line in ((".venv/bin/check", "grep -q + calc.py"), ("grep", "exit 1")):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(f"#!/bin/sh\n{line}\n")
        (project / name).chmod(0o755)
    for command in (".venv/bin/check", "grep -q + calc.py"):
        runner = TestRunner(project, command, sandbox=find_sandbox("off"))
        assert await runner.review(None, edit("b + a")) is None
        assert isinstance(await runner.review(None, edit("a - b")), Deny)


async def test_many_broken_tests_are_counted_and_a_few_shown(project):
    (project / "test_calc.py").write_text(
        "import pytest\nfrom calc import add\n\n@pytest.mark.parametrize('n', range(9))\ndef test_n(n):\n"
        "    assert add(1, n) == n + 1\n"
    )
    found = await TestRunner(project, PYTEST).review(None, edit("a - b"))
    assert found.reason.startswith("this breaks 8 tests that passed before:\n\ntest_calc.py::test_n[1]\n")
    assert found.reason.endswith("and 5 more:\n" + "\n".join(f"test_calc.py::test_n[{n}]" for n in range(4, 9)))


class Generating:
    """An agent with a runner as gate and critic, and a tool that cannot be tried in a copy: it writes calc.py."""

    def __init__(self, project, *replies, gates=(), runner=None):
        @tool
        def generate(text: str) -> str:
            """Generate."""
            (project / "calc.py").write_text(f"def add(a, b):\n    return {text}\n")
            return "generated"

        calls = [("generate", {"text": item}) if isinstance(item, str) else item for item in replies]
        self.learner, self.runner = RecordingLearner(), runner or TestRunner(project, PYTEST)
        self.agent = Agent(
            Policy(ScriptedBackend([*calls, "Done."]), BytesRenderer()),
            ToolRegistry([*standard_tools(Workspace(project)), generate]),
            [self.runner, *gates, ApproveAll()],
            learner=self.learner,
            critics=[self.runner],
        )

    async def run(self):
        return [event async for event in self.agent.run("go")]

    @property
    def reasons(self):
        return [lesson.reason for lesson in self.learner.lessons if lesson.resolution is None]


async def test_what_an_approved_call_broke_is_learned_once_and_the_model_hears_it(project):
    generating = Generating(project, "a - b", "a  - b", "a + b", "a * b")
    events = await generating.run()
    assert [reason.splitlines()[-1] for reason in generating.reasons] == [
        "E    +  where -1 = add(1, 2)",
        "E    +  where 2 = add(1, 2)",
    ], "the second call broke nothing that was whole, the third mended it, the fourth broke it again"
    tried = [event for event in events if isinstance(event, Tried)]
    assert [(event.when, event.reason is None) for event in tried] == [
        ("after", False),
        ("after", True),
        ("after", True),
        ("after", False),
    ]
    said = [message.content for message in generating.agent.conversation.messages if message.role == "user"]
    assert said == ["go", *generating.reasons]
    wrong, completed = generating.learner.lessons[:2]
    assert (completed.turn, completed.resolution.reply.call.arguments["text"]) == (wrong.turn, "a  - b")


async def test_what_somebody_else_broke_while_the_call_was_asked_about_is_not_blamed_on_it(project):
    class Meddling:
        async def review(self, turn, call):
            (project / "test_calc.py").write_text("def test_add():\n    assert False\n")

    generating = Generating(project, "b + a", gates=[Meddling()])
    await generating.run()
    assert generating.reasons == []


async def test_what_the_person_edited_is_not_blamed_on_the_model(project):
    forced = ScriptedGate(Edit({"text": "a - b"}, "mine"))
    generating = Generating(project, "b + a", ("read", {"path": "calc.py"}), gates=[forced])
    await generating.run()
    assert "a - b" in (project / "calc.py").read_text()
    assert generating.reasons == ["mine"]


async def test_the_tests_run_once_for_a_call_that_was_tried_and_found_good(project, tmp_path):
    counted = f"echo run >> {tmp_path / 'runs'}; {PYTEST} -k 'not already'"
    runner = TestRunner(project, counted, sandbox=find_sandbox("off"))
    calls = [("write", {"path": f"new{n}.py", "content": f"x = {n}\n"}) for n in range(3)]
    generating = Generating(project, *calls, "b + a", ("read", {"path": "calc.py"}), runner=runner)
    events = await generating.run()
    assert generating.reasons == []
    assert (tmp_path / "runs").read_text().count("run") == 3 + 1, "each write before it, the generated file after it"
    tried = [(event.when, event.runs, event.summary) for event in events if isinstance(event, Tried)]
    assert tried == [("before", 1, "1 passed")] * 3 + [("after", 1, "1 passed")]


async def test_without_room_for_a_copy_the_call_does_not_run_and_the_model_hears_why(project, tmp_path, monkeypatch):
    (tmp_path / "room").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "room"))
    generating = Generating(project, "b + a")
    generating.agent.gates = (ApproveAll(),)  # or the gate would say so first
    shutil.rmtree(tmp_path / "room")
    (tmp_path / "room").write_text("a file where a folder was")
    (returned,) = [event for event in await generating.run() if isinstance(event, ToolReturned)]
    assert returned.result.output.startswith("not run: the workspace cannot be copied: ")
    assert "b + a" not in (project / "calc.py").read_text()


async def test_settings_add_the_gates(isolated, scripted_plugin):
    (isolated / "work" / "calc.py").write_text("def add(a, b):\n    return a + b\n")
    backend = ScriptedBackend(
        [
            ("write", {"path": "new.py", "content": content})
            for content in ("import calc\ncalc.sub\n", "x = y\n", "x = 1\n")
        ]
        + ["Done."]
    )
    ruff = Path(sys.executable).with_name("ruff")
    config = Config(
        backend="scripted",
        renderer="bytes",
        enable_training=False,
        test_command=f"test ! -e new.py || {sys.executable} new.py",
        lint_command=f"{ruff} check --isolated --no-cache {{paths}}",
    )
    agent = await assemble(config, plugins=[scripted_plugin(backend)])
    assert [type(critic).__name__ for critic in agent.critics] == ["TestRunner", "CommandGate"]
    verdicts = [(event.gate, event.verdict) async for event in agent.run("go") if isinstance(event, Reviewed)]
    assert [gate for gate, _ in verdicts] == ["TestRunner", "TestRunner", ""]
    assert verdicts[0][1].reason.endswith("AttributeError: module 'calc' has no attribute 'sub'")


async def test_with_the_setting_alone_what_an_approved_command_broke_is_learned(isolated, scripted_plugin):
    (isolated / "work" / "calc.py").write_text("def add(a, b):\n    return a + b\n")
    spoil = ("bash", {"cmd": "sed -i 's/a + b/a - b/' calc.py"})
    learner, plugin = RecordingLearner(), scripted_plugin(ScriptedBackend([spoil, "Done."]))
    config = Config(backend="scripted", renderer="bytes", test_command=IMPORT)
    agent = await assemble(config, gates=[ApproveAll()], learner=learner, plugins=[plugin])
    async for _ in agent.run("go"):
        pass
    (lesson,) = learner.lessons
    assert lesson.reason.startswith(f"with this change `{IMPORT}` fails, as it did not before:")
    assert lesson.reason.endswith("AssertionError")
    assert lesson.turn.reply.call == ToolCall(*spoil)


@pytest.mark.skipif(find_sandbox().kind != "bubblewrap", reason="nothing would confine the command")
async def test_a_command_is_tried_in_the_copy_and_reaches_nothing_else(project):
    before = contents(project)
    command = "sed -i 's/a + b/a - b/' calc.py; rm -rf {0}; echo x > {0}/made; echo x > ../made; true"
    runner = TestRunner(project, PYTEST)
    assert await runner.review(None, ToolCall("bash", {"cmd": command.format(project)})) == Deny(REASON)
    assert contents(project) == before
    assert not (project.parent / "made").exists()


@pytest.mark.skipif(find_sandbox().kind != "bubblewrap", reason="nothing would confine the command")
async def test_an_approved_command_that_was_tried_runs_the_tests_once_and_one_that_leaves_only_caches_never(project):
    (project / ".gitignore").write_text("*.log\n")
    commands = (
        "sed -i 's/a + b/b + a/' calc.py; echo x > made.log",
        "mkdir .c; echo '*' > .c/.gitignore; echo x > .c/x",
    )
    runner = TestRunner(project, f"{PYTEST} -k 'not already'")
    generating = Generating(project, *(("bash", {"cmd": command}) for command in commands), runner=runner)
    tried = [event for event in await generating.run() if isinstance(event, Tried)]
    assert [(event.when, event.runs, event.reason) for event in tried] == [("before", 1, None)]
    assert "b + a" in (project / "calc.py").read_text()
    assert (project / "made.log").exists()


async def test_a_command_is_not_tried_where_nothing_confines_it(project):
    runner = TestRunner(project, IMPORT, sandbox=find_sandbox("off"))
    assert await runner.review(None, ToolCall("bash", {"cmd": f"touch {project}/made"})) is None
    assert not (project / "made").exists()
    assert isinstance(await runner.review(None, edit("a - b")), Deny)


async def test_a_cancelled_trial_leaves_nothing_wrong_for_the_next(project):
    runner = TestRunner(project, IMPORT)
    trial = asyncio.ensure_future(runner.review(None, write("calc.py", "import time\n\ntime.sleep(30)\n")))
    await asyncio.sleep(1)
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    assert isinstance(await runner.review(None, edit("a - b")), Deny)
    assert await runner.review(None, edit("b + a")) is None


async def test_the_agent_is_denied_with_the_failing_assertion_learns_it_and_mends_its_call(project):
    replies = [
        ("read", {"path": "calc.py"}),
        ("edit", {"path": "calc.py", "old": "a + b", "new": "a - b"}),
        ("edit", {"path": "calc.py", "old": "a + b", "new": "b + a"}),
        "Done.",
    ]
    workspace, learner = Workspace(project), RecordingLearner()
    agent = Agent(
        Policy(ScriptedBackend(replies), BytesRenderer()),
        ToolRegistry(standard_tools(workspace)),
        [TestRunner(workspace, PYTEST), ApproveAll()],
        learner=learner,
    )
    events = [event async for event in agent.run("b first")]
    verdicts = [(event.gate, event.verdict) for event in events if isinstance(event, Reviewed)]
    assert verdicts == [("ApproveAll", Approve()), ("TestRunner", Deny(REASON)), ("ApproveAll", Approve())]
    assert {(lesson.turn.reply.call.to_json(), lesson.reason) for lesson in learner.lessons} == {
        (ToolCall(*replies[1]).to_json(), REASON)
    }
    assert [event.call for event in events if isinstance(event, ToolReturned)][1:] == [ToolCall(*replies[2])]
    assert (project / "calc.py").read_text() == "def add(a, b):\n    return b + a\n"

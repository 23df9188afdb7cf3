import sys
from pathlib import Path

import pytest

from continualcode.approval import CommandGate
from continualcode.errors import ConfigError
from continualcode.types import Approve, Deny, ToolCall, ToolResult

RUFF = f"{Path(sys.executable).with_name('ruff')} check --isolated --no-cache"


@pytest.fixture
def project(tmp_path):
    (tmp_path / "a.py").write_text("import os\n\nx = 1\n")
    return tmp_path


def write(path, content):
    return ToolCall("write", {"path": path, "content": content})


async def test_only_new_complaints_are_denied(project):
    gate = CommandGate(project, f"{RUFF} {{paths}}")
    assert await gate.review(None, write("a.py", "# moved down\n\nimport os\n\nx = 2\n")) is None
    found = await gate.review(None, write("a.py", "# moved down\n\nimport os\n\nx = y\n"))
    assert found == Deny(f"`{RUFF} {{paths}}` has new complaints:\na.py:5:5: F821 Undefined name `y`")
    assert gate.last.runs == 1  # how it was before is known


async def test_a_second_complaint_of_one_kind_is_new(project):
    found = await CommandGate(project, f"{RUFF} {{paths}}").review(None, write("a.py", "import os\nimport os.path\n"))
    assert "F401" in found.reason


async def test_a_new_file_has_only_new_complaints(project):
    gate = CommandGate(project, f"{RUFF} {{paths}}", approve=True)
    assert await gate.review(None, write("-b c.py", "z = 1\n")) == Approve()
    found = await gate.review(None, write("-b c.py", "print(z)\n"))
    assert found.reason.endswith("-b c.py:1:7: F821 Undefined name `z`")


async def test_files_of_another_kind_are_not_looked_at(project):
    gate = CommandGate(project, "false {paths}", approve=True)
    assert await gate.review(None, write("README.md", "x")) is None
    assert gate.last is None


async def test_a_command_without_paths_is_run_whole(project):
    gate = CommandGate(project, f"{RUFF} .")
    assert (await gate.review(None, write("README.md", "x"))) is None
    assert "F821" in (await gate.review(None, write("sub/b.py", "print(z)\n"))).reason


async def test_output_without_places_is_compared_line_by_line(project):
    gate = CommandGate(project, "awk '/TODO/ {print NR, $0; n++} END {print n+0 \" problems\"; exit n > 0}' {paths}")
    assert await gate.review(None, write("b.py", "y = 1\n")) is None
    (project / "b.py").write_text("TODO one\nTODO two\n")
    assert await gate.review(None, write("b.py", "\nTODO two\n")) is None
    assert (await gate.review(None, write("b.py", "TODO one\nTODO three\n"))).reason.splitlines()[1:] == [
        "2 TODO three"
    ]


async def test_as_a_critic_it_names_what_a_call_has_brought_in(project):
    gate = CommandGate(project, f"{RUFF} {{paths}}")
    await gate.about_to_run(ToolCall("generate", {}))
    (project / "a.py").write_text("import os\n\nx = 1\nprint(z)\n")
    assert (await gate.critique(None, ToolResult(""))).endswith("a.py:4:7: F821 Undefined name `z`")
    assert await gate.critique(None, ToolResult("")) is None


async def test_a_command_that_cannot_tell_is_an_error(project):
    with pytest.raises(ConfigError, match=r"`no-such-linter {paths}` cannot be run:\nbash: line 1: no-such-linter"):
        await CommandGate(project, "no-such-linter {paths}").review(None, write("b.py", ""))
    with pytest.raises(ConfigError, match="`sleep 9` exceeds the time limit"):
        await CommandGate(project, "sleep 9", time_limit=0.2).review(None, write("b.py", ""))
    with pytest.raises(ConfigError, match="is empty"):
        CommandGate(project, "")

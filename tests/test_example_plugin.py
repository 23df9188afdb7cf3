"""The example plug-in as it is installed: found by the entry point that its pyproject.toml declares."""

import tomllib
from pathlib import Path

import pytest

from continualcode import Config
from continualcode.approval import ApproveAll
from continualcode.assembly import Additions, build
from continualcode.plugins import inventory, load_plugins
from continualcode.testing import ScriptedBackend

pytestmark = pytest.mark.usefixtures("isolated")
PROJECT = Path(__file__).parent.parent / "examples" / "plugin"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    info = tmp_path / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    declared = [f"{name} = {value}" for name, value in project["entry-points"]["continualcode"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[continualcode]", *declared, ""]))
    monkeypatch.syspath_prepend(str(PROJECT))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.fixture
def results(installed, scripted_plugin):
    """What the tools answer to scripted calls, each approved unless a gate of the plug-in objects."""

    async def run(*calls):
        manager = load_plugins(scripted_plugin(ScriptedBackend([*calls, "done"])))
        config = Config(backend="scripted", renderer="bytes")
        assembly = await build(config, manager, Additions(critics=()))
        assembly.agent.gates += (ApproveAll(),)
        async for _ in assembly.agent.run("go"):
            pass
        return [message.content for message in assembly.agent.conversation.messages if message.role == "tool"]

    return run


def test_it_is_found_and_adds_a_tool_and_a_gate(installed):
    added = inventory(load_plugins(), Config())
    assert added["example (continualcode-example 1.0.0)"] == {"tools": ["outline"], "gates": ["NoSecrets"]}


async def test_its_tool_outlines_a_file(results, isolated):
    (isolated / "work" / "a.py").write_text("class A:\n    def f(self):\n        pass\n\nasync def g(): ...\n")
    (isolated / "work" / "bad.py").write_text("def")
    outline, bad, outside = await results(*(("outline", {"path": path}) for path in ("a.py", "bad.py", "../x.py")))
    assert outline.splitlines() == ["    1 class A", "    2   def f", "    5 def g"]
    assert "no Python that parses" in bad
    assert "outside the workspace" in outside


async def test_its_gate_comes_before_what_approves_without_asking(results, isolated):
    (isolated / "work" / ".env").write_text("KEY=1")
    (denied,) = await results(("read", {"path": "./.env"}))
    assert denied == "denied: .env holds secrets; leave it alone and ask for what you need"

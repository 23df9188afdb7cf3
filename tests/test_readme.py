"""README is true: its settings table is the program's, its example runs, its commands exist."""

import re
from pathlib import Path

import pytest

import continualcode
from continualcode.config import Config
from continualcode.plugins import load_plugins
from continualcode.testing import ScriptedBackend

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def settings_table():
    rows = ["| key | default | |", "|---|---|---|"]
    for name, field in Config.model_fields.items():
        default = {"workspace": ".", "state_dir": "~/.local/state/continualcode"}.get(name, field.default)
        rows.append(f"| `{name}` | {'' if default in (None, '') else f'`{default}`'} | {field.description} |")
    return "\n".join(rows)


def test_the_settings_table_is_the_programs_own():
    assert settings_table() in README


def python_blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_embedding_example_is_short():
    assert len(python_blocks()[0].splitlines()) <= 25


def test_the_embedding_example_runs(isolated, scripted_plugin, monkeypatch, capsys):
    (isolated / "work" / "calc.py").write_text("def add(a, b):\n    return a - b\n")
    edit = {"path": "calc.py", "start_line": 2, "end_line": 2, "content": "    return a + b"}
    backend = ScriptedBackend(
        [("write", {"path": "calc.py", "content": ""}), ("read", {"path": "calc.py"}), ("edit_lines", edit), "Done."]
    )
    monkeypatch.setattr("continualcode.assembly.load_plugins", lambda *given: load_plugins(scripted_plugin(backend)))
    monkeypatch.setenv("CONTINUALCODE_BACKEND", "scripted")
    monkeypatch.setenv("CONTINUALCODE_RENDERER", "bytes")
    exec(compile(python_blocks()[0], "README.md", "exec"), {"__name__": "__main__"})
    assert (isolated / "work" / "calc.py").read_text() == "def add(a, b):\n    return a + b\n"
    assert len(backend.steps) == 2, "the denial, and the retry that was approved"
    assert "Learned" in capsys.readouterr().out


def test_the_commands_of_the_readme_are_in_the_makefile():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make (\w+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(((?!http)[^)]+)\)", README))))
def test_every_link_into_the_repository_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_the_version_is_a_release():
    assert re.fullmatch(r"\d+\.\d+\.\d+", continualcode.__version__)

import json
import logging
import os
import subprocess
import sys
import time
from statistics import median

import pytest

from continualcode import Config
from continualcode.cli import main, waiting

pytestmark = pytest.mark.usefixtures("isolated")
PLUGIN = """
from continualcode import Deny, hookimpl
from continualcode.hookspecs import Connection
from continualcode.testing import BytesRenderer, ScriptedBackend

async def nothing():
    pass

async def connect(config, progress):
    progress("reading 1 of 2")
    progress("reading 2 of 2")
    return Connection(ScriptedBackend([("bash", {"cmd": "true"}), "sorry"]), None, nothing, notes=("a scripted model",))

class Stage:
    async def review(self, turn, call):
        return Deny("never")
    async def critique(self, turn, result):
        return None
    async def run(self, agent):
        async for event in agent.run("act"):
            print(type(event).__name__)

@hookimpl
def register_backends():
    return {"scripted": connect}

@hookimpl
def register_renderers():
    return {"bytes": lambda tokenizer, model_name: BytesRenderer()}

@hookimpl
def register_frontends():
    return {"stage": lambda around: Stage()}
"""
SCRIPTED = ["backend=scripted", "renderer=bytes", "frontend=stage"]


@pytest.fixture
def theatre(tmp_path, monkeypatch):
    """An installed distribution with a scripted backend and a frontend that asks once and denies."""
    (tmp_path / "theatre.py").write_text(PLUGIN)
    info = tmp_path / "theatre-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theatre\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[continualcode]\ntheatre = theatre\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def ran(*words, **extra):
    return subprocess.run(
        [sys.executable, "-m", "continualcode", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **extra},
    )


def test_help_lists_every_setting_with_its_default_and_meaning(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    for name, field in Config.model_fields.items():
        assert f"  {name}=" in said
        assert field.description.split()[0] in said
    assert "temperature=1.0" in said
    assert "auto_approve_readonly=false" in said


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_help_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    main(["seed=1", "-h"])
    settings = capsys.readouterr().out.partition("defaults:")[2]
    width = max(60, min(110, int(columns)))
    assert [line for line in settings.splitlines() if len(line) > width and "/" not in line] == []


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "continualcode 0.7.0\n"


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["plugins"]])
def test_what_needs_no_model_starts_at_once(words):
    code = f"import sys, continualcode.cli; continualcode.cli.main({words}); print(); print(*sys.modules)"
    began, loaded = [], ""
    for _ in range(3):
        start = time.perf_counter()
        loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        began.append(time.perf_counter() - start)
    heavy = {"torch", "tinker", "transformers", "peft", "gguf", "prompt_toolkit"}
    assert heavy & set(loaded.splitlines()[-1].split()) == set()
    assert median(began) < 2.0  # 0.4 s on two idle cores


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["temprature=1"],
            "continualcode: unknown setting 'temprature' (given as key=value); did you mean temperature=...?\n",
        ),
        (["fix it"], "continualcode: expected key=value, found 'fix it'; `continualcode --help` lists all settings\n"),
        (
            ["backend=tinkr", "frontend=headless"],
            "continualcode: no backend 'tinkr'; installed: local, tinker; did you mean 'tinker'?\n",
        ),
        (["benchmark", "speed"], "continualcode: no benchmark 'speed'; installed: \n"),
    ],
)
def test_a_mistake_is_one_clear_line_and_status_2(capsys, words, problem):
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.err.endswith(problem)
    assert "Traceback" not in said.err
    assert said.out == ""


def test_plugins_are_listed_with_what_they_add(theatre):
    said = ran("plugins").stdout
    builtin, _, mine = said.partition("theatre (theatre 1.0)")
    assert builtin.startswith("continualcode.builtin\n")
    assert "read, write, edit, edit_lines, glob, grep, bash" in builtin
    assert "scripted" in mine
    assert "stage" in mine


def test_a_session_learns_saves_records_and_says_how_to_go_on(theatre, isolated):
    done = ran(*SCRIPTED)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        "Asked", "Thinking", "Proposed", "Reviewed", "Learning", "Learned", "Thinking", "Proposed", "Stopped"
    ]  # fmt: skip
    assert "continualcode load_checkpoint_path=scripted://" in done.stderr
    (journal,) = (isolated / "state" / "continualcode" / "sessions").iterdir()
    assert str(journal) in done.stderr
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert [line["event"] for line in lines] == done.stdout.split()


def test_waits_are_lines_on_stderr_where_there_is_no_terminal(theatre):
    told = ran(*SCRIPTED).stderr.splitlines()
    assert told[0] == "reading 1 of 2 ..."
    assert "reading 2 of 2 ..." not in told


def test_a_wait_tells_new_things_only(capsys):
    with waiting("nothing yet") as progress:
        for doing in ("reading 1", "reading 2", "writing"):
            progress(doing)
    assert capsys.readouterr().err == "reading 1 ...\nwriting ...\n"


def test_libraries_are_quiet_unless_the_user_says_otherwise(monkeypatch):
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "info")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    main(["--version"])
    assert os.environ.pop("TOKENIZERS_PARALLELISM") == "false"
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "info"


@pytest.mark.parametrize(("asked", "heard"), [(None, False), ("debug", True)])
def test_the_tinker_client_logs_nothing_unless_asked_to(monkeypatch, asked, heard):
    client = logging.getLogger("tinker")
    before = client.level
    client.setLevel(logging.NOTSET)
    monkeypatch.delenv("TINKER_LOG", raising=False)
    if asked is not None:
        monkeypatch.setenv("TINKER_LOG", asked)
    try:
        main(["--version"])
        assert client.getChild("lib.api_future_impl").isEnabledFor(logging.WARNING) == heard
    finally:
        client.setLevel(before)


def test_the_terminal_without_a_terminal_is_refused_before_the_model_is_waited_for(theatre):
    command = [sys.executable, "-m", "continualcode", "backend=scripted", "renderer=bytes"]
    refused = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    (told,) = refused.stderr.splitlines()
    assert "frontend=headless" in told


def test_doctor_tells_what_the_machine_has_and_fails_when_the_backend_does(capsys, theatre, isolated):
    good = ran("doctor", "backend=scripted", COLUMNS="200")
    assert good.returncode == 0, good.stderr + good.stdout
    for check in (
        "python",
        "extra local",
        "device",
        "embedded model",
        "ripgrep",
        "bash",
        "state_dir",
        "TINKER_API_KEY",
    ):
        assert check in good.stdout
    assert "a scripted model" in good.stdout
    assert "up to K = 20" in good.stdout
    (isolated / "state" / "continualcode").rmdir()
    (isolated / "state" / "continualcode").write_text("in the way")
    bad = ran("doctor", "backend=scripted", COLUMNS="200")
    assert bad.returncode == 1
    assert "cannot be written" in bad.stdout


def test_an_interrupt_at_the_start_ends_quietly(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("continualcode.cli._run", interrupted)
    assert main([]) == 130
    assert capsys.readouterr().err == ""

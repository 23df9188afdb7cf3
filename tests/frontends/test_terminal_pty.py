"""The terminal as a program of its own on a real pseudo-terminal."""

import os
import re
import signal
import sys
import time
from pathlib import Path

import pexpect
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
PROGRAM = Path(__file__).with_name("doubles.py")


@pytest.fixture
def spawn(tmp_path):
    children = []

    def start(**environment):
        plain = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "EDITOR", "VISUAL")}
        child = pexpect.spawn(
            sys.executable,
            [str(PROGRAM), str(tmp_path)],
            env={**plain, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", **environment},
            dimensions=(30, 60),
            encoding="utf-8",
            timeout=20,
        )
        children.append(child)
        child.expect("hello")
        child.expect("> ")
        return child

    yield start
    for child in children:
        child.close(force=True)


def ask(child, text="fix it"):
    child.send(f"{text}\r")


def question(child):
    child.expect("why not:")
    time.sleep(0.4)


def leave(child):
    time.sleep(0.3)
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.wait()
    assert child.exitstatus == 0


def test_keys_typed_while_the_model_thinks_run_nothing(spawn, tmp_path):
    child = spawn()
    ask(child)
    child.expect("thinking")
    child.send("yyy\ryy\r")
    child.expect("why not:")
    child.send("y")  # in the same breath as the question
    time.sleep(1)
    assert not list(tmp_path.glob("ran-*"))
    child.send("y")
    question(child)
    assert [path.name for path in tmp_path.glob("ran-*")] == ["ran-0"]
    child.send("\x03")
    child.expect("interrupted")
    leave(child)


def test_ctrl_c_ends_the_turn_and_not_the_program(spawn, tmp_path):
    child = spawn()
    ask(child)
    child.expect("thinking")
    time.sleep(0.3)
    child.send("\x03")
    child.expect("interrupted")
    time.sleep(0.3)
    ask(child, "again")
    child.expect("thinking")
    child.kill(signal.SIGINT)
    child.expect("interrupted")
    time.sleep(0.3)
    ask(child, "and again")
    question(child)
    child.send("not this\r")
    child.expect("learned in 1.5 s")
    child.send("\x03")
    child.expect("interrupted")
    leave(child)
    assert not list(tmp_path.glob("ran-*"))


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_it_works_without_colours_and_without_a_clever_terminal(spawn, tmp_path, environment):
    child = spawn(**environment)
    child.logfile_read = log = (tmp_path / "log").open("w")
    ask(child)
    question(child)
    child.send("y")
    question(child)
    child.send("3")
    child.expect("denied: Use edit_lines")
    child.expect("learned in")
    question(child)
    child.send("\x1b")
    child.expect("interrupted")
    leave(child)
    log.close()
    shown = (tmp_path / "log").read_text()
    assert (tmp_path / "ran-0").exists()
    assert not re.search(r"\x1b\[[0-9;]*[34][0-7]m", shown)
    if environment.get("TERM") == "dumb":
        assert "\x1b[" not in shown


def test_keys_do_not_show_while_the_model_thinks_and_show_again_afterwards(spawn):
    child = spawn()
    ask(child)
    child.expect("thinking")
    child.send("qqqq")
    child.expect("why not:")
    assert "qqqq" not in child.before
    time.sleep(0.4)
    child.send("\x1b")
    child.expect("interrupted")
    leave(child)

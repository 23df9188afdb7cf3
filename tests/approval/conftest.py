"""Commands for the gates: a corpus of hostile ones, and bash itself as the judge of what a command runs."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

HOME = "/home/of/nobody"
NOWHERE = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
PROGRAMS = ("ls", "cat", "rm", "find", "git", "grep", "sort", "xargs", "env", "sh", "sudo", "a", "b", "x")
LOGS = """#!/bin/bash
IFS=$'\\x1f'; set -- "${0##*/}" "$@"; printf '%s\\x1e' "$*" >> "$LOG"
"""


def pytest_generate_tests(metafunc):
    if "hostile" in metafunc.fixturenames:
        lines = Path(__file__).with_name("hostile.txt").read_text(encoding="utf-8").split("\n")[:-1]
        metafunc.parametrize("hostile", [line.encode().decode("unicode_escape") for line in lines])


@pytest.fixture(scope="session")
def ran(tmp_path_factory):
    """`ran(line)`: the argument lists of the programs that bash runs for this line, all of which only write themselves
    down, and the files that appear. None when that takes too long."""
    programs, folder = tmp_path_factory.mktemp("programs"), tmp_path_factory.mktemp("folder")
    log = tmp_path_factory.mktemp("log") / "log"
    for name in PROGRAMS:
        (programs / name).write_text(LOGS)
        (programs / name).chmod(0o755)
    (programs / "bash").symlink_to("/bin/bash")

    def run(line):
        log.write_bytes(b"")
        environment = {"PATH": str(programs), "LOG": str(log), "HOME": HOME}
        try:
            process = subprocess.Popen(
                ["/bin/bash", "-c", line], cwd=folder, env=environment, start_new_session=True, **NOWHERE
            )
        except ValueError:  # a NUL
            return None
        ended = _wait_for_all(process)
        argued = [tuple(entry.split("\x1f")) for entry in log.read_bytes().decode(errors="replace").split("\x1e")[:-1]]
        files = os.listdir(folder)
        for name in files:
            (folder / name).unlink()
        return (argued, files) if ended else None

    return run


def _wait_for_all(process, seconds=2.0):
    """Whether the process and all that it left behind ended in time; they are killed otherwise."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None and not _living(process.pid):
            return True
        time.sleep(0.001)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return False


def _living(group):
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True

import asyncio
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from continualcode.errors import ConfigError
from continualcode.tools import Workspace, bash_tool


def runs(marker: str) -> bool:
    """Whether a process that is not dead has the marker in its command line."""
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return any(marker in line and not line.startswith("Z") for line in listed.splitlines())


async def test_bash_runs_in_the_workspace_and_merges_its_outputs_in_order(workspace: Workspace, use):
    result = await use("bash", cmd="pwd; echo out; echo err >&2; echo out again")
    assert (result.output, result.ok) == (f"{workspace.root}\nout\nerr\nout again", True)
    assert (await use("bash", cmd="true")).output == "(no output)"
    assert (await use("bash", cmd="shopt -q extglob; [[ a == a ]] && echo {1..3}")).output == "1 2 3"


async def test_a_failure_is_named(use):
    failed = await use("bash", cmd="echo before; exit 3")
    assert (failed.output, failed.ok) == ("before\n[exit code 3]", False)
    killed = await use("bash", cmd="kill -SEGV $$")
    assert (killed.output, killed.ok) == ("(no output)\n[ended by SIGSEGV]", False)


async def test_bash_never_waits_for_input_and_never_takes_the_agents(use):
    began = time.monotonic()
    assert (await use("bash", cmd="cat; read x; echo done")).output == "done"
    assert "No such device" in (await use("bash", cmd="read x </dev/tty")).output
    assert time.monotonic() - began < 5


def test_a_command_that_reads_does_not_eat_the_programs_own_input(root: Path):
    program = (
        "import asyncio, sys\n"
        "from continualcode.tools import Workspace, bash_tool\n"
        "print(asyncio.run(bash_tool(Workspace(sys.argv[1]))(cmd='cat')).output)\n"
        "print(sys.stdin.read())\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program, str(root)], input="precious", capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "(no output)\nprecious\n"


async def test_a_command_has_a_session_of_its_own_and_so_no_terminal(use):
    session, process = (await use("bash", cmd="ps -o sid= -p $$; echo $$")).output.split()
    assert session == process


async def test_background_children_do_not_hold_the_call_and_end_with_it(use):
    began = time.monotonic()
    for redirected in ("", ">/dev/null 2>&1"):
        result = await use("bash", cmd=f"sleep 98765 {redirected} & echo hi")
        assert (result.output, result.ok) == (
            "hi\n[background processes were stopped at the end of this call]",
            True,
        )
    assert time.monotonic() - began < 5
    assert not runs("sleep 98765")


async def test_children_that_ignore_a_gentle_end_are_ended_all_the_same(use):
    result = await use("bash", cmd="(trap '' TERM; while :; do sleep 0.1; done; echo 43210 marks) & sleep 0.2; echo hi")
    assert result.output.startswith("hi\n")
    assert not runs("43210 marks")


async def test_a_timeout_ends_the_whole_group_and_keeps_the_output(workspace: Workspace):
    bash = bash_tool(workspace, timeout=0.5)
    began = time.monotonic()
    result = await bash(cmd="echo begun; sleep 87654 & sleep 87655; echo never")
    assert (result.output, result.ok) == ("begun\n[stopped after 0.5 seconds, with all that it had started]", False)
    assert time.monotonic() - began < 5
    assert not runs("sleep 8765")


async def test_a_command_that_never_stops_writing_is_stopped(workspace: Workspace):
    began = time.monotonic()
    result = await bash_tool(workspace, timeout=0.5)(cmd="trap '' TERM; yes")
    assert not result.ok
    assert time.monotonic() - began < 5


async def test_cancelling_ends_the_whole_group(use):
    running = asyncio.create_task(use("bash", cmd="sleep 76543 & sleep 76544"))
    await asyncio.sleep(0.5)
    assert runs("sleep 76543")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not runs("sleep 7654")


async def test_what_leaves_its_group_and_its_parent_is_ended_all_the_same(use):
    began = time.monotonic()
    for escaping in (
        "setsid sleep 54321 &",
        "setsid -f sleep 54322",
        "(setsid sh -c 'setsid nohup sleep 54323 & exit' &)",
    ):
        result = await use("bash", cmd=f"{escaping}\nsleep 0.1; echo hi")
        assert result.output == "hi\n[background processes were stopped at the end of this call]"
    assert time.monotonic() - began < 8
    assert not runs("sleep 5432")


async def test_stray_bytes_do_not_lose_the_result(use):
    assert (await use("bash", cmd=r"printf 'a\xff\xc3\xa9z\n'")).output == "a\ufffd\u00e9z"


async def test_long_output_keeps_both_ends_in_whole_lines_and_says_what_is_missing(use):
    result = await use("bash", cmd="seq 1 100000")
    lines = result.output.splitlines()
    gap = next(index for index, line in enumerate(lines) if line.startswith("[..."))
    assert lines[:gap] == [str(n) for n in range(1, gap + 1)]
    assert lines[gap + 1 :] == [str(n) for n in range(100_001 - len(lines) + gap + 1, 100_001)]
    missing = 588_895 - sum(len(line) + 1 for index, line in enumerate(lines) if index != gap)
    assert lines[gap] == f"[... {missing:,} bytes not shown ...]"
    assert 25_000 < len(result.output) < 31_000
    short = (await use("bash", cmd="seq 1 5000")).output
    assert short.splitlines() == [str(n) for n in range(1, 5001)]


async def test_200_megabytes_of_output_cost_little_memory(use):
    tracemalloc.start()
    try:
        result = await use("bash", cmd="head -c 200000000 /dev/zero | tr '\\0' x")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "[... 199,970,000 bytes not shown ...]" in result.output
    assert peak < 20e6


async def test_secrets_are_not_passed_on_and_nothing_opens_a_pager(use, monkeypatch):
    secrets = ["MY_API_KEY", "GITHUB_TOKEN", "aws_secret_value", "DB_PASSWORD", "Session_Token_Id"]
    for name in secrets:
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("HARMLESS", "kept")
    output = (await use("bash", cmd="env")).output
    assert "hunter2" not in output
    for line in ("HARMLESS=kept", "TERM=dumb", "NO_COLOR=1", "PAGER=cat", "GIT_PAGER=cat", "GIT_TERMINAL_PROMPT=0"):
        assert line in output.splitlines()


async def test_commands_that_cannot_start_are_told(root: Path, use):
    assert "could not be started" in (await use("bash", cmd="echo a\0b")).output
    assert "could not be started" in (await use("bash", cmd="echo " + "x" * 3_000_000)).output
    os.rmdir(root)
    assert "could not be started" in (await use("bash", cmd="ls")).output


def test_the_shell_must_exist_and_the_timeout_be_positive(workspace: Workspace, monkeypatch):
    with pytest.raises(ConfigError, match="must be positive, not 0"):
        bash_tool(workspace, timeout=0)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match="needs bash"):
        bash_tool(workspace)


def test_ending_the_program_ends_the_command(root: Path):
    program = (
        "import asyncio, sys\n"
        "from continualcode.tools import Workspace, bash_tool\n"
        "async def main():\n"
        "    asyncio.get_running_loop().call_later(0.5, asyncio.current_task().cancel)\n"
        "    await bash_tool(Workspace(sys.argv[1]))(cmd='sleep 65432')\n"
        "asyncio.run(main())\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(root)], capture_output=True, text=True, timeout=60)
    assert "CancelledError" in ended.stderr
    assert not runs("sleep 65432")

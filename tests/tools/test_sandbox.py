"""The sandbox as it is on the machine that runs this. What its kernel does not allow is skipped, with the reason."""

import asyncio
import gc
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from continualcode import Config, ConfigError
from continualcode.tools import Sandbox, ToolRegistry, Workspace, bash_tool, find_sandbox, sandbox
from continualcode.tools.supervise import landlock_abi
from continualcode.types import ToolCall

GIT = {
    "config": "[core]\n\trepositoryformatversion = 0\n\tbare = false\n",
    "HEAD": "ref: refs/heads/main\n",
    "hooks/pre-commit": "#!/bin/sh\ntrue\n",
}


def skip_unless(kind):
    if kind != "none" and (problem := sandbox.problem_with(kind)) is not None:
        pytest.skip(problem)


@pytest.fixture(params=["bubblewrap", "landlock"])
def kind(request):
    skip_unless(request.param)
    return request.param


@pytest.fixture(params=["bubblewrap", "landlock", "none"])
def any_kind(request):
    skip_unless(request.param)
    return request.param


@pytest.fixture
def outside():
    """A folder that is neither in a workspace nor in /tmp."""
    with TemporaryDirectory(dir="/var/tmp") as folder:
        yield Path(folder)


@pytest.fixture
def repository(root):
    """Files of a git repository in the workspace, enough of them for git to take it for one."""
    for name, content in GIT.items():
        path = root / ".git" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    for name in ("objects", "refs"):
        (root / ".git" / name).mkdir()
    return root / ".git"


def runs(marker):
    """Whether a process that is not dead has the marker in its command line."""
    listed = subprocess.run(["ps", "-eo", "stat=,args="], capture_output=True, text=True, check=True).stdout
    return any(marker in line and not line.startswith("Z") for line in listed.splitlines())


def shell(workspace, kind, *, timeout=20.0, **limits):
    return bash_tool(workspace, timeout=timeout, sandbox=Sandbox(kind, "as the test says", **limits))


async def test_a_command_writes_in_the_workspace_and_nowhere_else(kind, workspace, outside):
    (workspace.root / "way-out").symlink_to(outside)
    (outside / "file").write_text("theirs")
    bash = shell(workspace, kind)
    assert (await bash(cmd="mkdir a && echo x > a/b && mv a/b c && rm -r a && cat c")).output == "x"
    away = shlex.quote(str(outside))
    for attempt in (
        f"echo x > {away}/new",
        f"echo x >> {away}/file",
        "echo x > way-out/new",
        f"cd {away} && echo x > new",
        f"echo x > /proc/self/root{away}/new",
        f"rm {away}/file",
        f"mv {away}/file .",
        f"ln {away}/file linked && echo x > linked",
        f"mkdir {away}/folder",
        f"truncate -s 0 {away}/file",
        f"{sys.executable} -c 'import sys; open(sys.argv[1], \"w\")' {away}/new",
        f"mount -o remount,rw / ; echo x > {away}/new",
        f"unshare -rm mount -o remount,rw / ; unshare -rm sh -c 'echo x > {away}/new'",
        f"mount -t tmpfs none {away} && echo x > {away}/new",
        "mknod disk b 254 0",
    ):
        result = await bash(cmd=attempt)
        assert not result.ok, attempt
        assert [(item.name, item.read_text()) for item in outside.iterdir()] == [("file", "theirs")], attempt


async def test_the_temporary_folder_is_the_tools_own_and_goes_with_it(kind, workspace, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    bash = shell(workspace, kind)
    with TemporaryDirectory(dir="/tmp") as theirs:
        assert (await bash(cmd='echo kept > "$TMPDIR/a"; mktemp > "$TMPDIR/b"')).ok
        assert (await bash(cmd='cat "$TMPDIR/a"')).output == "kept"
        assert not (await bash(cmd=f"echo x > {theirs}/b")).ok
    (folder,) = (tmp_path / "temporary").iterdir()
    assert (folder / "a").read_text() == "kept\n"
    del bash
    gc.collect()
    assert not folder.exists()


@pytest.mark.parametrize("network", [False, True])
async def test_the_network_is_there_only_when_it_is_allowed(kind, network, workspace):
    if kind == "landlock" and landlock_abi() < 4:
        pytest.skip("this kernel's Landlock knows nothing of the network")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = await shell(workspace, kind, network=network)(cmd=f"exec 3<>/dev/tcp/127.0.0.1/{port}")
    assert result.ok is network


async def test_the_agents_memory_and_environment_are_out_of_reach(kind, workspace, monkeypatch):
    result = await shell(workspace, kind)(
        cmd=f"cat /proc/{os.getpid()}/environ /proc/{os.getppid()}/environ | tr '\\0' ' '"
    )
    assert "PATH=" not in result.output


@pytest.fixture
def another():
    """A process that is none of the command's."""
    with subprocess.Popen(["sleep", "30"]) as process:
        yield process
        process.kill()


async def test_other_processes_are_not_signalled(kind, workspace, another):
    if kind == "landlock" and landlock_abi() < 6:
        pytest.skip("this kernel's Landlock knows nothing of signals")
    result = await shell(workspace, kind)(cmd=f"kill -9 {another.pid} $PPID; sleep 0.1; echo still here")
    assert "still here" in result.output
    assert another.poll() is None


async def test_the_agents_own_files_are_as_they_were_after_any_command(any_kind, workspace, repository):
    workspace.own.__init__(workspace.root, settings=[workspace.root / "continualcode.toml"])
    before = {path: path.read_text() for path in repository.rglob("*") if path.is_file()}
    os.link(repository / "config", workspace.root / "other-name")
    bash = shell(workspace, any_kind)
    for attempt in (
        "echo evil > continualcode.toml",
        "mkdir continualcode.toml",
        "ln -s /etc/passwd continualcode.toml",
        "echo evil >> .git/config",
        "echo evil > other-name",
        "echo evil > .git/hooks/pre-commit; echo evil > .git/hooks/post-checkout",
        "rm -rf .git/hooks; mkdir .git/hooks; echo evil > .git/hooks/pre-commit",
        "mv .git/config x; echo evil > .git/config",
        "ln -sf ../evil .git/config",
        "mv .git x && mkdir .git && echo evil > .git/config && echo ref > .git/HEAD",
        "mv .git y && ln -s y .git",
        "echo ../evil > .git/commondir; echo evil > .git/config.worktree",
        "chmod 777 .git/hooks/pre-commit",
    ):
        await bash(cmd=attempt)
        if not repository.is_dir():  # it was moved: what is there now may not pass for the repository
            assert not repository.exists() or not repository.is_symlink(), attempt
            moved = next(path for path in (workspace.root / "x", workspace.root / "y") if (path / "HEAD").exists())
            moved.rename(repository)
        for path, content in before.items():
            if path.name != "HEAD":
                assert path.read_text() == content, attempt
        assert {path.name for path in (repository / "hooks").iterdir()} == {"pre-commit"}, attempt
        assert not (repository / "commondir").exists()
        assert "continualcode.toml" not in os.listdir(workspace.root), attempt


async def test_settings_deeper_down_are_not_replaced_with_their_folder(any_kind, root):
    settings = root / ".config/continualcode/continualcode.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text("ours")
    bash = shell(Workspace(root, settings=[settings]), any_kind)
    for attempt in (
        "mv .config x && mkdir -p .config/continualcode && echo evil > .config/continualcode/continualcode.toml",
        "mv .config/continualcode y && mkdir .config/continualcode && echo evil > .config/continualcode/continualcode.toml",
        "mkdir -p z/continualcode && echo evil > z/continualcode/continualcode.toml; mv .config w; ln -s z .config",
        "rm -rf .config; mkdir -p .config/continualcode; echo evil > .config/continualcode/continualcode.toml",
    ):
        await bash(cmd=attempt)
        assert settings.read_text() == "ours", attempt
        assert not (root / ".config").is_symlink()


async def test_a_new_repository_keeps_gits_plain_settings(any_kind, workspace):
    bash = shell(workspace, any_kind)
    result = await bash(
        cmd="git init -q . && git config core.fsmonitor ./evil && echo evil > .git/hooks/pre-commit; ls .git"
    )
    assert "put back" in result.output
    assert "evil" not in (workspace.root / ".git/config").read_text()
    assert all(hook.suffix == ".sample" for hook in (workspace.root / ".git/hooks").iterdir())
    done = await bash(
        cmd="echo x > a; git add a && git -c user.name=a -c user.email=a@b commit -qm a && git log --oneline | wc -l"
    )
    assert (done.output, done.ok) == ("1", True)


async def test_nothing_outlives_the_call(any_kind, workspace):
    for number, start in enumerate(
        (
            "setsid sleep {} &",
            "setsid -f sleep {}",
            "(setsid sh -c 'setsid nohup sleep {} & exit' &)",
            f'{sys.executable} -c \'import os; os.fork() or (os.setsid(), os.fork() or os.execlp("sleep", "sleep", "{{}}"))\'',
            "trap '' TERM HUP; sleep {} & disown",
        )
    ):
        marker = f"4242{number}"
        result = await shell(workspace, any_kind)(cmd=f"{start.format(marker)}\nsleep 0.1; echo hi")
        assert result.output == "hi\n[background processes were stopped at the end of this call]"
        assert not runs(f"sleep {marker}")


async def test_too_many_processes_end_the_command(any_kind, workspace):
    bash = shell(workspace, any_kind, processes=40)
    began = time.monotonic()
    result = await bash(cmd="for i in $(seq 400); do sleep 31313 & done; wait")
    assert result.output.endswith("[stopped, with all that it had started: more than 40 processes]")
    assert not result.ok
    assert time.monotonic() - began < 10
    assert not runs("sleep 31313")


async def test_too_much_memory_ends_the_command(any_kind, workspace):
    bash = shell(workspace, any_kind, memory=200_000_000)
    result = await bash(cmd=f"{sys.executable} -c 'x = bytearray(10**9); import time; time.sleep(30)'")
    assert result.output == "(no output)\n[stopped, with all that it had started: more than 0.2 GB of memory]"


async def test_memory_that_processes_share_counts_once(any_kind, workspace):
    program = "import os, time; x = b'x' * 100_000_000; [os.fork() or (time.sleep(0.5), os._exit(0)) for _ in range(6)]; time.sleep(0.6)"
    bash = shell(workspace, any_kind, memory=400_000_000)
    assert (await bash(cmd=f'{sys.executable} -c "{program}"')).ok


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_command_ends_with_the_agent_however_that_ends(any_kind, number, root):
    program = (
        "import asyncio, sys\n"
        "from continualcode.tools import *\n"
        "bash = bash_tool(Workspace(sys.argv[1]), sandbox=Sandbox(sys.argv[2], ''))\n"
        "asyncio.run(bash(cmd='setsid -f sleep 23232; touch begun; sleep 23233'))\n"
    )
    agent = subprocess.Popen([sys.executable, "-c", program, str(root), any_kind])
    until = time.monotonic() + 20
    while not (root / "begun").exists() and time.monotonic() < until:
        time.sleep(0.02)
    agent.send_signal(number)
    agent.wait()
    until = time.monotonic() + 10
    while runs("sleep 2323") and time.monotonic() < until:
        time.sleep(0.05)
    assert (root / "begun").exists()
    assert not runs("sleep 2323")


async def test_a_sandbox_that_breaks_runs_nothing(workspace, tmp_path, monkeypatch):
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho no namespaces here; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: str(tmp_path / "bwrap"))
    result = await ToolRegistry([shell(workspace, "bubblewrap")]).call(ToolCall("bash", {"cmd": "touch ran"}))
    assert (result.output, result.ok) == (
        "bash could not be run in its sandbox (bubblewrap): no namespaces here",
        False,
    )
    assert not (workspace.root / "ran").exists()


def test_a_sandbox_is_believed_only_when_it_was_tried(tmp_path, monkeypatch):
    (tmp_path / "bwrap").write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setattr(sandbox, "bubblewrap", lambda: str(tmp_path / "bwrap"))
    assert sandbox.problem_with.__wrapped__("bubblewrap") == (
        "bubblewrap does not work here: a command in it can write outside its workspace"
    )


def test_what_is_asked_for_decides_what_happens_without_one(monkeypatch):
    monkeypatch.setattr(sandbox, "problem_with", lambda kind: f"no {kind} here")
    with pytest.raises(ConfigError, match="sandbox=required, and there is none: no bubblewrap here; no landlock here"):
        find_sandbox("required")
    found = find_sandbox("auto")
    assert (found.kind, found.network) == ("none", True)
    assert found.note.startswith("bash runs in NO SANDBOX: it can do what you can")
    assert "(no bubblewrap here; no landlock here)" in found.note


def test_the_second_best_says_why_it_is_not_the_best(monkeypatch):
    monkeypatch.setattr(
        sandbox, "problem_with", lambda kind: None if kind == "landlock" else "bubblewrap is not installed"
    )
    found = find_sandbox("required", network=True)
    assert (found.kind, found.network) == ("landlock", True)
    assert "(bubblewrap is not installed; landlock was tried, and it holds)" in found.note
    assert "not barred: reading files" in found.note


def test_off_is_off_and_says_so():
    assert find_sandbox("off").note.endswith("(sandbox=off)")


@pytest.mark.parametrize("key", ["sandbox", "bash_network", "bash_env"])
def test_a_workspaces_own_file_does_not_loosen_the_sandbox(isolated, key):
    Path("continualcode.toml").write_text(f'{key} = "off"\n')
    with pytest.raises(ConfigError, match=f"{key} is not for a workspace's file to set"):
        Config()


async def test_what_the_sandbox_refused_is_told_to_the_model(kind, workspace, outside):
    result = await shell(workspace, kind)(cmd=f"echo x > {outside}/new")
    assert result.output.endswith(
        "[here only the workspace and $TMPDIR can be written, the agent's own files excepted, and there is no network]"
    )


async def test_commands_at_the_same_time_do_not_disturb_each_other(any_kind, workspace):
    bash = shell(workspace, any_kind)
    results = await asyncio.gather(*(bash(cmd=f"sleep 0.2; echo {number}") for number in range(4)))
    assert [result.output for result in results] == ["0", "1", "2", "3"]
    assert threading.active_count() < 30

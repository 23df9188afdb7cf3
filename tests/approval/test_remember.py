import json
import os

import pytest

from continualcode.approval import Allowed, Prefix, Remember
from continualcode.approval.remember import allowed_file, commands_to_allow
from continualcode.errors import ConfigError
from continualcode.types import Approve, ToolCall

READ = ToolCall("read", {"path": "a.py"})
WRITE = ToolCall("write", {"path": "a.py", "content": "x"})


def bash(line):
    return ToolCall("bash", {"cmd": line})


async def test_the_exact_call_only():
    gate = Remember()
    assert await gate.review(None, WRITE) is None
    gate.allow_call(WRITE)
    assert await gate.review(None, WRITE) == Approve()
    assert await gate.review(None, ToolCall("write", {"path": "a.py", "content": "x "})) is None
    assert await gate.review(None, READ) is None


async def test_a_tool_until_it_is_forgotten():
    gate = Remember()
    gate.allow_tool("write")
    assert await gate.review(None, WRITE) == Approve()
    gate.forget()
    assert await gate.review(None, WRITE) is None


async def test_commands_by_their_words():
    gate = Remember()
    gate.allow_commands(Prefix.read("git diff"), Prefix.read("pytest"))
    for line in ("git diff", "git diff --stat HEAD", "git diff && pytest -q 2>&1", "git diff 'a; rm b'"):
        assert await gate.review(None, bash(line)) == Approve()
    for line in (
        "git difftool",
        "git",
        "git diff; ls",
        "git diff > x",
        "git diff $(ls)",
        "git diff $X",
        "GIT=1 git diff",
    ):
        assert await gate.review(None, bash(line)) is None
    assert await gate.review(None, ToolCall("run", {"cmd": "git diff"})) is None, "another tool"
    assert await gate.review(None, ToolCall("bash", {"cmd": ["git", "diff"]})) is None


async def test_no_hostile_command_passes_what_was_allowed(hostile):
    gate = Remember()
    gate.allow_commands(
        *(Prefix.read(text) for text in ("ls", "git log", "find", "cat", "echo", "pytest", "xargs", "env"))
    )
    assert await gate.review(None, bash(hostile)) is None


@pytest.mark.parametrize(
    ("line", "prefixes"),
    [
        ("git diff --stat", ["git diff"]),
        ("git --no-pager log -p", ["git --no-pager log"]),
        ("kubectl -n mine get pods", ["kubectl -n mine get pods"]),
        ("python -u x.py a", ["python -u x.py a"]),
        ("python -X dev x.py a", ["python -X dev x.py a"]),
        ("uv run --with x pytest -q", ["uv run --with x pytest -q"]),
        ("deno run -A x.ts", ["deno run -A x.ts"]),
        ("sudo -u me ls", ["sudo -u me ls", "ls"]),
        ("ssh host ls", []),
        ("npm run watch", ["npm run watch"]),
        ("pytest -q tests | head -20", ["pytest", "head"]),
        ("ls; ls -la", ["ls"]),
        ("python -m pytest -q", ["python -m pytest"]),
        ("uv run python x.py --fast", ["uv run python x.py"]),
        ("npm run test -- --watch", ["npm run test"]),
        ("FOO='a b' pytest", ["FOO='a b' pytest"]),
        ("timeout 60 pytest", ["timeout", "pytest"]),
        ("git -c core.pager=x log", []),
        ("git log --output=x", []),
        ("rm $HOME", []),
        ("ls > x", []),
        ("python", []),
        ("uv run", []),
        ("ls | xargs rm", []),
        ("ls (", []),
        ("", []),
    ],
)
async def test_what_is_offered_covers_the_call_and_says_what_it_is(line, prefixes):
    offered = commands_to_allow(bash(line))
    assert [str(prefix) for prefix in offered] == prefixes
    if offered:
        gate = Remember()
        gate.allow_commands(*offered)
        assert await gate.review(None, bash(line)) == Approve()


def test_no_commands_are_offered_for_other_tools():
    assert commands_to_allow(READ) == ()


@pytest.mark.parametrize(
    "text",
    [
        "python",
        "sudo",
        "bash -c",
        "python3.12 -m",
        "npm run",
        "timeout 5 python",
        "/bin/sh",
        "ssh host",
        "uv run --with",
        "deno run -A",
    ],
)
def test_what_runs_anything_is_not_allowed_by_its_name(text):
    with pytest.raises(ConfigError, match="runs whatever it is given"):
        Remember().allow_commands(Prefix.read(text))


@pytest.mark.parametrize("text", ["", "ls; rm", "ls > x", "ls $X", "$X", "FOO=1", "ls |", "(ls)x", "{a,b}", "ls\nrm"])
def test_a_prefix_is_the_beginning_of_one_plain_command(text):
    with pytest.raises(ConfigError, match="not the beginning of one plain command"):
        Prefix.read(text)


async def test_all_is_kept_in_a_file_of_ones_own_and_revoked_everywhere(tmp_path):
    path = allowed_file(tmp_path / "state", tmp_path)
    one, other = Remember(path), Remember(path)
    one.allow_call(WRITE)
    one.allow_tool("read")
    one.allow_tool("read")
    one.allow_commands(Prefix.read("git diff"))
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [str(item) for item in other.allowed] == [
        f"the call {WRITE.to_json()}",
        "every call of read",
        "bash commands that begin with git diff",
    ]
    for call in (WRITE, READ, bash("git diff a")):
        assert await other.review(None, call) == Approve()
    one.revoke(Allowed("tool", "read"))
    assert await other.review(None, READ) is None
    assert await other.review(None, WRITE) == Approve()
    one.forget()
    assert other.allowed == ()
    assert os.listdir(path.parent) == [path.name]


def test_every_workspace_has_a_file_of_its_own(tmp_path):
    for name in ("a/x", "b/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "a/x")
    one, other, link = (allowed_file(tmp_path, tmp_path / name) for name in ("a/x", "b/x", "link"))
    assert one != other
    assert one == link


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "{}x",
        "1",
        "[1]",
        "é",
        '[{"kind": "all", "what": ""}]',
        '[{"kind": "tool", "what": 1}]',
        '[{"kind": "tool"}]',
        '[{"kind": "tool", "what": "x", "more": 1}]',
        '[{"kind": "command", "what": "ls; rm"}]',
    ],
)
def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path, content):
    path = tmp_path / "allowed"
    path.write_text(content)
    with pytest.raises(ConfigError):
        Remember(path)


def test_a_file_that_others_can_write_is_refused(tmp_path):
    path = tmp_path / "allowed"
    path.write_text(json.dumps([{"kind": "tool", "what": "bash"}]))
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="others than you can write"):
        Remember(path)


def test_where_nothing_can_be_kept_is_an_error(tmp_path):
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigError, match="cannot be read"):
        Remember(tmp_path / "state" / "allowed")
    gate = Remember(tmp_path / ("long" * 63))
    with pytest.raises(ConfigError, match="cannot be kept"):
        gate.allow_tool("read")
    assert os.listdir(tmp_path) == ["state"]

import pytest

from continualcode import Config
from continualcode.approval import ApproveAll, DenyAll, ReadOnly, Rule, Rules
from continualcode.errors import ConfigError
from continualcode.tools import Workspace
from continualcode.types import Approve, Deny, ToolCall


def bash(line):
    return ToolCall("bash", {"cmd": line})


def call(tool, path):
    return ToolCall(tool, {"path": path})


@pytest.fixture
def workspace(tmp_path):
    for folder in ("work/src/deep", "work/secrets", "work/.git/hooks", "elsewhere"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "work/secrets/key").write_text("key")
    (tmp_path / "work/src/link").symlink_to("../secrets")
    (tmp_path / "work/src/out").symlink_to(tmp_path / "elsewhere")
    return Workspace(tmp_path / "work")


@pytest.fixture
def decide(workspace):
    async def decide(rules, asked, **gates):
        return await Rules([Rule(**rule) for rule in rules], workspace, **gates).review(None, asked)

    return decide


ALLOW_LS = {"action": "allow", "command": "ls"}
DENY_RM = {"action": "deny", "command": "rm", "reason": "use git clean"}
ALLOW_BASH = {"action": "allow", "tool": "bash"}


async def test_the_first_rule_that_matches_wins_and_no_match_asks(decide):
    rules = [
        {"action": "deny", "tool": "write", "path": "src/gen*/**"},
        {"action": "ask", "tool": "write", "path": "src/ask.py"},
        {"action": "allow", "path": "src/**"},
    ]
    assert isinstance(await decide(rules, call("write", "src/generated/a.py")), Deny)
    assert await decide(rules, call("write", "src/ask.py")) is None
    assert await decide(rules, call("edit", "src/ask.py")) == Approve()
    assert await decide(rules, call("write", "src/deep/deeper/a.py")) == Approve()
    assert await decide(rules, call("write", "setup.py")) is None
    assert await decide(rules[::-1], call("write", "src/generated/a.py")) == Approve()
    assert await decide([], call("read", "a")) is None


async def test_a_deny_carries_its_reason_and_teaches_when_it_has_one(decide):
    asked = bash("rm x")
    assert await decide([DENY_RM], asked) == Deny("use git clean", teach=True)
    assert await decide([{**DENY_RM, "teach": False}], asked) == Deny("use git clean", teach=False)
    said = Deny("the user's rules do not allow this (deny command='rm')", teach=False)
    assert await decide([{"action": "deny", "command": "rm"}], asked) == said


async def test_tools_are_named_or_globbed(decide):
    rules = [{"action": "allow", "tool": "db_*"}, {"action": "deny", "tool": "*"}]
    assert await decide(rules, ToolCall("db_read", {})) == Approve()
    assert isinstance(await decide(rules, ToolCall("DB_read", {})), Deny)
    assert isinstance(await decide(rules, bash("ls")), Deny)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("src/a.py", True),
        ("src/deep/a.py", True),
        ("./src/../src/a.py", True),
        ("src", True),
        ("srcs/a.py", False),
        ("SRC/a.py", False),
        ("src/../setup.py", False),
        ("src/link/key", False),
        ("src/out/x", False),
        ("../elsewhere/x", False),
        ("/etc/passwd", False),
        ("~/x", False),
        ("", False),
        ("src/a\0", False),
    ],
)
async def test_paths_are_matched_where_they_lead(decide, path, allowed):
    verdict = await decide([{"action": "allow", "path": "src/**"}], call("write", path))
    assert verdict == (Approve() if allowed else None)


async def test_a_denied_path_is_denied_by_every_name(decide, workspace):
    rules = [{"action": "deny", "path": "secrets/**"}, {"action": "allow", "tool": "*"}]
    for path in ("secrets/key", "src/link/key", "./secrets//key", str(workspace.root / "secrets" / "key"), "src/link"):
        assert isinstance(await decide(rules, call("read", path)), Deny)
    assert await decide(rules, call("read", "../elsewhere")) is None, "nobody knows"
    assert await decide(rules, ToolCall("todo", {})) == Approve()
    assert await decide(rules, bash("cat secrets/key")) is None
    assert await decide(rules, bash("cat < src/link/key")) == Rule(**rules[0]).denial
    assert await decide(rules, bash("cat $X")) == Approve(), "a path rule looks at paths that are there to see"


async def test_every_simple_command_must_be_allowed(decide):
    rules = [ALLOW_LS, {"action": "allow", "command": "git diff"}]
    for line in ("ls", "ls -la; git diff --stat", "ls | ls && git diff", "(ls)"):
        assert await decide(rules, bash(line)) == Approve()
    for line in (
        "ls; rm x",
        "ls; git push",
        "git -C . diff",
        "ls $(git push)",
        "ls $X",
        "ls (",
        "",
        "# ls",
        "X=1 ls",
        "./ls",
    ):
        assert await decide(rules, bash(line)) is None


async def test_no_hostile_command_passes_rules(decide, hostile):
    texts = (
        "ls",
        "git log",
        "git diff",
        "find",
        "cat",
        "echo",
        "pytest",
        "xargs",
        "env",
        "timeout",
        "sort",
        "rg",
        "cd",
    )
    rules = [{"action": "allow", "command": text} for text in texts]
    assert not isinstance(await decide(rules, bash(hostile)), Approve)


async def test_one_denied_command_denies_the_whole_wherever_it_hides(decide):
    rules = [DENY_RM, ALLOW_BASH]
    for line in (
        "rm x",
        "ls && rm -rf x",
        "X=1 /bin/rm x",
        r"\rm x",
        "ls $(rm x)",
        "sudo rm x",
        "find . -exec rm {} +",
        "ls | xargs -n 1 rm",
        "bash -c 'ls; rm x'",
        "f() { rm x; }; f",
        "ls; $X; rm x",
    ):
        assert await decide(rules, bash(line)) == Deny("use git clean")
    for line in ("$(echo rm) x", "eval $X", "bash", "ls (", ". x", "alias a=rm"):
        assert await decide(rules, bash(line)) is None, "nobody knows"
    for line in ("ls", "echo rm", "grep 'rm x' y", "command -v rm"):
        assert await decide(rules, bash(line)) == Approve()


async def test_what_might_be_denied_is_asked(decide):
    rules = [{"action": "deny", "command": "git push"}, ALLOW_BASH]
    assert isinstance(await decide(rules, bash("git push origin")), Deny)
    assert await decide(rules, bash("git -C . push")) is None
    assert await decide(rules, bash("git $X")) is None
    assert await decide(rules, bash("git pull")) == Approve()


async def test_an_ask_among_commands_asks_and_a_tool_alone_allows_whatever_bash_runs(decide):
    rules = [{"action": "ask", "command": "git commit"}, ALLOW_BASH]
    assert await decide(rules, bash("ls; git commit -m x")) is None
    assert await decide(rules, bash("ls; git log > x")) == Approve()
    assert await decide([ALLOW_BASH], bash("eval $X (")) == Approve()


async def test_a_redirection_needs_a_rule_for_its_file(decide):
    rules = [ALLOW_LS, {"action": "allow", "command": "cd"}, {"action": "allow", "path": "src/**"}]
    for line in ("ls > src/x", "ls 2>> src/deep/x >/dev/null", "ls < src/x"):
        assert await decide(rules, bash(line)) == Approve()
    for line in (
        "ls > x",
        "ls > src/out/x",
        "ls > src/link/x",
        "ls > $X",
        "cd src; ls > src/x",
        "ls <<< x",
        "ls > src/*",
    ):
        assert await decide(rules, bash(line)) is None
    only_write = [ALLOW_LS, {"action": "allow", "tool": "write", "path": "src/**"}]
    assert await decide(only_write, bash("ls > src/x")) is None
    everywhere = [ALLOW_LS, {"action": "allow", "path": "**"}]
    assert await decide(everywhere, bash("ls > x")) == Approve()
    assert await decide(everywhere, bash("ls > .git/hooks/pre-commit")) is None


async def test_other_gates_are_asked_before_an_allow_and_where_nothing_matches(decide):
    ask_key = [{"action": "ask", "path": "secrets/**"}]
    assert await decide(ask_key, call("read", "secrets/key"), otherwise=[ReadOnly()]) is None
    assert await decide(ask_key, call("read", "src/a"), otherwise=[ReadOnly()]) == Approve()
    assert await decide([ALLOW_LS], bash("ls"), unless=[DenyAll("red")]) == Deny("red", teach=False)
    assert await decide([ALLOW_LS], bash("rm"), unless=[ApproveAll()]) is None


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"action": "allow"}, "name a tool, a path or a command"),
        ({"action": "allow", "command": "ls", "path": "x"}, "goes with no path"),
        ({"action": "allow", "command": "ls", "tool": "read"}, "a command is bash's"),
        ({"action": "allow", "path": "/etc/**"}, "relative to the workspace"),
        ({"action": "allow", "path": "../x"}, "stays inside"),
        ({"action": "ask", "tool": "x", "reason": "no"}, "only a deny has a reason"),
        ({"action": "deny", "tool": "x", "teach": True}, "to teach, give a reason"),
        ({"action": "allow", "command": "python3"}, "runs whatever it is given"),
        ({"action": "allow", "command": "ls | rm"}, "not the beginning of one plain command"),
    ],
)
def test_a_rule_that_cannot_be_meant_is_an_error(rule, problem):
    with pytest.raises(ConfigError, match=problem):
        Rule(**rule)


def test_rules_come_from_the_users_file_and_never_from_the_workspace(isolated):
    text = '[[rules]]\naction = "deny"\ncommand = "python"\nreason = "use uv run"\n\n[[rules]]\naction = "allow"\ntool = "read"\n'
    user = isolated / "config" / "continualcode" / "continualcode.toml"
    user.parent.mkdir(parents=True)
    user.write_text(text)
    rules = Config().rules
    assert rules == (Rule("deny", command="python", reason="use uv run"), Rule("allow", tool="read"))
    (isolated / "work" / "continualcode.toml").write_text(text)
    with pytest.raises(ConfigError, match="rules is not for a workspace's file to set"):
        Config()


def test_a_misspelt_key_of_a_rule_is_an_error_that_names_the_file(isolated):
    user = isolated / "config" / "continualcode" / "continualcode.toml"
    user.parent.mkdir(parents=True)
    user.write_text('[[rules]]\naction = "allow"\ncomand = "ls"\n')
    with pytest.raises(ConfigError, match=rf"rules.0.comand=ls \(from {user}\)"):
        Config()

import json
import os

import pytest

from continualcode.tools import ToolRegistry, Workspace, bash_tool, tool
from continualcode.tools.redact import Redactor
from continualcode.types import ToolCall

KEY = "sk-0123456789abcdef"


@pytest.mark.parametrize(
    "name",
    ["TINKER_API_KEY", "github_token", "AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "DB_PASS", "MYSQL_PWD", "SSH_PASSPHRASE"],
)
def test_the_value_of_a_variable_named_like_a_secret_is_replaced_by_its_name(name):
    assert Redactor({name: KEY})(f"key={KEY}, again {KEY}") == f"key=[secret {name}], again [secret {name}]"


def test_other_values_short_ones_and_parts_of_them_stay():
    redact = Redactor({"HOME": "/home/somebody", "A_TOKEN": "true", "B_TOKEN": KEY})
    text = f"/home/somebody true {KEY[:-1]}"
    assert redact(text) == text


def test_the_password_in_an_address_is_a_secret_whatever_the_variable_is_called():
    redact = Redactor({"DATABASE_URL": "postgres://me:correct-horse@db.example/x", "SITE": "https://example.org/a@b"})
    assert redact("connecting with correct-horse") == "connecting with [secret DATABASE_URL]"
    assert redact("see https://example.org/a@b") == "see https://example.org/a@b"


def test_a_secret_of_several_lines_is_found_in_numbered_ones():
    redact = Redactor({"SIGNING_KEY": "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----"})
    assert redact("2| MIIEvQIBADANBgkq\n3| hkiG9w0BAQEFAASC") == "2| [secret SIGNING_KEY]\n3| [secret SIGNING_KEY]"


def test_the_longer_of_two_secrets_wins():
    assert Redactor({"A_KEY": "abcdefgh", "B_KEY": "abcdefghij"})("abcdefghij") == "[secret B_KEY]"


async def test_no_tool_shows_the_model_a_secret_however_it_got_it(root, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", KEY)

    @tool
    def leak() -> str:
        """Leak."""
        return os.environ["TINKER_API_KEY"]

    @tool
    def fail() -> str:
        """Fail."""
        raise RuntimeError(os.environ["TINKER_API_KEY"])

    (root / ".env").write_text(f"KEY={KEY}\n")
    workspace = Workspace(root)
    registry = ToolRegistry([leak, fail, bash_tool(workspace)])
    for call in (ToolCall("leak", {}), ToolCall("fail", {}), ToolCall("bash", {"cmd": "cat .env"})):
        output = (await registry.call(call)).output
        assert KEY not in output
        assert "[secret TINKER_API_KEY]" in output
    assert "KEY" not in (await registry.call(ToolCall("bash", {"cmd": "env | grep TINKER"}))).output


async def test_a_variable_that_the_user_names_reaches_bash_and_still_not_the_model(root, monkeypatch):
    monkeypatch.setenv("TINKER_API_KEY", KEY)
    registry = ToolRegistry([bash_tool(Workspace(root), pass_on=["TINKER_API_KEY"])])
    result = await registry.call(ToolCall("bash", {"cmd": 'echo ${#TINKER_API_KEY}; echo "$TINKER_API_KEY"'}))
    assert result.output == f"{len(KEY)}\n[secret TINKER_API_KEY]"


async def test_the_setting_passes_them_on_and_the_journal_never_holds_one(isolated, scripted_plugin, monkeypatch):
    from continualcode import Config
    from continualcode.approval import ApproveAll
    from continualcode.assembly import Additions, build
    from continualcode.journal import Journal
    from continualcode.plugins import load_plugins
    from continualcode.testing import ScriptedBackend

    monkeypatch.setenv("MY_TOKEN", KEY)
    monkeypatch.setenv("OTHER_TOKEN", "another-secret-value")
    journal = Journal(isolated / "journal.jsonl")
    backend = ScriptedBackend([("bash", {"cmd": 'echo "$MY_TOKEN $OTHER_TOKEN" | tee out'}), "done"])
    plugins = load_plugins(scripted_plugin(backend), journal, entry_points=False)
    config = Config(backend="scripted", renderer="bytes", bash_env="MY_TOKEN, ANOTHER")
    async with await build(config, plugins, Additions(gates=[ApproveAll()])) as assembly:
        async for _ in assembly.agent.run("go"):
            pass
    assert (isolated / "work" / "out").read_text() == f"{KEY} \n"
    assert assembly.agent.conversation.messages[-2].content.strip() == "[secret MY_TOKEN]"
    lines = journal.path.read_text()
    assert KEY not in lines
    assert [json.loads(line)["event"] for line in lines.splitlines()][-1] == "Stopped"

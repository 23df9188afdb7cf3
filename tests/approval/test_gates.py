from continualcode.approval import ApproveAll, Callback, DenyAll, ReadOnly, Remember
from continualcode.types import Approve, Deny, ToolCall

READ = ToolCall("read", {"path": "a.py"})
WRITE = ToolCall("write", {"path": "a.py", "content": "x"})


async def test_read_only_approves_what_changes_nothing_and_leaves_the_rest():
    gate = ReadOnly()
    assert await gate.review(None, READ) == Approve()
    assert await gate.review(None, WRITE) is None
    assert await gate.review(None, ToolCall("bash", {"cmd": "ls"})) is None
    assert await ReadOnly({"look"}).review(None, READ) is None


async def test_remember_allows_the_exact_call_only():
    gate = Remember()
    assert await gate.review(None, WRITE) is None
    gate.allow_call(WRITE)
    assert await gate.review(None, WRITE) == Approve()
    assert await gate.review(None, ToolCall("write", {"path": "a.py", "content": "x "})) is None
    assert await gate.review(None, READ) is None


async def test_remember_allows_a_tool_until_it_forgets():
    gate = Remember()
    gate.allow_tool("write")
    assert await gate.review(None, WRITE) == Approve()
    gate.forget()
    assert await gate.review(None, WRITE) is None


async def test_blanket_gates():
    assert await ApproveAll().review(None, WRITE) == Approve()
    assert await DenyAll("no").review(None, WRITE) == Deny("no", teach=False)


async def test_any_function_sync_or_async_is_a_gate():
    async def later(turn, call):
        return Deny(f"not {call.name}")

    assert await Callback(lambda turn, call: Approve()).review(None, READ) == Approve()
    assert await Callback(lambda turn, call: None).review(None, READ) is None
    assert await Callback(later).review(None, READ) == Deny("not read")

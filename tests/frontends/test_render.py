import io

import pytest
from rich.console import Console

from continualcode.frontends.terminal.diff import diff
from continualcode.frontends.terminal.render import (
    Change,
    headline,
    render_call,
    render_malformed,
    render_reply,
    render_result,
)
from continualcode.types import Reply, ToolCall, ToolResult

HOSTILE = "\x1b]52;c;cm0=\x07\x1b[1A[bold red]hidden[/] [link=http://x]y[/link] :warning: \u202e"


def shown(*renderables, width=60, color=None):
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, force_terminal=color is not None, color_system=color)
    for renderable in renderables:
        console.print(renderable)
    return file.getvalue()


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (ToolCall("read", {"path": "a/b.py", "offset": 3}), "read a/b.py offset=3"),
        (ToolCall("read", {"path": "two words.py"}), 'read path="two words.py"'),
        (ToolCall("grep", {"pat": "x\ty", "path": "src"}), r'grep src pat="x\ty"'),
        (ToolCall("bash", {"cmd": "make\nmake test"}), "$ make\n  make test"),
        (ToolCall("bash", {"cmd": "ls", "now": True}), "$ ls now=true"),
    ],
)
def test_a_call_is_told_on_one_line_with_every_argument(call, line):
    assert headline(call).plain == line


def test_a_change_has_numbers_and_signs_and_colours():
    call = ToolCall("edit", {"path": "a.py", "old": "x", "new": "y", "all": True})
    change = Change(diff("x = 1\nkeep\n", "y = 1\nkeep\n"))
    lines = shown(render_call(call, change, limit=20).renderable).splitlines()
    assert [line.rstrip() for line in lines] == [
        "",
        "edit a.py all=true  +1 -1",
        "1 - x = 1",
        "1 + y = 1",
        "2   keep",
    ]
    coloured = shown(render_call(call, change, limit=20).renderable, color="standard")
    assert "\x1b[31mx = 1" in coloured
    assert "\x1b[32my = 1" in coloured


def test_a_long_change_is_shortened_saying_by_how_much():
    call = ToolCall("write", {"path": "a", "content": ""})
    change = Change(diff("", "".join(f"{number}\n" for number in range(100))), new_file=True)
    cut = render_call(call, change, limit=20)
    assert cut.shortened
    assert "80 more lines not shown (+80 -0)" in shown(cut.renderable)
    assert "(a new file)" in shown(cut.renderable)
    full = render_call(call, change, limit=None)
    assert not full.shortened
    assert "99" in shown(full.renderable)


@pytest.mark.parametrize(("new_file", "said"), [(True, "(empty)"), (False, "(nothing would change)")])
def test_a_change_without_lines_says_what_it_is(new_file, said):
    call = ToolCall("write", {"path": "a", "content": ""})
    assert said in shown(render_call(call, Change(diff("", ""), new_file=new_file), limit=20).renderable)


def test_without_a_change_long_arguments_have_a_block_of_their_own():
    call = ToolCall("note", {"title": "t", "body": "\n".join(f"row {number}" for number in range(30))})
    cut = render_call(call, None, "no such tool", limit=10)
    text = shown(cut.renderable)
    assert 'note title="t"' in text
    assert "| row 9\n| ... 20 more lines not shown" in text
    assert "this call would fail: no such tool" in text
    assert cut.shortened


@pytest.mark.parametrize(
    ("call", "change", "told"),
    [
        (ToolCall("bash", {"cmd": "x" * 5000}), None, "4,400 more characters"),
        (ToolCall("bash", {"cmd": "true\n" * 50 + "end"}), None, "41 more lines not shown"),
        (
            ToolCall("write", {"path": "a", "content": "x" * 5000}),
            Change(diff("", "x" * 5000)),
            "4,400 more characters",
        ),
    ],
)
def test_nothing_is_cut_without_saying_so_and_all_can_be_seen(call, change, told):
    cut = render_call(call, change, limit=10)
    assert cut.shortened
    assert told in shown(cut.renderable, width=2000)
    full = render_call(call, change, limit=None)
    assert not full.shortened
    whole = shown(full.renderable).replace("\n", "").replace(" ", "")
    assert whole.count("x") >= 5000 or whole.endswith("end")


def test_text_of_the_model_is_neither_markup_nor_escape_sequence():
    call = ToolCall(f"tool{HOSTILE}", {"path": HOSTILE, HOSTILE: HOSTILE, "rows": f"{HOSTILE}\n{HOSTILE}"})
    change = Change(diff("", f"{HOSTILE}\n"))
    reply = Reply(HOSTILE, HOSTILE, (call,), raw=HOSTILE)
    text = shown(
        render_call(call, change, HOSTILE, limit=None).renderable,
        *render_reply(reply),
        *render_malformed(reply, HOSTILE),
        render_result(ToolResult(HOSTILE)),
        render_result(ToolResult(HOSTILE, ok=False)),
        width=2000,
    )
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\u202e" not in text
    assert text.count(r"\x1b]52;c;cm0=\x07\x1b[1A[bold red]hidden[/] [link=http://x]y[/link] :warning: \u202e") >= 8


def test_nothing_is_wider_than_a_terminal_of_sixty_columns():
    long = "word " * 30 + "x" * 150
    call = ToolCall("edit", {"path": "p" * 100, "content": long})
    change = Change(diff("", f"{long}\n\t\t漢字{long}\n"))
    lines = shown(render_call(call, change, long, limit=20).renderable, *render_reply(Reply(long))).splitlines()
    assert max(len(line) for line in lines) <= 60
    assert "x" * 20 in "".join(lines)


def test_long_output_keeps_its_beginning_and_end():
    text = shown(render_result(ToolResult("\n".join(f"row {number}" for number in range(100)))))
    assert text.startswith("row 0\n")
    assert text.endswith("row 99\n")
    assert "... 85 lines not shown ..." in text
    assert len(text.splitlines()) == 16


def test_thinking_is_dimmed_and_an_answer_is_not():
    lines = list(render_reply(Reply("answer", "thought")))
    assert [(line.plain, str(line.style)) for line in lines if line.plain] == [
        ("thought", "dim italic"),
        ("answer", ""),
    ]

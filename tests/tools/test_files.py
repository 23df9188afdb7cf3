import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continualcode.errors import ToolError
from continualcode.tools import Workspace, preview
from continualcode.tools.text import Text
from continualcode.types import ToolCall

# read


async def test_read_numbers_lines_and_says_how_to_read_on(root: Path, use):
    (root / "a.txt").write_text("".join(f"line {n}\n" for n in range(1, 13)))
    assert (await use("read", path="a.txt", offset=9, limit=2)).output == (
        " 9| line 9\n10| line 10\n... lines 11 to 12 not shown; read on with offset 11"
    )
    assert (await use("read", path="a.txt", offset=12)).output == "12| line 12"
    assert (await use("read", path="a.txt", offset=11)).output == "11| line 11\n12| line 12"


async def test_read_is_capped_in_lines_and_in_characters_and_long_lines_are_clipped(root: Path, use):
    (root / "many").write_text("x\n" * 200_000)
    (root / "wide").write_text(("y" * 900 + "\n") * 500)
    (root / "one").write_text("z" * 5_000_000)
    many = (await use("read", path="many")).output
    assert many.endswith("1000| x\n... lines 1001 to 200000 not shown; read on with offset 1001")
    wide = (await use("read", path="wide")).output
    assert len(wide) < 33_000
    assert wide.endswith("... lines 36 to 500 not shown; read on with offset 36")
    one = (await use("read", path="one")).output
    assert one == f"1| {'z' * 1000} ... 4,999,000 more characters"


async def test_read_says_what_is_wrong(root: Path, use):
    (root / "src").mkdir()
    (root / "src" / "main.py").write_text("a\nb\n")
    (root / "empty").write_text("")
    (root / "image.png").write_bytes(b"\x89PNG\0\0")
    assert (await use("read", path="empty")).output == "empty is empty"
    for arguments, said in [
        ({"path": "src/mian.py"}, "no file src/mian.py; did you mean src/main.py?"),
        ({"path": "nowhere/x"}, "no file nowhere/x; find it with glob"),
        ({"path": "src"}, "src is a folder; list it with glob, pat '*' and this path"),
        ({"path": "image.png"}, "image.png is a binary file of 6 bytes, not text"),
        ({"path": "src/main.py", "offset": 3}, "src/main.py has 2 lines; there is no line 3"),
        ({"path": "src/main.py", "offset": 0}, "offset and limit count lines from 1, not 0"),
        ({"path": "../x"}, "outside the workspace: ../x; give a path relative to the workspace"),
    ]:
        result = await use("read", **arguments)
        assert (result.output, result.ok) == (said, False)


async def test_only_newlines_break_lines_and_stray_bytes_can_be_printed(root: Path, use):
    (root / "odd").write_bytes("one\x0cstill\u2028one\r\ntwo ".encode() + b"\xff\n")
    assert (await use("read", path="odd")).output == "1| one\x0cstill\u2028one\n2| two \ufffd"


# write


async def test_write_creates_with_folders_and_overwrites(root: Path, use):
    assert (await use("write", path="a/b.txt", content="one\ntwo")).output == "created a/b.txt: 2 lines"
    assert (root / "a/b.txt").read_bytes() == b"one\ntwo"
    assert (await use("write", path="a/b.txt", content="")).output == "overwrote a/b.txt: 0 lines"
    assert (root / "a/b.txt").read_bytes() == b""


async def test_write_keeps_newline_style_byte_order_mark_and_mode(root: Path, change):
    (root / "a.bat").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\n")
    (root / "a.bat").chmod(0o755)
    assert (await change("write", path="a.bat", content="three\nfour\r\n")).ok
    assert (root / "a.bat").read_bytes() == b"\xef\xbb\xbfthree\r\nfour\r\n"
    assert stat.S_IMODE((root / "a.bat").stat().st_mode) == 0o755


async def test_write_refuses_folders_and_half_characters(root: Path, use):
    (root / "src").mkdir()
    for path, content, said in [
        ("src", "x", "src is a folder"),
        ("new/", "x", "new/ is a folder"),
        ("a", "x\ud800", "not valid Unicode at character 1"),
    ]:
        result = await use("write", path=path, content=content)
        assert not result.ok
        assert said in result.output
    assert os.listdir(root) == ["src"]


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("write", {"content": "x"}),
        ("edit", {"old": "secret", "new": "x"}),
        ("edit_lines", {"start_line": 1, "end_line": 1, "content": "x"}),
    ],
)
@pytest.mark.parametrize("path", ["link", "../outside", "folder/outside", "~/outside"])
async def test_no_file_tool_writes_outside_the_workspace(tmp_path: Path, root: Path, use, name, arguments, path):
    (tmp_path / "outside").write_text("secret\n")
    (root / "link").symlink_to(tmp_path / "outside")
    (root / "folder").symlink_to(tmp_path)
    assert not (await use(name, path=path, **arguments)).ok
    assert (tmp_path / "outside").read_text() == "secret\n"
    assert sorted(os.listdir(root)) == ["folder", "link"]


# edit


async def test_edit_replaces_the_one_match(root: Path, change):
    (root / "a.py").write_text("x = 1\ny = 2\n")
    assert (await change("edit", path="a.py", old="y = 2", new="y = 3")).output == "edited a.py at line 2"
    assert (root / "a.py").read_text() == "x = 1\ny = 3\n"


async def test_edit_takes_new_literally_line_numbers_escapes_and_all(root: Path, change):
    (root / "a").write_text("here\n")
    new = "10 - ten\n 3| \\1 \\g<0> three  \n\n"
    assert (await change("edit", path="a", old="here", new=new)).ok
    assert (root / "a").read_text() == new + "\n"


async def test_edit_refuses_several_matches_unless_all(root: Path, change):
    (root / "a").write_text("x\ny\nx\nx\n")
    refused = await change("edit", path="a", old="x", new="z")
    assert not refused.ok
    assert "old occurs 3 times in a, at lines 1, 3, 4" in refused.output
    assert (root / "a").read_text() == "x\ny\nx\nx\n"
    (root / "b").write_text("x x")
    assert not (await change("edit", path="b", old="x", new="z")).ok
    assert (await change("edit", path="a", old="x", new="z", all=True)).output == "replaced 3 times in a"
    assert (root / "a").read_text() == "z\ny\nz\nz\n"


async def test_edit_names_the_nearest_lines_on_a_miss(root: Path, use):
    (root / "a.py").write_text("import os\n\ndef area(width, height):\n    return width * height\n\ndef other(): ...\n")
    missed = await use("edit", path="a.py", old="def area(w, height):\n    return w * height", new="x")
    assert not missed.ok
    assert missed.output == (
        "old is not in a.py; it must match exactly. The nearest is at line 3:\n"
        "3| def area(width, height):\n4|     return width * height"
    )
    blank = await use("edit", path="a.py", old="def area(width, height):\n  return width * height", new="x")
    assert "at line 3, and differs in white space only:" in blank.output
    assert "nor anything like it" in (await use("edit", path="a.py", old="qqqqqqqq", new="x")).output
    numbered = await use("edit", path="a.py", old="3| def area(width, height):\n4|     return width", new="x")
    assert "leave out the line numbers" in numbered.output


async def test_edit_refuses_what_would_change_nothing(root: Path, use):
    (root / "a").write_text("x\n")
    assert "old is empty" in (await use("edit", path="a", old="", new="y")).output
    assert "nothing would change" in (await use("edit", path="a", old="x", new="x")).output
    assert (root / "a").read_text() == "x\n"


async def test_edit_matches_and_keeps_crlf(root: Path, change):
    (root / "a").write_bytes(b"one\r\ntwo\r\nthree\r\n")
    assert (await change("edit", path="a", old="one\ntwo\n", new="1\n2\n\n")).ok
    assert (root / "a").read_bytes() == b"1\r\n2\r\n\r\nthree\r\n"


async def test_edit_leaves_all_it_does_not_touch_byte_for_byte(root: Path, change):
    (root / "a").write_bytes(b"\xef\xbb\xbfcaf\xe9 \xff\r\nmixed\nx = 1\r\nlone\rcr\r\nend \xf0\x9f\x98\x80")
    (root / "a").chmod(0o640)
    assert (await change("edit", path="a", old="x = 1", new="x = 2")).ok
    assert (root / "a").read_bytes() == b"\xef\xbb\xbfcaf\xe9 \xff\r\nmixed\nx = 2\r\nlone\rcr\r\nend \xf0\x9f\x98\x80"
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o640


async def test_a_miss_in_a_large_file_is_told_quickly(root: Path, use):
    (root / "a").write_text("".join(f"value_{n} = compute(n, {n})\n" for n in range(20_000)))
    before = os.times().elapsed
    missed = await use("edit", path="a", old="value_77 = compute(m, 77)\n" * 30, new="x")
    assert "The nearest is at line" in missed.output
    assert os.times().elapsed - before < 5


# edit_lines


@pytest.mark.parametrize(
    ("before", "start", "end", "content", "after"),
    [
        (b"a\nb\nc\n", 2, 2, "B", b"a\nB\nc\n"),
        (b"a\nb\nc\n", 2, 3, "B\n", b"a\nB\n"),
        (b"a\nb\nc\n", 1, 2, "x\n\ny", b"x\n\ny\nc\n"),
        (b"a\nb\nc\n", 2, 2, "", b"a\nc\n"),
        (b"a\nb\nc\n", 2, 2, "\n", b"a\n\nc\n"),
        (b"a\n", 1, 1, "", b""),
        (b"a\nb\n", 3, 2, "c", b"a\nb\nc\n"),
        (b"a\nb\n", 3, 3, "c\nd\n", b"a\nb\nc\nd\n"),
        (b"", 1, 0, "new", b"new\n"),
        (b"", 1, 1, "new\n", b"new\n"),
        (b"a\nb", 2, 2, "B\n", b"a\nB"),
        (b"a\nb", 3, 3, "c", b"a\nb\nc"),
        (b"a\nb", 2, 2, "", b"a"),
        (b"a\r\nb\r\n", 2, 2, "x\ny", b"a\r\nx\r\ny\r\n"),
        (b"a\r\nb\r\n", 3, 3, "c\r\n", b"a\r\nb\r\nc\r\n"),
        (b"a\r\nb", 3, 3, "c", b"a\r\nb\r\nc"),
        (b"\xef\xbb\xbfa\n\xff\n", 1, 1, "z", b"\xef\xbb\xbfz\n\xff\n"),
        (b"a\r\nb\nc\n", 3, 3, "C", b"a\r\nb\nC\n"),
        (b"a\n", 1, 1, "10 - ten\n  3| x ", b"10 - ten\n  3| x \n"),
    ],
)
async def test_edit_lines_replaces_appends_fills_and_deletes(root: Path, change, before, start, end, content, after):
    (root / "a").write_bytes(before)
    assert (await change("edit_lines", path="a", start_line=start, end_line=end, content=content)).ok
    assert (root / "a").read_bytes() == after


async def test_edit_lines_says_what_lines_there_are(root: Path, change):
    (root / "a").write_text("a\nb\n")
    for start, end in [(0, 1), (2, 1), (1, 3), (4, 4), (-1, -1), (3, 4)]:
        result = await change("edit_lines", path="a", start_line=start, end_line=end, content="x")
        assert result.output == (
            f"no lines {start} to {end} in a, which has 2 lines; lines count from 1, and start_line 3 appends"
        )
    assert "nothing to append" in (await change("edit_lines", path="a", start_line=3, end_line=3, content="")).output
    done = await change("edit_lines", path="a", start_line=1, end_line=2, content="x\ny\nz")
    assert done.output == "a: 3 lines in place of lines 1 to 2; it has 3 lines now"


async def test_a_file_is_changed_only_as_it_was_read(root: Path, use):
    change = {
        "write": {"content": "b\n"},
        "edit": {"old": "a", "new": "b"},
        "edit_lines": {"start_line": 1, "end_line": 1, "content": "b"},
    }
    for name, arguments in change.items():
        (root / name).write_text("a\n")
        unread = await use(name, path=name, **arguments)
        assert (unread.output, unread.ok) == (
            f"not changed: {name} exists and you have not read it; read it first",
            False,
        )
        await use("read", path=f"./{name}")
        (root / name).write_text("a \n")
        stale = await use(name, path=name, **arguments)
        assert (stale.output, stale.ok) == (f"not changed: {name} has changed since you read it; read it again", False)
        assert (root / name).read_text() == "a \n"
        await use("read", path=name)
        assert (await use(name, path=name, **arguments)).ok
        assert (root / name).read_text().strip() == "b"


async def test_what_the_model_wrote_itself_counts_as_read_until_something_else_changes_it(root: Path, use):
    await use("write", path="new", content="one\n")
    assert (await use("edit", path="new", old="one", new="two")).ok
    assert (await use("edit_lines", path="new", start_line=1, end_line=1, content="three")).ok
    assert (await use("bash", cmd="echo four > new; echo five > made")).ok
    for path in ("new", "made"):
        assert not (await use("write", path=path, content="six")).ok
    assert [(root / path).read_text() for path in ("new", "made")] == ["four\n", "five\n"]


async def test_a_binary_file_cannot_be_read_and_so_not_be_overwritten(root: Path, use):
    (root / "image.png").write_bytes(b"\x89PNG\0\0")
    refused = await use("write", path="image.png", content="x")
    assert (refused.output, refused.ok) == ("image.png is a binary file of 6 bytes, not text", False)


async def test_a_failed_write_does_not_count_as_reading(root: Path, use):
    (root / "a").write_text("theirs\n")
    for _ in range(2):
        assert not (await use("write", path="a", content="mine")).ok
    assert (root / "a").read_text() == "theirs\n"


@pytest.mark.parametrize("existed", [True, False])
async def test_a_file_that_changes_while_it_is_written_is_left_alone(root: Path, use, monkeypatch, existed):
    if existed:
        (root / "new").mkdir()
        (root / "new/a").write_text("one\n")
        await use("read", path="new/a")
    flush = os.fsync

    def meanwhile(descriptor: int) -> None:
        flush(descriptor)
        (root / "new/a").write_text("theirs\n")

    monkeypatch.setattr(os, "fsync", meanwhile)
    refused = await use("write", path="new/a", content="mine")
    assert not refused.ok
    assert "read it" in refused.output
    assert (root / "new/a").read_text() == "theirs\n"
    assert os.listdir(root / "new") == ["a"]


@pytest.mark.parametrize(
    ("path", "before", "broken", "said"),
    [
        ("a.py", "x = 1\ny = 2\n", "x = (1", "line 1: '(' was never closed"),
        ("a.PYI", "x: int\ny: int\n", "  x: int", "line 1: unexpected indent"),
        ("a.json", '{"x":\n1}\n', '{"x"', "line 2: Expecting ':' delimiter"),
        ("a.toml", "x = 1\ny = 2\n", "y = 1", "Cannot overwrite a value (at line 2, column 6)"),
    ],
)
async def test_an_edit_that_breaks_the_syntax_is_refused_with_error_and_line(
    root: Path, change, path, before, broken, said
):
    (root / path).write_text(before)
    first = before.splitlines()[0]
    for name, arguments in [
        ("edit", {"old": first, "new": broken}),
        ("edit_lines", {"start_line": 1, "end_line": 1, "content": broken}),
    ]:
        refused = await change(name, path=path, **arguments)
        assert (refused.output, refused.ok) == (f"not changed: {path} would no longer parse. {said}", False)
        assert (root / path).read_text() == before


@pytest.mark.parametrize("path", ["a.py", "a.json", "a.toml"])
async def test_a_file_that_did_not_parse_may_be_edited_step_by_step(root: Path, change, path):
    (root / path).write_text("<<<<<<< ours\n{{ x }}\n")
    assert (await change("edit", path=path, old="ours", new="theirs")).ok
    assert (await change("edit_lines", path=path, start_line=1, end_line=1, content="((")).ok


async def test_syntax_is_judged_by_the_bytes_whatever_their_encoding(root: Path, change):
    for path, data in [
        ("latin.py", b"# coding: latin-1\nx = '\xe9'\n"),
        ("mark.py", b"\xef\xbb\xbfx = 1\n"),
        ("mark.toml", b"\xef\xbb\xbfx = 1\n"),
        ("stray.py", b"x = '\xe9'\n"),
    ]:
        (root / path).write_bytes(data)
        assert (await change("edit", path=path, old="x", new="y")).ok
        assert (root / path).read_bytes() == data.replace(b"x", b"y")


async def test_what_python_gives_up_on_is_refused_and_not_a_failure_of_the_tool(root: Path, change):
    (root / "a.json").write_text("[1]\n")
    refused = await change("edit", path="a.json", old="1", new="[" * 200_000)
    assert refused.output == "not changed: a.json would no longer parse. nested too deeply to be parsed"


# preview


def test_a_preview_is_what_the_call_then_writes_and_writes_nothing_itself(root: Path, workspace: Workspace):
    (root / "a").write_bytes(b"one\r\ntwo\r\n")
    assert workspace.unread("a") == "not changed: a exists and you have not read it; read it first"
    calls = [
        ToolCall("edit", {"path": "./a", "old": "one\n", "new": "1\n"}),
        ToolCall("edit_lines", {"path": "a", "start_line": "3", "end_line": 3, "content": "three"}),
        ToolCall("write", {"path": "a", "content": "all\nnew"}),
        ToolCall("write", {"path": "b", "content": "b\n"}),
    ]
    texts = []
    for call in calls:
        before = {item.name: item.read_bytes() for item in root.iterdir()}
        seen = preview(workspace, call)
        assert seen is not None
        assert {item.name: item.read_bytes() for item in root.iterdir()} == before
        workspace.write(seen[0], seen[2].encode())
        texts.append(seen)
    assert texts == [
        ("a", "one\r\ntwo\r\n", "1\r\ntwo\r\n"),
        ("a", "1\r\ntwo\r\n", "1\r\ntwo\r\nthree\r\n"),
        ("a", "1\r\ntwo\r\nthree\r\n", "all\r\nnew"),
        ("b", "", "b\n"),
    ]


def test_calls_that_write_no_file_have_no_preview_and_failing_ones_say_why(root: Path, workspace: Workspace):
    assert preview(workspace, ToolCall("bash", {"cmd": "ls"})) is None
    assert preview(workspace, ToolCall("read", {"path": "a"})) is None
    for call, said in [
        (ToolCall("edit", {"path": "a", "old": "x", "new": "y"}), "no file a"),
        (ToolCall("write", {"path": "../a", "content": "x"}), "outside"),
        (ToolCall("write", {"content": "x"}), "'path' is missing"),
    ]:
        with pytest.raises(ToolError, match=said):
            preview(workspace, call)


def test_a_preview_can_always_be_printed(root: Path, workspace: Workspace):
    (root / "a").write_bytes(b"\xff x")
    assert preview(workspace, ToolCall("edit", {"path": "a", "old": "x", "new": "y"})) == ("a", "\ufffd x", "\ufffd y")


# text


@given(st.binary(max_size=60) | st.text(alphabet="a\r\n\ufeff é", max_size=30).map(str.encode))
@settings(max_examples=300)
def test_any_bytes_survive_as_text_and_as_lines(data: bytes):
    text = Text.decode(data)
    assert text.encode() == data
    lines = text.lines()
    assert "".join(line + ending for line, ending in lines) == text.body
    assert all(ending for _, ending in lines[:-1])
    assert text.spliced(len(lines) + 1, len(lines), []) == text.body

"""The tools that read and change single files: read, write, edit, edit_lines; and what a change would look like.

Knows nothing of approval: `preview` and the tools compute a change through the very same functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice

from continualcode.errors import ToolError
from continualcode.tools.registry import FunctionTool, tool
from continualcode.tools.syntax import broken_syntax
from continualcode.tools.text import Text, is_binary, nearest_lines, shown, tolerant, without_numbers
from continualcode.tools.workspace import Workspace
from continualcode.types import ToolCall

MAX_LINES = 1000
MAX_CHARACTERS = 32_000
MAX_LINE = 1000
_NEAREST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class _Change:
    """A change that has been worked out and not made."""

    path: str
    before: bytes | None
    """None: there is no such file yet."""
    after: bytes
    said: str
    """What the model is told once it is made."""


def preview(workspace: Workspace, call: ToolCall) -> tuple[str, str, str] | None:
    """Path, text before and text after of what the call would write; None for a call that writes no file.

    Writes nothing. Raises ToolError when there is no such change as things are now; that the model must read the file
    first is left to `Workspace.unread`, so that a person still sees what it had in mind.
    """
    planner = _PLANNERS.get(call.name)
    if planner is None:
        return None
    change = planner(workspace, **_writers(workspace)[call.name].arguments(call.arguments))
    return change.path, shown(Text.decode(change.before or b"").body), shown(Text.decode(change.after).body)


def file_tools(workspace: Workspace) -> list[FunctionTool]:
    """read, write, edit and edit_lines on the files of one workspace."""

    @tool
    def read(path: str, offset: int = 1, limit: int = MAX_LINES) -> str:
        """Show a file with line numbers.

        Args:
            offset: first line to show, from 1
        """
        if offset < 1 or limit < 1:
            raise ToolError(f"offset and limit count lines from 1, not {min(offset, limit)}")
        data = _read(workspace, path)
        workspace.note_seen(path, data)
        return _numbered(path, Text.decode(data), offset, limit)

    return [read, *_writers(workspace).values()]


def _writers(workspace: Workspace) -> dict[str, FunctionTool]:
    @tool
    def write(path: str, content: str) -> str:
        """Create a file or overwrite all of it."""
        return _make(workspace, _plan_write(workspace, path, content))

    @tool
    def edit(path: str, old: str, new: str, all: bool = False) -> str:
        """Replace the exact text old, which must occur once, by new.

        Args:
            all: replace every occurrence
        """
        return _make(workspace, _plan_edit(workspace, path, old, new, all))

    @tool
    def edit_lines(path: str, start_line: int, end_line: int, content: str) -> str:
        """Replace lines start_line to end_line. One past the last line appends; empty content deletes."""
        return _make(workspace, _plan_edit_lines(workspace, path, start_line, end_line, content))

    return {made.spec.name: made for made in (write, edit, edit_lines)}


def _make(workspace: Workspace, change: _Change) -> str:
    workspace.replace(change.path, change.before, change.after)
    return change.said


def _plan_write(workspace: Workspace, path: str, content: str) -> _Change:
    _check_unicode("content", content)
    target = workspace.resolve(path)
    if path.endswith("/") or target.is_dir():
        raise ToolError(f"{path} is a folder, not a file")
    before = _read(workspace, path) if target.exists() else None  # what read cannot show cannot have been read
    text = Text.decode(before or b"")
    after = Text(text.styled(content), text.marked)
    said = f"{'created' if before is None else 'overwrote'} {path}: {_counted(len(after.lines()), 'line')}"
    return _Change(workspace.relative(target), before, after.encode(), said)


def _plan_edit(workspace: Workspace, path: str, old: str, new: str, all: bool) -> _Change:
    _check_unicode("new", new)
    if not old:
        raise ToolError("old is empty; to add lines use edit_lines, to fill a file use write")
    if old == new:
        raise ToolError("old and new are the same; nothing would change")
    before = _read(workspace, path)
    text = Text.decode(before)
    pattern = tolerant(old)
    starts = [text.body.count("\n", 0, found.start()) + 1 for found in islice(pattern.finditer(text.body), 1001)]
    if not starts:
        raise ToolError(_miss(path, text, old))
    if len(starts) > 1 and not all:
        raise ToolError(
            f"old occurs {_times(starts)} in {path}, at lines {_listed(starts)}; "
            "add lines around it to say which, or set all to true"
        )
    styled = text.styled(new)
    after = Text(pattern.sub(lambda _: styled, text.body), text.marked)
    said = f"edited {path} at line {starts[0]}" if len(starts) == 1 else f"replaced {_times(starts)} in {path}"
    return _parsing(_Change(workspace.relative(workspace.resolve(path)), before, after.encode(), said))


def _plan_edit_lines(workspace: Workspace, path: str, start_line: int, end_line: int, content: str) -> _Change:
    _check_unicode("content", content)
    before = _read(workspace, path)
    text = Text.decode(before)
    last = len(text.lines())
    appends = start_line == last + 1 and end_line in (last, last + 1)
    if not (appends or 1 <= start_line <= end_line <= last):
        raise ToolError(
            f"no lines {start_line} to {end_line} in {path}, which has {_counted(last, 'line')}; "
            f"lines count from 1, and start_line {last + 1} appends"
        )
    new = re.sub(r"\r?\n\Z", "", content).split("\n") if content else []
    if appends and not new:
        raise ToolError("content is empty; there is nothing to append")
    new = [line.removesuffix("\r") for line in new] if text.newline == "\r\n" else new
    after = Text(text.spliced(start_line, end_line, new), text.marked)
    where = f"after line {last}" if appends else f"in place of lines {start_line} to {end_line}"
    said = f"{path}: {_counted(len(new), 'line')} {where}; it has {_counted(len(after.lines()), 'line')} now"
    return _parsing(_Change(workspace.relative(workspace.resolve(path)), before, after.encode(), said))


def _parsing(change: _Change) -> _Change:
    """The change, unless it breaks the syntax of a file that parses."""
    if (error := broken_syntax(change.path, change.before or b"", change.after)) is not None:
        raise ToolError(f"not changed: {change.path} would no longer parse. {error}")
    return change


_PLANNERS: Mapping[str, Callable[..., _Change]] = {
    "write": _plan_write,
    "edit": _plan_edit,
    "edit_lines": _plan_edit_lines,
}


def _read(workspace: Workspace, path: str) -> bytes:
    """The bytes of a text file. Raises ToolError with a hint when there is none."""
    target = workspace.resolve(path)
    if target.is_dir():
        raise ToolError(f"{path} is a folder; list it with glob, pat '*' and this path")
    if not target.exists():
        beside = target.parent.iterdir() if target.parent.is_dir() else ()
        close = get_close_matches(target.name, [item.name for item in islice(beside, 2000)], n=1)
        hint = f"did you mean {workspace.relative(target.parent / close[0])}?" if close else "find it with glob"
        raise ToolError(f"no file {path}; {hint}")
    data = workspace.read(path)
    if is_binary(data):
        raise ToolError(f"{path} is a binary file of {len(data):,} bytes, not text")
    return data


def _numbered(path: str, text: Text, offset: int, limit: int) -> str:
    lines = text.lines()
    if not lines:
        return f"{path} is empty"
    if offset > len(lines):
        raise ToolError(f"{path} has {_counted(len(lines), 'line')}; there is no line {offset}")
    width = len(str(min(len(lines), offset + limit - 1)))
    out: list[str] = []
    size = 0
    for number, (line, _) in enumerate(lines[offset - 1 : offset - 1 + limit], offset):
        entry = f"{number:>{width}}| {_clip(shown(line))}"
        size += len(entry) + 1
        if size > MAX_CHARACTERS:
            break
        out.append(entry)
    following = offset + len(out)
    if following <= len(lines):
        out.append(f"... lines {following} to {len(lines)} not shown; read on with offset {following}")
    return "\n".join(out)


def _clip(line: str) -> str:
    return line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} ... {len(line) - MAX_LINE:,} more characters"


def _miss(path: str, text: Text, old: str) -> str:
    if (bare := without_numbers(old)) != old and bare and tolerant(bare).search(text.body):
        return f"old is not in {path} as written; leave out the line numbers that read shows"
    found = nearest_lines(text.body, old)
    if found is None:
        return f"old is not in {path}, nor anything like it; read the file first"
    start, window = found
    nearest = "\n".join(f"{start + index}| {_clip(shown(line))}" for index, line in enumerate(window[:_NEAREST_SHOWN]))
    why = ", and differs in white space only" if "".join(old.split()) == "".join("".join(window).split()) else ""
    return f"old is not in {path}; it must match exactly. The nearest is at line {start}{why}:\n{nearest}"


def _check_unicode(name: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ToolError(f"{name} is not valid Unicode at character {error.start}; half a surrogate pair") from error


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _times(starts: list[int]) -> str:
    return f"{len(starts)} times" if len(starts) <= 1000 else "more than 1,000 times"


def _listed(numbers: list[int]) -> str:
    return ", ".join(str(number) for number in numbers[:10]) + (", ..." if len(numbers) > 10 else "")

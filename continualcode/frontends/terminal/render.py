"""Calls, replies and results as rich renderables. Pure: values in, renderables out; all text is made safe to print."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from continualcode.frontends.safe import visible
from continualcode.frontends.terminal.diff import Diff, DiffLine
from continualcode.frontends.terminal.report import counted
from continualcode.types import Json, Reply, ToolCall, ToolResult, thaw

LINE_CHARACTERS = 600
"""Longer lines are shortened, in what can be shown in full as well as in results."""
RESULT_LINES = 16
THINKING_LINES = 12

_STYLES = {"added": "green", "removed": "red", "context": "", "gap": "dim", "note": "dim"}
_SIGNS = {"added": "+", "removed": "-", "context": " ", "gap": "~", "note": "\\"}
_IN_THE_DIFF = frozenset({"content", "old", "new"})


@dataclass(frozen=True, slots=True)
class Change:
    """What a call would do to a file, worked out now."""

    diff: Diff
    new_file: bool = False


@dataclass(frozen=True, slots=True)
class ShownCall:
    """A call ready to print; `shortened` when there is more of it than that."""

    renderable: RenderableType
    shortened: bool


def render_call(call: ToolCall, change: Change | None, problem: str | None = None, *, limit: int | None) -> ShownCall:
    """The call with every argument, the change to its file as a diff; `problem` says why it would fail.

    A change or argument of more than `limit` lines is shortened, saying by how much.
    """
    hidden = _IN_THE_DIFF if change is not None else frozenset()
    head = headline(call, hidden, limit)
    if change is not None:
        head.append(f"  +{change.diff.added} -{change.diff.removed}", style="dim")
        head.append(" (a new file)" if change.new_file else "", style="dim")
    parts: list[RenderableType] = [Text(), head]
    parts += [_block(name, value, limit) for name, value in call.arguments.items() if _needs_block(call, name, hidden)]
    if change is not None:
        parts += _render_change(change, limit)
    if problem is not None:
        parts.append(Text(f"this call would fail: {visible(problem)}", style="yellow"))
    return ShownCall(Group(*parts), limit is not None and _is_long(call, change, limit))


def headline(call: ToolCall, hidden: Collection[str] = (), limit: int | None = None) -> Text:
    """The call on one line (a command on as many as it has); multi-line arguments are left to a block of their own."""
    arguments = dict(call.arguments)
    command = arguments.pop("cmd", None) if call.name == "bash" else None
    if isinstance(command, str):
        shown = Text("$ ", style="bold magenta")
        shown.append(_cut(visible(command), limit).replace("\n", "\n  "), style="bold")
    else:
        shown = Text(visible(call.name), style="bold magenta")
        if isinstance(path := arguments.get("path"), str) and path.split() == [path]:
            shown.append(f" {_cut(visible(path), limit)}", style="bold")
            del arguments["path"]
        if command is not None:
            arguments["cmd"] = command
    for name, value in arguments.items():
        if name not in hidden and not _needs_block(call, name, hidden):
            shown.append(f" {visible(name)}={_cut(visible(_compact(value)), limit)}")
    return shown


def render_reply(reply: Reply) -> Iterator[Text]:
    """Thinking and text around a call, dimmed apart from it."""
    if reply.thinking.strip() or reply.text.strip():
        yield Text()
    if reply.thinking.strip():
        yield Text(_middle_cut(visible(reply.thinking.strip()), THINKING_LINES), style="dim italic")
    if reply.text.strip():
        yield Text(visible(reply.text.strip()), style="" if not reply.calls else "dim")


def render_malformed(reply: Reply, problem: str) -> Iterator[Text]:
    """The reply as it came, and what was wrong with it."""
    yield Text(_middle_cut(visible((reply.raw or reply.text).strip()) or "(nothing)", RESULT_LINES), style="dim")
    yield Text(f"not one valid call: {visible(problem)}", style="yellow")


def render_result(result: ToolResult) -> Text:
    """What the tool said, the middle of long output left out."""
    output = _middle_cut(visible(result.output.rstrip()), RESULT_LINES) or "(no output)"
    return Text(output, style="dim") if result.ok else Text(f"failed: {output}", style="yellow")


def _render_change(change: Change, limit: int | None) -> Iterator[RenderableType]:
    lines = change.diff.lines if limit is None else change.diff.lines[:limit]
    if not change.diff.lines:
        yield Text("(empty)" if change.new_file else "(nothing would change)", style="dim")
        return
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(justify="right", style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for line in lines:
        table.add_row(*_row(line, limit))
    yield table
    if left := change.diff.lines[len(lines) :]:
        added = sum(line.kind == "added" for line in left)
        removed = sum(line.kind == "removed" for line in left)
        rest = f"... {counted(len(left), 'more line')} not shown (+{added} -{removed})"
        yield Text(rest, style="yellow")


def _row(line: DiffLine, limit: int | None) -> tuple[Text, Text, Text]:
    style = _STYLES[line.kind]
    number = "" if line.number is None else str(line.number)
    text = Text(_cut(visible(line.text), limit), style=style, tab_size=4)
    return Text(number), Text(_SIGNS[line.kind], style=style), text


def _needs_block(call: ToolCall, name: str, hidden: Collection[str]) -> bool:
    """Whether the argument has lines and neither the diff nor the command line shows them."""
    value = call.arguments[name]
    lines = isinstance(value, str) and "\n" in value
    return lines and name not in hidden and (call.name, name) != ("bash", "cmd")


def _block(name: str, value: Json, limit: int | None) -> Text:
    body = _cut(visible(str(value)), limit).replace("\n", "\n| ")
    return Text(f"{visible(name)}:", style="dim").append(f"\n| {body}", style="default")


def _is_long(call: ToolCall, change: Change | None, limit: int) -> bool:
    """Whether anything of it is cut at `limit` lines."""
    values = [value if isinstance(value, str) else _compact(value) for value in call.arguments.values()]
    if change is None:
        return any(_cut(visible(value), limit) != visible(value) for value in values)
    lines = change.diff.lines
    return len(lines) > limit or any(_cut(visible(line.text), limit) != visible(line.text) for line in lines)


def _cut(text: str, limit: int | None) -> str:
    """At most `limit` lines, and of each line at most LINE_CHARACTERS, saying how much is left out."""
    if limit is None:
        return text
    lines = text.split("\n")
    kept = [_clip(line) for line in lines[:limit]]
    if len(lines) > limit:
        kept.append(f"... {counted(len(lines) - limit, 'more line')} not shown")
    return "\n".join(kept)


def _clip(line: str) -> str:
    left = len(line) - LINE_CHARACTERS
    return line if left <= 0 else f"{line[:LINE_CHARACTERS]} ... {counted(left, 'more character')}"


def _middle_cut(text: str, limit: int) -> str:
    lines = [_clip(line) for line in text.split("\n")]
    if len(lines) <= limit:
        return "\n".join(lines)
    tail = limit // 2
    head = limit - tail - 1
    return "\n".join([*lines[:head], f"... {counted(len(lines) - head - tail, 'line')} not shown ...", *lines[-tail:]])


def _compact(value: Json) -> str:
    return json.dumps(thaw(value), ensure_ascii=False)

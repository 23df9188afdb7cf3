"""The habits that benchmarks/corrections.py corrects: the reason, the call that obeys it, the usual one, and how to tell.

Nothing of this stands in the cold-start data (tests/test_corrections.py checks it). What is called usual was looked up:
it is what the embedded model proposes before any correction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import corrections_requests as requests

from continualcode.types import ToolCall

TRAINING = 4
"""So many of a habit's requests are corrected at most; the others are held out."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a call begins: its JSON up to and including `upto`."""

    call: ToolCall
    upto: str


@dataclass(frozen=True, slots=True)
class Ask:
    """A request with a call that obeys the correction and the ways calls begin that obey it and that do not."""

    text: str
    right: ToolCall
    choice: str
    """The JSON of the right call up to where it is chosen."""
    complying: tuple[Beginning, ...]
    violating: tuple[Beginning, ...]


@dataclass(frozen=True, slots=True)
class Habit:
    name: str
    kind: str
    about: str
    """What its requests are about; unrelated requests are about something else."""
    reason: str
    complies: Callable[[ToolCall], bool]
    asks: tuple[Ask, ...]
    by_beginning: bool = True
    """Whether a call complies only if it begins as the asks say."""

    @property
    def training(self) -> tuple[Ask, ...]:
        return self.asks[:TRAINING]

    @property
    def held_out(self) -> tuple[Ask, ...]:
        return self.asks[TRAINING:]


def unrelated(habit: Habit) -> list[str]:
    """24 requests that have nothing to do with the habit."""
    return [text for text, about in requests.UNRELATED if about != habit.about][:24]


def _bash(cmd: str) -> ToolCall:
    return ToolCall("bash", {"cmd": cmd})


def _command(beginning: str) -> Beginning:
    return Beginning(_bash(f"{beginning} x"), f'"cmd": "{beginning}')


def _tool(name: str) -> Beginning:
    return Beginning(ToolCall(name, {"path": "x"}), f'"name": "{name}"')


def _calling(tool: str) -> Callable[[ToolCall], bool]:
    return lambda call: call.name == tool


def _running(beginning: str) -> Callable[[ToolCall], bool]:
    return lambda call: call.name == "bash" and str(call.arguments.get("cmd", "")).startswith(beginning)


Rows = Sequence[tuple[str, str]]


def _command_habit(kind: str, about: str, right: str, usual: Sequence[str], rows: Rows, reason: str = "") -> Habit:
    """bash(`right` ...) in place of bash(`usual` ...); a row is a request and the command's further words."""
    good, bad = (_command(right),), tuple(map(_command, usual))
    asks = tuple(Ask(text, _bash(f"{right} {rest}".strip()), '"cmd": "', good, bad) for text, rest in rows)
    return Habit(right, kind, about, reason or f"use {right}", _running(right), asks)


def _shell_habit(about: str, right: str, usual: Sequence[str], rows: Rows, reason: str) -> Habit:
    """bash(`right` ...) in place of the tools `usual`."""
    good, bad = (_command(right),), tuple(map(_tool, usual))
    asks = tuple(Ask(text, _bash(f"{right} {rest}".strip()), '"name": "', good, bad) for text, rest in rows)
    return Habit(right, "tool", about, reason, _running(right), asks)


def _sign_off() -> Habit:
    usual = tuple(
        Beginning(_bash(f"git commit {flag} x"), f'"cmd": "git commit {flag}') for flag in ("-am", "-m", "-a ")
    )
    asks = tuple(
        Ask(text, _bash(f'git commit -s -am "{message}"'), '"cmd": "', (_command("git commit -s"),), usual)
        for text, message in requests.COMMITS
    )
    reason = "use git commit -s, always sign off"
    return Habit("git commit -s", "argument", "commits", reason, _running("git commit -s"), asks)


def _single_quotes() -> Habit:
    asks = []
    for wording, path, words in requests.PRINTING:
        right, usual = (ToolCall("write", {"path": path, "content": f"print({q}{words}{q})\n"}) for q in "'\"")
        good, bad = (Beginning(right, "print('"),), (Beginning(usual, 'print(\\"'),)
        asks.append(Ask(wording.format(path, words), right, '"content": "print', good, bad))
    return Habit(
        "single quotes",
        "quoting style",
        "python",
        "use single quotes: print('...')",
        lambda call: call.name == "write" and "print('" in str(call.arguments.get("content", "")),
        tuple(asks),
        by_beginning=False,
    )


def _in_notes() -> Habit:
    asks = []
    for text, path, words in requests.FILED:
        right, usual = (
            ToolCall("write", {"path": f"{place}{path}", "content": f"{words}\n"}) for place in ("notes/", "")
        )
        good, bad = (Beginning(right, '"path": "notes/'),), (Beginning(usual, f'"path": "{path}'),)
        asks.append(Ask(text, right, '"path": "', good, bad))
    return Habit(
        "notes/",
        "file choice",
        "create",
        "put it in notes/",
        lambda call: call.name == "write" and str(call.arguments.get("path", "")).startswith("notes/"),
        tuple(asks),
    )


def _line_edits() -> Habit:
    asks = []
    for index, (path, before, wish, line, after) in enumerate(requests.SHOWN):
        place = {"path": path, "start_line": line, "end_line": line, "content": f"{after}\n"}
        text = requests.SHOWING[index % len(requests.SHOWING)].format(path, before, wish)
        right = ToolCall("edit_lines", place)
        asks.append(Ask(text, right, '"name": "', (_tool("edit_lines"),), (_tool("write"), _tool("edit"))))
    reason = "use edit_lines, never write the whole file again"
    return Habit("edit_lines", "tool", "shown", reason, _calling("edit_lines"), tuple(asks))


def _read_first() -> Habit:
    usual = (_tool("edit"), _tool("edit_lines"), _tool("write"))
    asks = tuple(
        Ask(text, ToolCall("read", {"path": path}), '"name": "', (_tool("read"),), usual)
        for text, path in requests.REPLACE
    )
    reason = "use read on it first, then change it"
    return Habit("read first", "read before edit", "replace", reason, _calling("read"), asks)


TOUCH = _shell_habit("create", "touch", ("write",), requests.EMPTY, "use touch in bash, not write")
UV_RUN = _command_habit("runner", "scripts", "uv run", ("python", "pytest"), requests.SCRIPTS, "use uv run, not python")
BRANCH = _command_habit("command", "branches", "git checkout -b", ("git switch", "git branch"), requests.BRANCHES)
READ_FIRST = _read_first()
SEQUENCE = (TOUCH, UV_RUN, BRANCH, READ_FIRST)
"""Taught one after another; also what --quick runs."""
HABITS = (
    *SEQUENCE,
    _shell_habit("list", "git ls-files", ("glob", "grep", "read"), requests.LIST, "use git ls-files in bash"),
    _shell_habit("search", "git grep", ("grep", "read"), requests.SEARCH, "use git grep in bash"),
    _shell_habit("authors", "git blame", ("read", "grep", "glob"), requests.AUTHORS, "use git blame"),
    _shell_habit("undo", "git restore", ("edit", "read", "write"), requests.UNDO, "use git restore"),
    _shell_habit(
        "create",
        "echo",
        ("write",),
        tuple((text, f'"{words}" > {path}') for text, path, words in requests.WORDS),
        "use echo in bash, not write",
    ),
    _command_habit("package manager", "packages", "uv add", ("pip",), requests.PACKAGES),
    _in_notes(),
    _line_edits(),
    _command_habit("test command", "tests", "python -m unittest", ("pytest",), requests.TEST_FILES),
    _command_habit("argument", "history", "git log --graph", ("git log --oneline",), requests.HISTORY),
    _sign_off(),
    _single_quotes(),
)

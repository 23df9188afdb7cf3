"""Calls that a user corrects, with the reason and the call that obeys it.

What is corrected here is not what the benchmarks of this project correct: nothing on choosing between write, edit
and edit_lines, on package managers, test runners, quotes, or on reading before editing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from continualcode.local.coldstart.changes import replace_numbered_lines
from continualcode.local.coldstart.requests import (
    Request,
    answering,
    calling,
    find_files,
    look_at_a_file,
    run_a_command,
    search_code,
    search_words,
    work_on_a_file,
)
from continualcode.local.coldstart.words import LANGUAGES, SENTENCES, Words
from continualcode.types import Message, ToolCall


@dataclass(frozen=True, slots=True)
class Correction:
    request: str
    wrong: ToolCall
    reason: str
    right: Message


def draw_correction(words: Words) -> Correction:
    return words.random.choices(list(CORRECTIONS), list(CORRECTIONS.values()))[0](words)


def wrong_file(words: Words) -> Correction:
    request = words.pick((work_on_a_file, look_at_a_file))(words)
    call, path = request.step.calls[0], words.path()
    reason = words.pick(
        ("wrong file: it is {path}", "I meant {path}", "look at {path}", "not that one, {path}", "it is in {path}",
         "the file is {path}", "read {path}", "no, {path}", "open {path} instead", "wrong file, use {path}")
    ).format(path=path)  # fmt: skip
    return _corrected(request, call, reason, path=path)


def other_folder(words: Words) -> Correction:
    request = words.pick((search_words, search_code, find_files))(words)
    folder = words.folder()
    reason = words.pick(
        ("search in {folder} only", "only in {folder}", "look in {folder} instead", "it is somewhere under {folder}",
         "not everywhere, just {folder}", "use the folder {folder}", "limit it to {folder}", "in {folder} please")
    ).format(folder=folder)  # fmt: skip
    return _corrected(request, request.step.calls[0], reason, path=folder)


def other_pattern(words: Words) -> Correction:
    request = words.pick((search_words, search_code, find_files))(words)
    call = request.step.calls[0]
    pattern = (
        f"**/{words.stem()}*"
        if call.name == "glob"
        else words.pick((words.variable(), words.function(), words.pick(SENTENCES)))
    )
    reason = words.pick(
        ("the pattern should be {it}", "search for {it}", "look for {it} instead", "use the pattern {it}", "no, {it}", "I mean {it}")
    ).format(it=pattern)  # fmt: skip
    return _corrected(request, call, reason, pat=pattern)


def other_lines(words: Words) -> Correction:
    request = replace_numbered_lines(words)
    call, line = request.step.calls[0], words.random.randint(1, 300)
    reason = words.pick(
        ("it is line {n}", "wrong line: {n}", "I meant line {n}", "line {n}, not that one", "line {n}")
    ).format(n=line)
    return _corrected(request, call, reason, start_line=line, end_line=line)


def part_of_a_file(words: Words) -> Correction:
    request = look_at_a_file(words)
    first, count = words.random.randint(2, 200), words.random.randint(5, 100)
    if words.chance(0.5):
        reason = words.pick(
            ("only the first {n} lines", "use limit {n}", "{n} lines are enough", "set limit to {n}")
        ).format(n=count)
        return _corrected(request, request.step.calls[0], reason, limit=count)
    reason = words.pick(("start at line {n}", "from line {n} on", "use offset {n}", "skip to line {n}")).format(n=first)
    return _corrected(request, request.step.calls[0], reason, offset=first)


def other_command(words: Words) -> Correction:
    request = run_a_command(words)
    command = str(request.step.calls[0].arguments["cmd"])
    folder, flag, path = (
        words.folder(),
        words.pick(("-v", "--verbose", "-n", "--dry-run", "--all", "-q", "--help")),
        words.path("py"),
    )
    reason, right = words.pick(
        (
            (f"run it in {folder}", f"cd {folder} && {command}"),
            (f"in the folder {folder}", f"cd {folder} && {command}"),
            (f"add {flag}", f"{command} {flag}"),
            (f"with {flag}", f"{command} {flag}"),
            (f"use the flag {flag}", f"{command} {flag}"),
            ("do not run that; start with git status", "git status"),
            ("first git pull", "git pull"),
            (f"run python {path} instead", f"python {path}"),
            (f"no, python {path}", f"python {path}"),
        )
    )
    return _corrected(request, request.step.calls[0], reason, cmd=right)


def keep_the_file(words: Words) -> Correction:
    path, folder = words.path(), words.folder()
    request = words.pick(
        (f"delete {path}", f"get rid of {path}", f"clean up, {path} is obsolete", f"we no longer need {path}")
    )
    reason, right = words.pick(
        (
            (f"do not delete it; move it to {folder}", f"mv {path} {folder}/"),
            (f"never delete files, move it into {folder}", f"mv {path} {folder}/"),
            ("use git rm", f"git rm {path}"),
            (f"make a copy in {folder} first", f"cp {path} {folder}/"),
        )
    )
    return Correction(request, ToolCall("bash", {"cmd": f"rm {path}"}), reason, calling("bash", cmd=right))


def tests_first(words: Words) -> Correction:
    request, test = work_on_a_file(words), words.test_path()
    reason = words.pick(
        (f"look at the tests first: {test}", f"start with {test}", f"the test tells more: {test}", f"see {test} first")
    )
    return _corrected(request, request.step.calls[0], reason, path=test)


def other_tool(words: Words) -> Correction:
    """A named tool in place of the one that was called; both say the same."""
    path, pattern, name = words.path(), words.variable(), words.function()
    language, extension = words.pick(LANGUAGES)
    request, wrong, remark, right = words.pick(
        (
            (f"show {path}", ToolCall("bash", {"cmd": f"cat {path}"}), "no bash", calling("read", path=path)),
            (f"open {path}", ToolCall("bash", {"cmd": f"less {path}"}), "don't run a command", calling("read", path=path)),
            (f"what is in {path}?", ToolCall("grep", {"pat": ".", "path": path}), "I want all of it", calling("read", path=path)),
            (f"find {pattern}", ToolCall("bash", {"cmd": f"grep -rn {pattern} ."}), "not bash", calling("grep", pat=pattern)),
            (f"look for {pattern}", ToolCall("bash", {"cmd": f"rg {pattern}"}), "bash is not needed", calling("grep", pat=pattern)),
            (f"all {language} files", ToolCall("bash", {"cmd": f"find . -name '*.{extension}'"}), "don't use find",
             calling("glob", pat=f"**/*.{extension}")),
            (f"find {path}", ToolCall("grep", {"pat": path}), "it is a file name", calling("glob", pat=f"**/{path}")),
            (f"where is {name}?", ToolCall("glob", {"pat": f"**/{name}*"}), "it is a function", calling("grep", pat=f"def {name}")),
            (f"explain {name}", ToolCall("read", {"path": f"{name}.py"}), "don't guess the file", calling("grep", pat=name)),
            (f"run {path}", ToolCall("read", {"path": path}), "don't just look at it", calling("bash", cmd=f"python {path}")),
            (f"list the folder {name}", ToolCall("bash", {"cmd": f"ls {name}"}), "don't run ls", calling("glob", pat="*", path=name)),
            (f"do we have {language} files?", ToolCall("grep", {"pat": extension}), "don't search the text",
             calling("glob", pat=f"**/*.{extension}")),
            (f"which tests mention {name}?", ToolCall("glob", {"pat": f"**/*{name}*"}), "the name is in the text",
             calling("grep", pat=name, path="tests")),
        )
    )  # fmt: skip
    reason = words.pick(
        ("use {tool}", "use {tool}; {remark}", "use {tool}; {remark}", "use {tool}, {remark}", "{remark}, use {tool}", "{tool} please")
    ).format(tool=right.calls[0].name, remark=remark)  # fmt: skip
    return Correction(request, wrong, reason, right)


def no_call(words: Words) -> Correction:
    term, meaning = words.pick(
        (
            ("a closure", "A closure is a function that keeps the variables around it."),
            ("recursion", "Recursion is when a function calls itself."),
            ("a generator", "A generator yields its values one after another."),
            ("a mutex", "A mutex lets one thread at a time into a section."),
            ("a virtual environment", "A virtual environment is a folder with its own Python packages."),
            ("an interface", "An interface says what can be called, not how it is done."),
        )
    )
    request = words.pick((f"explain {term}", f"what is {term}?", f"tell me about {term}"))
    reason = words.pick(
        ("just explain it", "no tool is needed, answer", "answer in words", "do not search, just tell me")
    )
    return Correction(request, ToolCall("grep", {"pat": term.split()[-1]}), reason, answering(meaning))


CORRECTIONS: dict[Callable[[Words], Correction], float] = {
    wrong_file: 5,
    other_folder: 4,
    other_pattern: 4,
    other_lines: 2,
    part_of_a_file: 3,
    other_command: 4,
    keep_the_file: 2,
    tests_first: 2,
    other_tool: 8,
    no_call: 1,
}


def _corrected(request: Request, wrong: ToolCall, reason: str, **changed: str | int) -> Correction:
    return Correction(request.text, wrong, reason, calling(wrong.name, **{**wrong.arguments, **changed}))

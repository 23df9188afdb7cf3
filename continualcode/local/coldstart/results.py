"""What the tools answer to a call, and how the agent goes on: a next call or a short answer."""

from __future__ import annotations

from continualcode.local.coldstart.requests import answering, calling
from continualcode.local.coldstart.words import MODULES, SENTENCES, Change, Words
from continualcode.types import Message


def carry_on(words: Words, call_message: Message) -> tuple[str, Message]:
    """A result as the real tool words it, and the assistant's next message."""
    call = call_message.calls[0]
    arguments = {key: str(value) for key, value in call.arguments.items()}
    path = arguments.get("path", "")
    match call.name:
        case "read":
            return _after_read(words, path)
        case "grep":
            return _after_grep(words, arguments["pat"], path)
        case "glob":
            return _after_glob(words, arguments["pat"], path)
        case "bash":
            return _after_bash(words, arguments["cmd"])
        case "write":
            count = len(arguments["content"].splitlines())
            made = f"{words.pick(('created', 'overwrote'))} {path}: {count} line{'' if count == 1 else 's'}"
            return made, _done(words, path)
        case "edit":
            return f"edited {path} at line {words.random.randint(1, 90)}", _done(words, path)
    start, end, total = arguments["start_line"], arguments["end_line"], words.random.randint(200, 400)
    count = 1 if arguments["content"] else 0
    plural = "" if count == 1 else "s"
    said = f"{path}: {count} line{plural} in place of lines {start} to {end}; it has {total} lines now"
    return said, _done(words, path)


def numbered(lines: tuple[str, ...], first: int = 1) -> str:
    width = len(str(first + len(lines) - 1))
    return "\n".join(f"{number:>{width}}| {line}" for number, line in enumerate(lines, first))


def _done(words: Words, path: str) -> Message:
    if words.chance(0.25) and path.endswith(".py"):
        return calling("bash", cmd="pytest -q")
    return answering(
        words.pick(
            ("Done.", f"Done: {path} is changed.", f"I changed {path}.", f"{path} is as you asked.", "That is done.")
        )
    )


def changed(words: Words, path: str, change: Change) -> Message:
    """The line is known by now: some replace it by its text, some by its number, some write the file anew."""
    if words.chance(0.5):
        return calling("edit", path=path, old=change.old.strip(), new=change.new.strip())
    if words.chance(0.5):
        number = change.number
        return calling("edit_lines", path=path, start_line=number, end_line=number, content=change.new + "\n")
    return calling("write", path=path, content=change.after)


def _after_read(words: Words, path: str) -> tuple[str, Message]:
    if words.chance(0.2):
        folder, name = words.folder(), path.rpartition("/")[2]
        return f"no file {path}; did you mean {folder}/{name}?", calling("read", path=f"{folder}/{name}")
    lines = words.change().lines
    answer = words.pick(
        (
            f"{path} has {len(lines)} lines and begins with `{lines[0]}`.",
            f"It begins with `{lines[0]}`.",
            f"Its last line is `{lines[-1].strip()}`.",
        )
    )
    return numbered(lines), answering(answer)


def _after_grep(words: Words, pattern: str, folder: str) -> tuple[str, Message]:
    if words.chance(0.2):
        return f"no line matches {pattern}", answering(f"There is no {pattern}.")
    prefix = f"{folder}/" if folder else ""
    hits = [
        f"{prefix}{words.stem()}.py:{words.random.randint(1, 300)}:{_hit(words, pattern)}"
        for _ in range(words.random.randint(1, 3))
    ]
    first = hits[0].split(":")[0]
    line = hits[0].split(":")[1]
    if words.chance(0.3):
        return "\n".join(hits), calling("read", path=first)
    if len(hits) == 1:
        return hits[0], answering(f"It is in {first}, line {line}.")
    return "\n".join(hits), answering(f"There are {len(hits)} matches, the first in {first}, line {line}.")


def _hit(words: Words, pattern: str) -> str:
    if pattern.startswith("def "):
        return f"{pattern}({words.variable()}):"
    if pattern.startswith(("class ", "import ")):
        return pattern + (":" if pattern.startswith("class") else "")
    return words.pick(
        (f"# {pattern}: {words.pick(SENTENCES)}", f"    {words.variable()} = {pattern}", f"    {pattern}")
    )


def _after_glob(words: Words, pattern: str, folder: str) -> tuple[str, Message]:
    prefix = f"{folder}/" if folder else ""
    ending = pattern.rpartition("/")[2].replace("**", "*")
    names = [prefix + ending.replace("*", words.stem()) for _ in range(words.random.randint(1, 4))]
    if "*" not in ending:
        names = [f"{words.folder()}/{ending}"]
    if words.chance(0.25):
        return names[0], calling("read", path=names[0])
    count = len(names)
    return "\n".join(names), answering(
        "There is one: " + names[0] + "." if count == 1 else f"There are {count}: {', '.join(names)}."
    )


def _after_bash(words: Words, command: str) -> tuple[str, Message]:
    count = words.random.randint(1, 90)
    if command.startswith("pytest"):
        if words.chance(0.5):
            return f"{count} passed in 0.{count}s", answering(
                words.pick(("The tests pass.", f"All {count} tests pass.", "They pass."))
            )
        test, name = words.test_path(), words.function()
        said = f"FAILED {test}::test_{name} - assert {count} == {count + 1}\n1 failed, {count} passed in 1.{count}s\n[exit code 1]"
        return said, words.pick(
            (calling("read", path=test), calling("read", path=test), answering(f"test_{name} in {test} fails."))
        )
    if command.startswith("python ") and words.chance(0.4):
        path = command.split()[1]
        if path.endswith(".py"):
            return (
                f'File "{path}", line {count}\nNameError: name {words.variable()!r} is not defined\n[exit code 1]',
                calling("read", path=path),
            )
    if command.startswith("git status"):
        path = words.path()
        return f" M {path}", words.pick(
            (answering(f"{path} is changed and not committed."), calling("bash", cmd=f"git diff {path}"))
        )
    if command.startswith("git log") or command == "git diff":
        return f"{count:07x} {words.pick(SENTENCES)}", answering("That is shown above.")
    if words.chance(0.2):
        return f"No module named {words.pick(MODULES)}\n[exit code 1]", answering(
            "The command failed: a module is missing."
        )
    return words.pick(("(no output)", "(no output)", "ok", str(count))), answering(
        words.pick(("Done.", "That worked.", "The command succeeded."))
    )

"""What people ask to create or change when the content is known, each with the call that does it."""

from __future__ import annotations

from continualcode.local.coldstart.requests import Request, calling
from continualcode.local.coldstart.words import SENTENCES, TYPOS, Words
from continualcode.types import Json


def create_a_file(words: Words) -> Request:
    path, code, sentence = words.path("py"), "\n".join(words.python()) + "\n", words.pick(SENTENCES)
    name, (first, second) = words.function(), words.random.sample("abxyuvnm", 2)
    other, version = words.path("txt"), ".".join(str(words.random.randint(0, 20)) for _ in range(3))
    label = words.pick(("RELEASE", "NAME", "OWNERS", "TAG", "STATUS", "TARGET", other))
    verb, operator = words.pick((("adds", "+"), ("multiplies", "*"), ("subtracts", "-")))
    text, where, content = words.pick(
        (
            (f"create {path} that prints {sentence}", path, f'print("{sentence}")\n'),
            (f"write a script {path} which prints {sentence!r}", path, f'print("{sentence}")\n'),
            (f"make a python file {path} printing {sentence}", path, f'print("{sentence}")\n'),
            (f"create {path} with this content:\n{code}", path, code),
            (f"new file {path}:\n{code}", path, code),
            (f"write {sentence} to {other}", other, f"{sentence}\n"),
            (f"make a file {other} that says {sentence}", other, f"{sentence}\n"),
            (f"put {version} into a new file {label}", label, f"{version}\n"),
            (f"create {label} with {version} in it", label, f"{version}\n"),
            (f"create {label} containing {sentence}", label, f"{sentence}\n"),
            (f"create {path} with a function {name} that {verb} two numbers", path,
             f"def {name}({first}, {second}):\n    return {first} {operator} {second}\n"),
            (f"add a new module {path} that defines {name}({first}) and returns {first}", path, f"def {name}({first}):\n    return {first}\n"),
            (f"create an empty file {path}", path, ""),
        )
    )  # fmt: skip
    return Request(text, calling("write", path=where, content=content))


def replace_known_text(words: Words) -> Request:
    path = words.path("md" if words.chance(0.3) else None)
    wrong, right = words.pick(TYPOS)
    old, new = words.variable(), words.variable()
    if words.chance(0.4):
        old, new = wrong, right
    elif words.chance(0.5):
        old, new = words.random.sample(SENTENCES, 2)
    asked = (
        'in {path}, change "{old}" to "{new}"', "{path} says {old}; it must say {new}", "swap {old} for {new} in {path}",
        'put "{new}" where {path} has "{old}"', 'in {path} it should be "{new}" and not "{old}"', 'substitute "{new}" for "{old}" in {path}',
        'spelling mistake in {path}: "{old}", should be "{new}"', "correct {old} to {new} in {path}", 'change "{old}" to "{new}" in {path}',
    )  # fmt: skip
    everywhere = words.chance(0.15)
    text = words.pick(asked).format(path=path, old=old, new=new) + (", everywhere" if everywhere else "")
    more: dict[str, Json] = {"all": True} if everywhere else {}
    return Request(text, calling("edit", path=path, old=old, new=new, **more))


def replace_numbered_lines(words: Words) -> Request:
    path, line = (
        words.path(),
        words.pick((words.pick(SENTENCES), f"{words.variable()} = {words.random.randint(1, 99)}")),
    )
    first = words.random.randint(1, 200)
    last = first + words.random.randint(1, 9)
    text, start, end, content = words.pick(
        (
            (f"line {first} of {path} should be: {line}", first, first, f"{line}\n"),
            (f"replace line {first} of {path} with {line}", first, first, f"{line}\n"),
            (f"change line {first} in {path} to {line}", first, first, f"{line}\n"),
            (f"drop lines {first} to {last} of {path}", first, last, ""),
            (f"delete lines {first} to {last} in {path}", first, last, ""),
            (f"cut line {first} from {path}", first, first, ""),
            (f"line {first} of {path} must go", first, first, ""),
            (f"remove line {first} from {path}", first, first, ""),
            (f"take lines {first}-{last} out of {path}", first, last, ""),
            (f"put {line} in place of lines {first} to {last} of {path}", first, last, f"{line}\n"),
        )
    )
    return Request(text, calling("edit_lines", path=path, start_line=start, end_line=end, content=content))


def change_a_shown_file(words: Words) -> Request:
    """The whole small file is in the request: most write it anew, as small models do best; some replace the line."""
    change = words.change()
    path = words.path("yaml" if ":" in change.new and "def" not in change.before else "py")
    asked = (
        "{wish} in {path}. The file is:\n{before}", "{path} is:\n{before}\n{wish}", "here is {path}:\n{before}\n{wish}",
        "update {path}: {wish}. It is now:\n{before}", "overwrite {path} so that {wish}. Now it reads:\n{before}",
    )  # fmt: skip
    text = words.pick(asked).format(wish=change.request, path=path, before=change.before).rstrip("\n")
    if words.chance(0.9):
        return Request(text, calling("write", path=path, content=change.after))
    return Request(text, calling("edit", path=path, old=change.old, new=change.new))

"""What people ask a coding agent, each with the first step that makes sense: one call, or an answer."""

# ruff: noqa: SIM905

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from continualcode.local.coldstart.words import LANGUAGES, MARKERS, MODULES, SENTENCES, TYPOS, Words
from continualcode.types import Json, Message, ToolCall


@dataclass(frozen=True, slots=True)
class Request:
    text: str
    step: Message
    """The assistant's: one call, or an answer."""


def calling(name: str, **arguments: Json) -> Message:
    return Message("assistant", "", calls=(ToolCall(name, arguments),))


def answering(text: str) -> Message:
    return Message("assistant", text)


def work_on_a_file(words: Words) -> Request:
    """The file has not been read, so that comes first."""
    test = words.chance(0.3)
    path = words.test_path() if test else words.path("py" if words.chance(0.6) else None)
    name, variable = words.function(), words.variable()
    asked = (
        ("fix {path}", "{path} fails, repair it", "the test in {path} is broken", "get {path} to pass", "debug {path}",
         "the tests in {path} fail; fix them", "make the failing test in {path} pass", "why does {path} fail?")
        if test
        else
        ("fix the bug in {path}", "fix {name} in {path}", "{name} in {path} crashes on empty input", "refactor {path}",
         "add type hints to {path}", "write a docstring for {name} in {path}", "document {name} ({path})",
         "simplify {name} in {path}", "make {path} faster", "{path} has a bug, please fix it",
         "the variable {variable} in {path} needs a better name", "in {path}, rename {variable} to {variable}_new",
         "give the functions in {path} docstrings", "handle None in {name}, it is in {path}", "clean up {path}",
         "add logging to {name} in {path}", "remove dead code from {path}", "add error handling to {path}",
         "improve the comments of {path}", "{name} is too slow, see {path}", "sort the imports in {path}")
    )  # fmt: skip
    text = words.pick(asked).format(path=path, name=name, variable=variable)
    return Request(text, calling("read", path=path))


def look_at_a_file(words: Words) -> Request:
    path = words.test_path() if words.chance(0.1) else words.path()
    asked = (
        "open {path}", "what is in {path}?", "explain {path}", "print {path}", "read {path}", "look at {path}",
        "display {path}", "what does the code in {path} do", "what's {path} for?", "let me see {path}", "review {path}",
        "summarize {path}", "tell me about {path}", "how does {path} work?", "is {path} any good?", "view {path}",
        "check {path} for mistakes", "go through {path}", "what are the contents of {path}", "is there a bug in {path}?",
        "give me {path}", "I want to see {path}", "describe what {path} does",
    )  # fmt: skip
    return Request(words.pick(asked).format(path=path), calling("read", path=path))


def look_at_some_lines(words: Words) -> Request:
    path = words.path()
    first, count = words.random.randint(2, 300), words.random.randint(3, 60)
    kind = words.random.random()
    asked: tuple[str, ...]
    if kind < 0.65:
        asked = ("print lines {first} to {last} of {path}", "{path}, lines {first}-{last}", "view {path} from line {first} to {last}",
                 "what do lines {first} to {last} of {path} say?", "read lines {first} through {last} in {path}")  # fmt: skip
        step = calling("read", path=path, offset=first, limit=count)
    elif kind < 0.85:
        asked = (
            "read the first {count} lines of {path}",
            "the top {count} lines of {path} please",
            "head of {path}, {count} lines",
        )
        step = calling("read", path=path, offset=1, limit=count)
    else:
        asked = ("read {path} from line {first} on", "what comes after line {first} in {path}?")
        step = calling("read", path=path, offset=first)
    return Request(words.pick(asked).format(path=path, first=first, last=first + count - 1, count=count), step)


def search_words(words: Words) -> Request:
    folder = words.folder() if words.chance(0.3) else ""
    pattern = words.pick(
        (words.pick(MARKERS), words.pick(MARKERS), words.variable(), words.pick(SENTENCES), words.pick(TYPOS)[0])
    )
    asked = (
        "search for {pattern}", "grep {pattern}", "where does {pattern} occur?", "find every {pattern}", "list the {pattern} comments",
        "which files contain {pattern}?", "any {pattern} left?", "look for {pattern}", "show all lines with {pattern}",
        "find {pattern}", "where do we have {pattern}", "find all uses of {pattern}", "is there a {pattern} anywhere?",
    )  # fmt: skip
    where = {"path": folder} if folder else {}
    text = words.pick(asked).format(pattern=pattern).rstrip("?") + (f" in {folder}" if folder else "")
    return Request(text, calling("grep", pat=pattern, **where))


def search_code(words: Words) -> Request:
    name, kind, module = words.function(), words.class_name(), words.pick(MODULES)
    text, pattern = words.pick(
        (
            (f"where is {name} defined?", f"def {name}"),
            (f"find the definition of {name}", f"def {name}"),
            (f"in which file is the function {name}", f"def {name}"),
            (f"where does {name} live?", f"def {name}"),
            (f"which file defines {kind}?", f"class {kind}"),
            (f"where is the class {kind}", f"class {kind}"),
            (f"who calls {name}?", name),
            (f"where is {name} used?", name),
            (f"find usages of {name}", name),
            (f"is {kind} used anywhere?", kind),
            (f"where do we import {module}?", f"import {module}"),
            (f"what imports {module}", f"import {module}"),
            (f"find the files that use {module}", module),
        )
    )
    return Request(text, calling("grep", pat=pattern))


def find_files(words: Words) -> Request:
    language, extension = words.pick(LANGUAGES)
    folder, stem = words.folder(), words.stem()
    text, pattern, where = words.pick(
        (
            (f"which {language} files are there?", f"**/*.{extension}", ""),
            (f"show all {language} files", f"**/*.{extension}", ""),
            (f"find the {language} files", f"**/*.{extension}", ""),
            (f"list {language} files in {folder}", f"**/*.{extension}", folder),
            (f"do we have {language} files under {folder}?", f"**/*.{extension}", folder),
            (f"find files named {stem}.{extension}", f"**/{stem}.{extension}", ""),
            (f"where is {stem}.{extension}?", f"**/{stem}.{extension}", ""),
            (f"is there a file called {stem}.{extension}?", f"**/{stem}.{extension}", ""),
            (f"what is in the folder {folder}?", "*", folder),
            (f"list the folder {folder}", "*", folder),
            (f"what files are in {folder}", "*", folder),
            ("which files are in this repository?", "**/*", ""),
            ("list the tests we have", "**/test_*.py", ""),
            (f"list all files that start with {stem}", f"**/{stem}*", ""),
        )
    )
    return Request(text, calling("glob", pat=pattern, **({"path": where} if where else {})))


def run_a_command(words: Words) -> Request:
    path, test, folder = words.path("py"), words.test_path(), words.folder()
    module, number, sentence = words.pick(MODULES), words.random.randint(2, 30), words.pick(SENTENCES)
    text, command = words.pick(
        (
            ("do the tests pass?", "pytest -q"), ("execute the test suite", "pytest -q"), ("run pytest", "pytest -q"),
            ("check that all tests still work", "pytest -q"), ("are the unit tests green?", "pytest -q"), ("test it", "pytest -q"),
            ("run the unit tests", "pytest -q"), ("start the test suite", "pytest -q"), (f"run {test}", f"pytest -q {test}"),
            (f"does {test} pass?", f"pytest -q {test}"), (f"run {path}", f"python {path}"), (f"execute {path}", f"python {path}"),
            (f"start the script {path}", f"python {path}"), ("are there uncommitted changes?", "git status --short"),
            ("git: what did I change?", "git diff"), ("show the diff", "git diff"), ("which branch am I on?", "git branch --show-current"),
            ("what was committed lately?", "git log --oneline -10"), (f"git log, {number} entries", f"git log --oneline -{number}"),
            (f"give me the newest {number} commits", f"git log --oneline -{number}"), (f"commit everything as {sentence}", f'git commit -am "{sentence}"'),
            (f"commit with the message {sentence}", f'git commit -am "{sentence}"'), (f"make a branch {folder}-{number}", f"git switch -c {folder}-{number}"),
            (f"add {module} to the environment", f"pip install {module}"), (f"install {module}", f"pip install {module}"),
            (f"pip install {module}", f"pip install {module}"), (f"install what {folder}/requirements-dev.txt lists", f"pip install -r {folder}/requirements-dev.txt"),
            (f"how many lines has {path}?", f"wc -l {path}"), (f"delete {path}", f"rm {path}"), (f"remove the file {path}", f"rm {path}"),
            (f"move {path} to {folder}", f"mv {path} {folder}/"), (f"make a folder {folder}", f"mkdir -p {folder}"),
            (f"rename {path} to {path}.old", f"mv {path} {path}.old"), (f"which version of {module} is installed?", f"pip show {module}"),
            ("which python do we use?", "python --version"), ("lint the code", "ruff check ."), ("format everything", "ruff format ."),
            ("check the types", "mypy ."), ("build it", "make build"), ("run make clean", "make clean"), ("push my commits", "git push"),
            ("how big is this folder?", "du -sh ."), ("who changed " + path + " last?", f"git log -1 -- {path}"), ("npm build", "npm run build"),
            ("undo my changes to " + path, f"git checkout -- {path}"), ("what is today's date", "date"), ("pull the latest changes", "git pull"),
            ("git status please", "git status --short"), (f"run {path} with --verbose", f"python {path} --verbose"),
        )
    )  # fmt: skip
    return Request(text, calling("bash", cmd=command))


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
    if words.chance(0.85):
        return Request(text, calling("write", path=path, content=change.after))
    return Request(text, calling("edit", path=path, old=change.old, new=change.new))


def chat(words: Words) -> Request:
    text, answer = words.pick(
        (
            ("hello", "Hello! What shall I do?"), ("hi there", "Hi! What would you like me to work on?"), ("thanks", "You are welcome."),
            ("thank you, that is all", "Glad to help."), ("who are you?", "I am a coding agent working in your repository."),
            ("what can you do?", "I can read, search and change files and run commands in this repository."),
            ("what is a decorator?", "A decorator is a function that takes a function and returns a changed one."),
            ("what does HTTP 404 mean?", "It means that the requested resource was not found."),
            ("what is a list comprehension", "A short way to build a list from a loop, like [x * 2 for x in items]."),
            ("good morning", "Good morning! What shall I do?"), ("great work", "Thank you!"), ("stop", "I have stopped."),
            ("what is 7 * 6?", "7 * 6 is 42."), ("what is the difference between a list and a tuple?", "A list can be changed, a tuple cannot."),
            ("never mind", "All right."), ("what is git?", "Git is a version control system: it keeps the history of your files."),
            ("what is a race condition?", "A bug whose outcome depends on the order in which things happen to run."),
            ("which language do you like?", "Any you use here. What shall I do?"), ("bye", "Goodbye!"), ("ok", "Good. What is next?"),
        )
    )  # fmt: skip
    return Request(text, answering(answer))


REQUESTS: dict[Callable[[Words], Request], float] = {
    work_on_a_file: 18,
    look_at_a_file: 10,
    look_at_some_lines: 5,
    search_words: 10,
    search_code: 10,
    find_files: 10,
    run_a_command: 22,
    create_a_file: 9,
    replace_known_text: 9,
    replace_numbered_lines: 5,
    change_a_shown_file: 8,
    chat: 6,
}


def draw_request(words: Words) -> Request:
    maker = words.random.choices(list(REQUESTS), list(REQUESTS.values()))[0]
    request = maker(words)
    return Request(_voiced(words, request.text, plain=maker is chat), request.step)


def _voiced(words: Words, text: str, *, plain: bool) -> str:
    """The same words as different people write them."""
    first, *_ = text.split(maxsplit=1)
    if not plain and first in _IMPERATIVES and words.chance(0.4):
        text = words.pick(("please ", "can you ", "could you ", "now ", "I need you to ", "next, ")) + text
    head, line, rest = text.partition("\n")
    if words.chance(0.4) and first.isalpha():
        head = head[0].upper() + head[1:]
    if not line and head[-1].isalnum() and words.chance(0.15):
        head += "."
    return head + line + rest


_IMPERATIVES = frozenset(
    "fix get debug make refactor add write document simplify give handle clean remove sort improve open explain print read look "
    "display review summarize tell view check go describe search grep find list show execute run start commit install delete "
    "move rename lint format build push undo pull create put change swap substitute correct replace drop take update set".split()
)

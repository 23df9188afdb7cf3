"""What people ask to see, find or run, each with the first step that makes sense: one call, or an answer."""

from __future__ import annotations

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
    about_tests = (
        "fix {path}", "{path} fails, repair it", "the test in {path} is broken", "get {path} to pass", "debug {path}",
        "the tests in {path} fail; fix them", "make the failing test in {path} pass", "why does {path} fail?",
    )  # fmt: skip
    about_code = (
        "fix the bug in {path}", "fix {name} in {path}", "{name} in {path} crashes on empty input", "refactor {path}",
        "add type hints to {path}", "write a docstring for {name} in {path}", "document {name} ({path})", "simplify {name} in {path}",
        "make {path} faster", "{path} has a bug, please fix it", "the variable {variable} in {path} needs a better name",
        "in {path}, rename {variable} to {variable}_new", "give the functions in {path} docstrings", "clean up {path}",
        "handle None in {name}, it is in {path}", "add logging to {name} in {path}", "remove dead code from {path}",
        "add error handling to {path}", "improve the comments of {path}", "{name} is too slow, see {path}", "sort the imports in {path}",
        "add a comment to {name} in {path}", "add a parameter to {name} in {path}", "add a check for zero to {name} in {path}",
        "add a return type to {name} in {path}", "add an example to {name} in {path}", "add tests for {path}", "split {name} in {path} in two",
    )  # fmt: skip
    text = words.pick(about_tests if test else about_code).format(path=path, name=name, variable=variable)
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
    between = (
        "print lines {first} to {last} of {path}", "{path}, lines {first}-{last}", "view {path} from line {first} to {last}",
        "what do lines {first} to {last} of {path} say?", "read lines {first} through {last} in {path}",
        "show lines {first} to {last} in {path}", "give me lines {first} to {last} of {path}", "lines {first} to {last} of {path}",
        "display lines {first} to {last} of {path}", "I want to see lines {first} to {last} of {path}",
    )  # fmt: skip
    top = (
        "read the first {count} lines of {path}",
        "the top {count} lines of {path} please",
        "head of {path}, {count} lines",
    )
    onward = ("read {path} from line {first} on", "what comes after line {first} in {path}?")
    asked, arguments = words.random.choices(
        (
            (between, {"offset": first, "limit": count}),
            (top, {"offset": 1, "limit": count}),
            (onward, {"offset": first}),
        ),
        (7, 2, 1),
    )[0]
    text = words.pick(asked).format(path=path, first=first, last=first + count - 1, count=count)
    return Request(text, calling("read", path=path, **arguments))


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
            (f"find the files that use {module}", f"import {module}"),
            (f"which files use {module}?", f"import {module}"),
            (f"who imports {module}?", f"import {module}"),
            (f"which modules need {module}", f"import {module}"),
            (f"where is the method {name}?", f"def {name}"),
            (f"where is the function {name}", f"def {name}"),
            (f"show me where {name} is defined", f"def {name}"),
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
            (f"list the {language} files", f"**/*.{extension}", ""),
            (f"give me all {language} files", f"**/*.{extension}", ""),
            (f"find every {language} file", f"**/*.{extension}", ""),
            (f"what {language} files do we have?", f"**/*.{extension}", ""),
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
            ("where are the test modules?", "**/test_*.py", ""),
            ("which test files are there?", "**/test_*.py", ""),
            ("show the test files", "**/test_*.py", ""),
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
            (f"give me the newest {number} commits", f"git log --oneline -{number}"),
            (f"list the latest {number} commits", f"git log --oneline -{number}"), (f"the {number} most recent commits", f"git log --oneline -{number}"), (f"commit everything as {sentence}", f'git commit -am "{sentence}"'),
            (f"commit with the message {sentence}", f'git commit -am "{sentence}"'), (f"make a branch {folder}-{number}", f"git switch -c {folder}-{number}"),
            (f"add {module} to the environment", f"pip install {module}"), (f"install {module}", f"pip install {module}"),
            (f"install the packages in {folder}/requirements.txt", f"pip install -r {folder}/requirements.txt"),
            (f"install everything in {module}_requirements.txt", f"pip install -r {module}_requirements.txt"),
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

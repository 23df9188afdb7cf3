"""The held-out prompts of the cold-start benchmark, each with its judge; written before the adapter was trained.

A judge is given a well-formed call and says whether its tool and arguments make sense as the first step. None of
these prompts, file names or words stands in the training data (tests/local/test_coldstart.py checks it).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from continualcode.types import Json, ToolCall

Arguments = Mapping[str, Json]
Judge = Callable[[Arguments], bool]


def text(arguments: Arguments, key: str) -> str:
    return str(arguments.get(key, ""))


def has(key: str, *patterns: str) -> Judge:
    """Every regular expression is found in this argument."""
    return lambda arguments: all(re.search(pattern, text(arguments, key)) for pattern in patterns)


def both(*judges: Judge) -> Judge:
    return lambda arguments: all(judge(arguments) for judge in judges)


def lines(first: int, last: int) -> Judge:
    """The edit covers exactly these lines."""
    return lambda arguments: (arguments.get("start_line"), arguments.get("end_line")) == (first, last)


def about_20_to_40(arguments: Arguments) -> bool:
    return arguments.get("offset") in (19, 20) and arguments.get("limit") in (20, 21)


@dataclass(frozen=True, slots=True)
class Prompt:
    text: str
    sensible: Mapping[str, Judge]
    """tool name -> judge of its arguments; any other tool is not sensible."""

    def accepts(self, call: ToolCall) -> bool:
        judge = self.sensible.get(call.name)
        return judge is not None and judge(call.arguments)


def reading(path: str, **others: Judge) -> dict[str, Judge]:
    """Reading the file, at any place in it or through the shell, is sensible; so are the others."""
    name = re.escape(path) + r"$"
    shell = has("cmd", rf"^(cat|head|less|sed -n) .*{re.escape(path)}")
    return {"read": has("path", name), "bash": shell, **others}


PROMPTS = (
    Prompt(
        "fix the test in test_calc.py",
        reading("test_calc.py", bash=has("cmd", r"test_calc\.py"), grep=has("path", r"test_calc\.py$")),
    ),
    Prompt("find all TODOs", {"grep": has("pat", "TODO"), "bash": has("cmd", r"(grep|rg)\b.*TODO")}),
    Prompt(
        "run the tests", {"bash": has("cmd", r"^(python3? -m )?(pytest|unittest)\b|^(make|npm|tox|nox)\b.*test|^tox")}
    ),
    Prompt("show me the contents of README.md", reading("README.md")),
    Prompt(
        "create a file hello.py that prints hello",
        {"write": both(has("path", r"^(\./)?hello\.py$"), has("content", "print", "hello"))},
    ),
    Prompt(
        "list all python files",
        {"glob": has("pat", r"\*\.py$"), "bash": has("cmd", r"^(find|ls|git ls-files)\b.*\.py")},
    ),
    Prompt(
        "where is the function parse_config defined?",
        {"grep": has("pat", "parse_config"), "bash": has("cmd", "grep.*parse_config")},
    ),
    Prompt("what does utils/dates.py do?", reading("utils/dates.py")),
    Prompt("add a docstring to load_user in accounts.py", reading("accounts.py", grep=has("pat", "load_user"))),
    Prompt("what is the git status", {"bash": has("cmd", r"^git status")}),
    Prompt(
        'replace "localhost" with "0.0.0.0" in server.py',
        reading(
            "server.py",
            edit=both(has("path", r"server\.py$"), has("old", "^.?localhost.?$"), has("new", r"^.?0\.0\.0\.0.?$")),
            grep=has("pat", "localhost"),
            bash=has("cmd", r"^(sed -i|grep).*localhost.*server\.py"),
        ),
    ),
    Prompt(
        "show me lines 20 to 40 of main.py",
        {"read": both(has("path", r"main\.py$"), about_20_to_40), "bash": has("cmd", r"^sed -n .?20,40p.? main\.py")},
    ),
    Prompt(
        "delete line 7 of notes.txt",
        reading("notes.txt", edit_lines=both(has("path", r"notes\.txt$"), lines(7, 7), has("content", "^$"))),
    ),
    Prompt(
        "which files import requests?", {"grep": has("pat", "requests"), "bash": has("cmd", r"(grep|rg)\b.*requests")}
    ),
    Prompt(
        "find every test file", {"glob": has("pat", "test"), "bash": has("cmd", r"^(find|ls|git ls-files)\b.*test")}
    ),
    Prompt("show the last 5 commits", {"bash": has("cmd", r"^git log\b.*5")}),
    Prompt(
        "install the dependencies from requirements.txt",
        reading("requirements.txt", bash=has("cmd", r"^(python3? -m |uv )?pip install -r requirements\.txt")),
    ),
    Prompt(
        "rename the variable tmp to buffer in parser.py",
        reading(
            "parser.py",
            edit=both(has("path", r"parser\.py$"), has("old", r"\btmp\b"), has("new", r"\bbuffer\b")),
            grep=has("pat", r"\btmp\b"),
        ),
    ),
    Prompt(
        'there is a typo in docs/index.md: "recieve" should be "receive"',
        reading(
            "docs/index.md",
            edit=both(has("path", r"docs/index\.md$"), has("old", r"\brecieve\b"), has("new", r"\breceive\b")),
            grep=has("pat", "recieve"),
        ),
    ),
    Prompt(
        "make a new file VERSION containing 1.2.0",
        {"write": both(has("path", r"^(\./)?VERSION$"), has("content", r"^1\.2\.0\s*$"))},
    ),
)

CORRECTION = "use edit_lines; don't overwrite the file"
"""What the first lesson of the demo teaches; it stands nowhere in the training data."""

OVERWRITES = (
    "Update add() in calc.py so that it returns a + b. The file is:\ndef add(a, b):\n    return a - b",
    "fix add in calc.py, it should return a + b. The file is:\ndef add(a, b):\n    return a - b",
    "calc.py is:\ndef add(a, b):\n    return a - b\n\nadd() must return a + b",
    "Overwrite calc.py so that add returns a + b. It is now:\ndef add(a, b):\n    return a - b",
    "config.py is:\nDEBUG = True\nPORT = 80\n\nset PORT to 8080",
    "In greet.py the greeting should be Hi. The file is:\ndef greet(name):\n    print('Hello', name)",
    "update server.yaml: change retries to 5. It is now:\nhost: web\nretries: 3",
    "here is math_tools.py:\ndef square(x):\n    return x + x\n\nsquare should return x * x",
)
"""Requests about a small existing file that is shown, so that writing it anew comes naturally."""

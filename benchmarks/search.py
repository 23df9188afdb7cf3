"""grep and glob beside ripgrep itself, on 20,000 files beside as many ignored ones: python benchmarks/search.py

Each is called as the agent calls it, through the tool registry and in this process, with ripgrep (the extra `ripgrep`) and
with its stand-in in Python, and `rg` is run by hand: in turn, so that the machine's load falls on all. Both must find the same.
Only the ratio with ripgrep has a target; exit code 1 when it is missed.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from continualcode.tools import ToolRegistry, Workspace, find_ripgrep, search_tools
from continualcode.types import ToolCall

FILES, IGNORED = 20_000, 20_000
REPEATS = 9
RATIO = 1.5
RARE = "needle_in_a_haystack"
QUESTIONS = (
    ("grep", "one word in 1 of 1,000 files", {"pat": RARE}, ["-n", RARE]),
    ("grep", "a pattern in none", {"pat": r"def [A-Z]\w+_nowhere\("}, ["-n", r"def [A-Z]\w+_nowhere\("]),
    ("grep", "a line of every file", {"pat": "^class "}, ["-n", "^class "]),
    ("glob", "every tenth file", {"pat": "**/*0.py"}, ["--files", "-g", "**/*0.py"]),
    ("glob", "every file", {"pat": "**"}, ["--files"]),
)
"""The tool, what is looked for, the tool's arguments, and the same for rg."""


def main() -> int:
    if (ripgrep := find_ripgrep()) is None:
        print("ripgrep is not installed: pip install 'continualcode[ripgrep]'")
        return 1
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        make(root)
        print(f"{FILES:,} files, {IGNORED:,} ignored; medians of {REPEATS}; {version(ripgrep)}")
        good = [asyncio.run(compare(root, ripgrep, *question)) for question in QUESTIONS]
    return 0 if all(good) else 1


def make(root: Path) -> None:
    """Packages of 20 modules of about 2 kB, node_modules, a virtual environment and build outputs."""
    (root / ".git").mkdir()
    (root / ".gitignore").write_text("node_modules/\n.venv/\n/build/\n*.pyc\n*.log\n!keep.log\n__pycache__/\n")
    chance = random.Random(0)
    words = [f"{start}_{end}" for start in ("read", "write", "send", "open") for end in ("file", "user", "row", "page")]
    for number in range(FILES):
        body = "".join(f"    def {chance.choice(words)}(self, n):\n        return n * {n}\n\n" for n in range(36))
        rare = f"{RARE} = {number}\n" if number % 1000 == 500 else ""
        put(
            root / f"src/area{number // 1000}/package{number // 20}/module{number}.py",
            f"class C{number}:\n{body}{rare}",
        )
    for number in range(IGNORED):
        top = ("node_modules", "web/node_modules", ".venv/lib", "build")[number % 4]
        put(root / f"{top}/p{number // 100}/f{number}.js", f"class {RARE} {{}}\n" * 20)


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


async def compare(root: Path, ripgrep: str, name: str, what: str, arguments: dict[str, str], words: list[str]) -> bool:
    call = ToolCall(name, arguments)
    with_rg, without = (ToolRegistry(search_tools(Workspace(root), ripgrep=program)) for program in (ripgrep, None))
    answers, rg, ours, pure = set[str](), list[float](), list[float](), list[float]()
    for _ in range(REPEATS + 1):
        rg.append(await timed(lambda: asyncio.to_thread(by_hand, root, ripgrep, words)))
        for tools, seconds in ((with_rg, ours), (without, pure)):
            seconds.append(await timed(lambda tools=tools: ask(tools, call, answers)))
    total = len(by_hand(root, ripgrep, words))
    same = len(answers) == 1 and counted(answers.pop()) == total
    alone, with_it, without_it = (statistics.median(seconds[1:]) for seconds in (rg, ours, pure))
    good = same and with_it < RATIO * alone
    print(
        f"{'ok    ' if good else 'MISSED'} {name}, {what}: rg {alone * 1000:.0f} ms, {name} {with_it * 1000:.0f} ms: "
        f"{with_it / alone:.2f}x (target < {RATIO}); in Python alone {without_it * 1000:.0f} ms: {without_it / alone:.1f}x"
        f"; {total:,} found{'' if same else ', BUT NOT THE SAME'}"
    )
    return good


async def ask(tools: ToolRegistry, call: ToolCall, answers: set[str]) -> None:
    answers.add((await tools.call(call)).output)


def by_hand(root: Path, ripgrep: str, words: list[str]) -> list[bytes]:
    found = subprocess.run([ripgrep, "--hidden", "-g", "!.git", *words, "."], cwd=root, capture_output=True)
    return found.stdout.splitlines()


def counted(answer: str) -> int:
    """How many results the tool says that there are; it shows the first 200."""
    lines = answer.splitlines()
    if lines[-1].startswith("... "):
        return len(lines) - 1 + int(lines[-1].split()[1].replace(",", ""))
    return 0 if answer.startswith("no ") else len(lines)


def version(ripgrep: str) -> str:
    return subprocess.run([ripgrep, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]


async def timed(action: Callable[[], Awaitable[object]]) -> float:
    started = time.perf_counter()
    await action()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())

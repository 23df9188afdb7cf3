"""What TestRunner's verdict adds to the test command itself, on a project of 200 files.

python benchmarks/test_runner.py
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from continualcode.approval import TestRunner
from continualcode.tools import find_sandbox
from continualcode.types import Deny, ToolCall, ToolResult

MODULES = 100
COMMAND = f"{sys.executable} -m pytest -q"
ADDED = 0.5
REPEATS = 5


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        make(project)
        return asyncio.run(measure(project))


def make(project: Path) -> None:
    """A repository of 100 modules and a test file for each, with 5 tests in it."""
    for package in ("app", "tests"):
        (project / package).mkdir()
        (project / package / "__init__.py").touch()
    for number in range(MODULES):
        before = f"from app.m{number - 1} import value as previous\n\n" if number else "previous = -1\n\n"
        body = "".join(f"def f{n}(x):\n    return x + {n}\n\n" for n in range(10))
        (project / "app" / f"m{number}.py").write_text(f"{before}value = previous + 1\n\n{body}")
        tests = "".join(f"def test_f{n}():\n    assert m.f{n}(1) == {n + 1}\n\n" for n in range(5))
        (project / "tests" / f"test_m{number}.py").write_text(f"from app import m{number} as m\n\n{tests}")
    subprocess.run(["git", "init", "-q", project], check=True)
    (project / ".gitignore").write_text("__pycache__/\n.pytest_cache/\n")


async def measure(project: Path) -> int:
    runner = TestRunner(project, COMMAND)
    print(f"sandbox: {find_sandbox().kind}")

    def good(n: int) -> ToolCall:
        return change(n, f"return 0 + x + {n % 10}")

    def bad(n: int) -> ToolCall:
        return change(n, f"return x - {n % 10 + 1}")

    def change(n: int, new: str) -> ToolCall:
        return ToolCall("edit", {"path": f"app/m{n}.py", "old": f"return x + {n % 10}\n", "new": f"{new}\n"})

    async def review(call: ToolCall, verdict: type) -> None:
        assert isinstance(await runner.review(None, call), verdict), call

    async def looked_at(n: int) -> float:
        """Seconds spent around a call that was found good, run by hand here."""
        call = good(n)
        await review(call, type(None))
        before = await timed(lambda: runner.about_to_run(call))
        path, old, new = (str(call.arguments[name]) for name in ("path", "old", "new"))
        (project / path).write_text((project / path).read_text().replace(old, new))
        after = await timed(lambda: runner.critique(None, ToolResult("")))
        assert [tried.when for tried in runner.trials()][-1] == "before"
        return before + after

    first = await timed(lambda: review(good(90), type(None)))
    command, passing = [], []
    for n in range(REPEATS + 1):
        command.append(await timed(lambda: asyncio.to_thread(run, project)))
        passing.append(await timed(lambda n=n: review(good(n), type(None))))
    alone = statistics.median(command[1:])
    added = statistics.median(passing[1:]) - alone
    looks = [await looked_at(n) for n in range(20, 20 + REPEATS)]
    denied = [await timed(lambda n=n: review(bad(n), Deny)) for n in range(REPEATS)]
    again = await timed(lambda: review(bad(0), Deny))
    print(f"the test command alone: {alone:.2f} s")
    print(
        f"{'ok    ' if added < ADDED else 'MISSED'} a verdict that lets a call pass adds {added:.2f} s (target < {ADDED})"
    )
    print(f"when that call has run, to see that it did just that takes {statistics.median(looks):.2f} s")
    print(f"the first one of all takes {first:.2f} s")
    print(f"the first denial takes {denied[0]:.2f} s, with a run to know what passed before")
    print(f"a denial adds {statistics.median(denied[1:]) - alone:.2f} s, with what failed run again")
    print(f"the same call again takes {again:.2f} s")
    return 0 if added < ADDED else 1


def run(project: Path) -> None:
    subprocess.run(COMMAND.split(), cwd=project, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


async def timed(action: Callable[[], Awaitable[None]]) -> float:
    started = time.perf_counter()
    await action()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())

"""What grading costs beside one process for each test case: python benchmarks/grading.py [problems]

Solutions of our own problems, the right one and another problem's, are graded three ways in turn: by the grader; by a
bare `python -I -S` for each case, with no limit but time; and a few of them by that in the sandbox. Exit code 1 when
verdicts differ, or when the grader is not five times as fast as bare processes.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeAlias

from livecode.grader import Grader, Status, same
from livecode.judge import IMPORTS
from livecode.problem import Case, Problem
from livecode.sources import load

from continualcode.tools.sandbox import Sandbox
from continualcode.tools.workspace import Workspace

WANTED, ROUNDS, PROBLEMS, CONFINED, SECONDS = 5.0, 3, 24, 4, 20.0
SOLUTIONS = Path(__file__).parent / "livecode" / "solutions.jsonl"
PYTHON = (os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8")
CALL = """
import json as _json, sys as _sys
_owner = Solution() if "Solution" in globals() else _sys.modules["__main__"]
_given = [_json.loads(line) for line in _sys.stdin.read().split("\\n") if line.strip()]
_sys.stdout.write(_json.dumps(_owner.{function}(*_given)))
"""

Task: TypeAlias = tuple[Problem, str]
Verdicts: TypeAlias = list[list[Status]]


async def main(count: int) -> int:
    tasks = solutions(count)
    few = tasks[:CONFINED]
    async with Grader() as grader:
        bare, confined = Processes(grader.workers), Processes(grader.workers, grader.sandbox)
        print(f"{len(tasks)} solutions, {cases_of(tasks)} cases, {grader.workers} at a time; {grader.note}")
        (expected, _), rounds = await by_grader(grader, tasks), []
        for _ in range(ROUNDS):
            found = [await by_grader(grader, tasks), bare.grade(tasks), confined.grade(few)]
            rounds.append([seconds for _, seconds in found])
            if [verdicts for verdicts, _ in found] != [expected, expected, expected[:CONFINED]]:
                print("MISSED: verdicts differ")
                return 1
    counts = {status: sum(each.count(status) for each in expected) for status in ("passed", "wrong", "error")}
    print(f"verdicts are the same: {', '.join(f'{count} {status}' for status, count in counts.items())}")
    return told(rounds, cases_of(tasks), cases_of(few))


def told(rounds: Sequence[Sequence[float]], cases: int, few: int) -> int:
    names = ("the grader", "a bare process for each case", f"a sandboxed one ({few} cases)")
    per_case = [[seconds / count for seconds, count in zip(each, (cases, cases, few), strict=True)] for each in rounds]
    for name, times in zip(names, zip(*per_case, strict=True), strict=True):
        ratio = statistics.median(time / each[0] for time, each in zip(times, per_case, strict=True))
        low, median, high = min(times), statistics.median(times), max(times)
        print(f"{name:30} {1000 * median:7.2f} ms a case ({1000 * low:.2f} - {1000 * high:.2f}), {ratio:5.1f} times")
    ratio = statistics.median(bare / graded for graded, bare, _ in per_case)
    print(f"{'ok' if ratio >= WANTED else 'MISSED'}: {ratio:.1f} times as fast as bare processes, {WANTED:g} wanted")
    return int(ratio < WANTED)


def solutions(count: int) -> list[Task]:
    """Of each problem its own, and that of the next one."""
    problems = load("own", limit=count)
    codes = {row["id"]: row["code"] for row in map(json.loads, SOLUTIONS.read_text().splitlines())}
    pairs = zip(problems, [*problems[1:], problems[0]], strict=True)
    return [(problem, codes[each.id]) for problem, other in pairs for each in (problem, other)]


def cases_of(tasks: Sequence[Task]) -> int:
    return sum(len(problem.cases) for problem, _ in tasks)


async def by_grader(grader: Grader, tasks: Sequence[Task]) -> tuple[Verdicts, float]:
    started = time.perf_counter()
    grades = await asyncio.gather(*(grader.grade(problem, code) for problem, code in tasks))
    return [[v.status for v in grade.verdicts] for grade in grades], time.perf_counter() - started


class Processes:
    """The plain way: for each case a process of its own, `workers` at a time, in a sandbox or none."""

    def __init__(self, workers: int, sandbox: Sandbox | None = None) -> None:
        self._workers, self._sandbox = workers, sandbox

    def grade(self, tasks: Sequence[Task]) -> tuple[Verdicts, float]:
        started = time.perf_counter()
        with ThreadPoolExecutor(self._workers) as pool:
            runs = [
                [pool.submit(self._verdict, problem, code, case) for case in problem.cases] for problem, code in tasks
            ]
            verdicts = [[run.result() for run in each] for each in runs]
        return verdicts, time.perf_counter() - started

    def _verdict(self, problem: Problem, code: str, case: Case) -> Status:
        call = CALL.format(function=problem.function) if problem.function else ""
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder).resolve() / "work"
            work.mkdir()
            (work / "solution.py").write_text(f"{IMPORTS}sys.setrecursionlimit(50000)\n{code}\n{call}")
            (work / "input").write_text(case.input)
            exit_status, output = self._bare(work) if self._sandbox is None else self._confined(self._sandbox, work)
        return "error" if exit_status != 0 else "passed" if same(problem, case, output) else "wrong"

    def _bare(self, work: Path) -> tuple[int, str]:
        with (work / "input").open() as given:
            command = [*PYTHON, str(work / "solution.py")]
            ended = subprocess.run(command, stdin=given, capture_output=True, text=True, timeout=SECONDS)
        return ended.returncode, ended.stdout

    def _confined(self, sandbox: Sandbox, work: Path) -> tuple[int, str]:
        temporary, report = work.parent / "tmp", work.parent / "report"
        temporary.mkdir()
        line = f"exec {shlex.join([*PYTHON, str(work / 'solution.py')])} < {shlex.quote(str(work / 'input'))}"
        lifeline = os.pipe()
        try:
            with report.open("wb") as told:
                argv = sandbox.argv(["/bin/sh", "-c", line], Workspace(work), temporary, told.fileno())
                ended = subprocess.run(
                    argv, stdin=lifeline[0], capture_output=True, text=True, timeout=SECONDS, pass_fds=[told.fileno()]
                )
        finally:
            for end in lifeline:
                os.close(end)
        return json.loads(report.read_text())["code"], ended.stdout


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else PROBLEMS)))

"""What a model is told of a solution that failed, and where the code is in a reply. Runs nothing.

Of private cases only the kinds of failure are told: no input, output or traceback, and no name that a solution chose.
"""

from __future__ import annotations

import builtins
from collections import Counter
from collections.abc import Sequence

from livecode.grader import Grade, Verdict, shortened
from livecode.problem import Case, Problem

SHOWN_CASES, SHOWN_CHARACTERS = 3, 1000
_KINDS = {
    "wrong": "wrong answer",
    "error": "runtime error",
    "timeout": "time limit exceeded",
    "memory": "memory limit exceeded",
    "output": "output limit exceeded",
    "not run": "not run, after too much time",
}


def feedback(problem: Problem, grade: Grade) -> str:
    """The first public cases that failed, or when only hidden ones did, of what kinds; "" when none did."""
    cases = grade.cases or problem.cases
    graded = [(case, verdict, case in problem.public) for case, verdict in zip(cases, grade.verdicts, strict=True)]
    public = [(case, verdict) for case, verdict, shown in graded if shown]
    hidden = [verdict for _, verdict, shown in graded if not shown]
    failed = [(case, verdict) for case, verdict in public if verdict.status != "passed"]
    if not failed:
        return _of_hidden(hidden, all_passed=f"All {len(public)} public tests passed, but " if public else "")
    by_detail = {verdict.detail or str(index): (case, verdict) for index, (case, verdict) in [*enumerate(failed)][::-1]}
    first = list(by_detail.values())[::-1][:SHOWN_CASES]  # of one traceback or limit, the first
    return "\n\n".join([f"{len(failed)} of {len(public)} public tests failed.", *(_of_public(*each) for each in first)])


def code_of(reply: str) -> str | None:
    """As LiveCodeBench finds it: what is between the last two lines with a fence; None when there are no two."""
    lines = reply.split("\n")
    fences = [index for index, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else None


def _of_public(case: Case, verdict: Verdict) -> str:
    told = [_KINDS[verdict.status].capitalize() + ".", f"Input:\n{_shown(case.input)}"]
    if verdict.status == "wrong":
        told += [f"Expected:\n{_shown(case.output)}", f"Got:\n{_shown(verdict.got) or '(nothing)'}"]
    elif verdict.detail:
        told.append(_shown(verdict.detail))
    return "\n".join(told)


def _of_hidden(verdicts: Sequence[Verdict], all_passed: str) -> str:
    kinds = Counter(_kind(verdict) for verdict in verdicts if verdict.status != "passed")
    if not kinds:
        return ""
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    return f"{all_passed}{kinds.total()} of {len(verdicts)} hidden tests failed: {counts}."


def _kind(verdict: Verdict) -> str:
    """With the class of an exception, if it is one of Python's own: others have names of the solution's choice."""
    name = verdict.detail.rpartition("\n")[2].partition(":")[0]
    known = isinstance(getattr(builtins, name, None), type) and issubclass(getattr(builtins, name), BaseException)
    return f"{_KINDS[verdict.status]} ({name})" if verdict.status == "error" and known else _KINDS[verdict.status]


def _shown(text: str) -> str:
    return shortened(text.strip("\n"), SHOWN_CHARACTERS)

"""TestRunner: denies what breaks a test that passed before, found out in a copy of the workspace."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

from continualcode.approval import unittest_report
from continualcode.approval.bench import Bench, Ran
from continualcode.approval.trial import Trials, Where, head, tail
from continualcode.errors import ConfigError
from continualcode.tools import Workspace
from continualcode.tools.sandbox import Sandbox

TESTS_SHOWN = 3
_FRAME_LINES = 4
_SAID_LINES = 8
_UNITTEST = re.compile(r"(-m\s+)unittest(?=\s|$)")
_FOREIGN = re.compile(r'^(?:/\S+:\d+: in |  File "/).*\n(?:    .*\n)*', re.MULTILINE)
"""A frame outside of the workspace."""
_NO_SUCH_MODULE = re.compile(r"No module named '?(pytest|unittest)\b")


class TestRunner(Trials["_Outcome"]):
    """Runs `command` on a copy of the workspace in which the call has been made, and denies if that breaks a test.

    A test is broken that passed before and fails now, twice in a row; the reason is its own output, shortened. New
    tests may fail, and what failed before is not blamed on the call. pytest and unittest are judged test by test
    (pytest however it is started; unittest as `python -m unittest ...`), any other command by its exit code.

    As a gate it tries calls of the tools that write files, and of bash where bubblewrap confines that to the copy and
    gives it no network; it leaves others to the next gate. As a critic it judges what an approved call has really done
    since it was `about_to_run`, unless that is just what it has tried and found good. Trying runs code that nobody has
    approved yet, and only the sandbox keeps that from doing harm. What a trial cost is in `last`.

    Args:
        workspace: the workspace itself, or its folder.
        time_limit: of one run, in seconds.
        approve: approve a tool that writes files when that breaks nothing, instead of leaving it to the next gate.
        also: ignored files and folders that the tests need.
        sandbox: what confines the tests and the calls tried; default: the best that is found, without network.

    `review` and `critique` raise ConfigError as long as the tests have never run: no such program, or not within the limit.
    """

    __test__ = False  # no test case, whatever pytest thinks of the name

    def __init__(
        self,
        workspace: Workspace | Path | str,
        command: str = "pytest -q",
        *,
        time_limit: float = 300.0,
        approve: bool = False,
        also: Iterable[str] = (),
        sandbox: Sandbox | None = None,
    ) -> None:
        where = Where(workspace, tuple(also), time_limit, sandbox)
        super().__init__(where, _Tests(command), approve=approve)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """One run of the tests."""

    ran: Ran
    passed: frozenset[str]
    failed: Mapping[str, str] | None
    """By test, its shortened output; None: the command said nothing of single tests."""
    folder: Path
    """Where pytest noted which tests failed."""

    @property
    def usable(self) -> bool:
        return self.ran.can_run and (self.failed is not None or not _NO_SUCH_MODULE.search(self.ran.output))


class _Tests:
    """The Check behind TestRunner."""

    def __init__(self, command: str) -> None:
        if not command.strip():
            raise ConfigError("the test command is empty; give one such as 'pytest -q'")
        self._command = command
        self._ever_ran = False
        self._reports = "pytest" in command or _UNITTEST.search(command) is not None

    def command(self, paths: Iterable[str]) -> str:
        return self._command

    async def look(self, bench: Bench, command: str) -> _Outcome:
        outcome = await _run(bench, command, bench.folder())
        self._ever_ran |= outcome.usable
        self._reports |= bool(outcome.passed)
        return outcome

    def fine(self, found: _Outcome) -> bool:
        """An exit code of 0 is not enough where tests should have been reported: a change can end them early."""
        return found.ran.code == 0 and (bool(found.passed) or not self._reports)

    def tells(self, before: _Outcome) -> bool:
        if not (before.usable or self._ever_ran):
            code, output = before.ran.code, before.ran.output
            what = f"cannot be run:\n{tail(output)}" if code is not None else "takes longer than the time limit"
            raise ConfigError(f"the test command `{self._command}` {what}")
        return before.usable and (before.ran.code == 0 or bool(before.passed))

    def blame(self, before: _Outcome, after: _Outcome) -> str | None:
        if after.ran.code is None:
            return "with this change the tests do not end within the time limit, as they did before"
        if after.failed:
            return _broken(before, after, after.failed)
        if before.passed and not after.passed:
            return f"with this change `{self._command}` runs no test any more:\n{tail(after.ran.output)}"
        if after.ran.code and before.ran.code == 0:
            return f"with this change `{self._command}` fails, as it did not before:\n{tail(after.ran.output)}"
        return None

    def summary(self, found: _Outcome) -> str:
        if found.failed is None:
            return ""
        return f"{len(found.passed):,} passed" + (f", {len(found.failed):,} failed" if found.failed else "")

    async def confirm(self, bench: Bench, command: str, after: _Outcome) -> _Outcome:
        """pytest runs only what failed again; others run whole."""
        if after.ran.code is None:
            return after
        again = await _run(bench, command, after.folder, "--last-failed") if after.failed is not None else None
        if again is None or again.failed is None:
            again = await _run(bench, command, after.folder)
        if after.failed is None or again.failed is None:
            return again
        both = {test: text for test, text in again.failed.items() if test in after.failed}
        code = again.ran.code if not after.failed else int(bool(both))  # a part of the tests may miss a coverage
        return replace(after, ran=replace(again.ran, code=code), passed=after.passed | again.passed, failed=both)


async def _run(bench: Bench, command: str, folder: Path, *options: str) -> _Outcome:
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    shutil.copy(unittest_report.__file__, folder)
    told = [f"--junitxml={report}", "-o junit_family=xunit1", "-o junit_logging=no", f"-o cache_dir={folder / 'cache'}"]
    told += ["--tb=short", "--color=no", "--continue-on-collection-errors", *options]
    addopts = " ".join([os.environ.get("PYTEST_ADDOPTS", ""), *told]).strip()
    recorded = _UNITTEST.sub(lambda found: f"{found[1]}unittest_report {shlex.quote(str(report))}", command)
    ran = await bench.run(recorded, PYTEST_ADDOPTS=addopts, also_import_from=folder)
    passed, failed = _read(report, bench) if ran.code is not None and report.exists() else (frozenset(), None)
    return _Outcome(ran, passed, failed, folder)


def _read(report: Path, bench: Bench) -> tuple[frozenset[str], dict[str, str] | None]:
    """Who passed, and who failed of what. A test may be there twice, for its call and its teardown."""
    passed, failed, other = set[str](), dict[str, str](), set[str]()
    try:
        cases = list(ElementTree.parse(report).iter("testcase"))
    except ElementTree.ParseError:  # whoever wrote it was stopped half way
        return frozenset(), None
    for case in cases:
        test = _name(case)
        fault = case.find("failure") if case.find("failure") is not None else case.find("error")
        if fault is not None:
            failed[test] = _shortened(bench.steady(fault.text or ""))
        else:
            (passed if case.find("skipped") is None else other).add(test)
    return frozenset(passed - failed.keys() - other), failed


def _name(case: ElementTree.Element) -> str:
    """As one would hand it to pytest: file::Class::name; unittest's names are whole already."""
    name, owner, file = (case.get(key, "") for key in ("name", "classname", "file"))
    module = file.removesuffix(".py").replace("/", ".")
    if not file:
        return f"{owner}.{name}" if owner else name
    if not owner:
        return file
    return "::".join([file, *filter(None, owner.removeprefix(module).split(".")), name])


def _broken(before: _Outcome, after: _Outcome, failed: Mapping[str, str]) -> str | None:
    gone = before.passed - after.passed - failed.keys()

    def stands_for_others(test: str) -> bool:
        """A file or class that cannot be loaded any more fails in place of its tests."""
        return any(other.startswith((f"{test}::", f"{test}.")) for other in gone)

    new = [test for test in failed if before.failed is None or test not in before.failed]
    broken = [test for test in new if test in before.passed or stands_for_others(test)]
    if not broken:
        return None
    shown = [f"{test}\n{failed[test]}" for test in broken[:TESTS_SHOWN]]
    rest = broken[TESTS_SHOWN:]
    more = [f"and {len(rest)} more:\n{head(rest)}"] if rest else []
    counted = "a test that passed" if len(broken) == 1 else f"{len(broken)} tests that passed"
    return "\n\n".join([f"this breaks {counted} before:", *shown, *more])


def _shortened(text: str) -> str:
    """The last frames and what was wrong, in a few lines."""
    lines = [line for line in _FOREIGN.sub("", text).splitlines() if line.strip(" ^~")]
    said = {index for index, line in enumerate(lines) if line.startswith("E ")}
    if not said:
        return tail("\n".join(lines))
    start = max(said)
    while start - 1 in said:
        start -= 1
    begin = max((index + 1 for index in said if index < start), default=0)
    kept = [*lines[max(begin, start - _FRAME_LINES) : start], *lines[start : start + _SAID_LINES]]
    return tail("\n".join(kept))

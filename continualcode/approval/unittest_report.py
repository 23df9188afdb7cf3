"""Runs unittest as `python -m unittest` would and writes each test's outcome as JUnit XML; a program of its own.

It is copied beside the tests and run by their Python, whichever that is: python -m unittest_report REPORT ARGUMENTS...
"""

import re
import sys
import unittest
from typing import ClassVar
from xml.etree import ElementTree


class Recorder(unittest.TextTestResult):
    """Also keeps which tests passed."""

    passed: ClassVar[list[unittest.TestCase]] = []

    def addSuccess(self, test: unittest.TestCase) -> None:
        super().addSuccess(test)
        self.passed.append(test)


class Runner(unittest.TextTestRunner):
    resultclass = Recorder  # type: ignore[assignment]


def name_of(test: unittest.TestCase) -> str:
    """A subtest goes by its test; what failed before any test could run, by its module or class."""
    name = getattr(test, "test_case", test).id()
    inside = re.search(r"\(([\w.]+)\)$", name)
    return inside.group(1) if inside else name.replace("unittest.loader._FailedTest.", "")


def main(report: str, *arguments: str) -> None:
    program = unittest.TestProgram(None, argv=["python -m unittest", *arguments], testRunner=Runner, exit=False)
    suite = ElementTree.Element("testsuite")
    for test in Recorder.passed:
        ElementTree.SubElement(suite, "testcase", name=name_of(test))
    for test, text in program.result.failures + program.result.errors:
        case = ElementTree.SubElement(suite, "testcase", name=name_of(test))
        # XML cannot hold control characters
        ElementTree.SubElement(case, "failure").text = re.sub(r"[^\t\n\x20-\ud7ff\ue000-\ufffd]", "?", text)
    ElementTree.ElementTree(suite).write(report)
    sys.exit(not program.result.wasSuccessful())


if __name__ == "__main__":
    main(*sys.argv[1:])

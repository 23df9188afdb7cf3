"""A problem as a small model can be asked it. Knows no model and no renderer."""

from __future__ import annotations

import textwrap

from continualcode.sdpo import RepromptTemplate
from continualcode.types import Conversation, Message
from livecode.problem import Problem

PLAIN_TEMPLATE = RepromptTemplate(
    feedback="\n\nAn earlier answer was wrong:\n\n{feedback}",
    closing="\n\nAnswer with the correct code in one ```python block.",
)
"""For the teacher, who otherwise forgets what an answer looks like."""


def plain_conversation(problem: Problem) -> Conversation:
    """For small models: few words, a worked example before the question, and a function in the place of a method."""
    example = FUNCTION_EXAMPLE if problem.function else PROGRAM_EXAMPLE
    statement, starter, code = example
    shown = Message("user", _asked(statement, starter)), Message("assistant", f"```python\n{code}\n```")
    return Conversation((*shown, Message("user", _asked(problem.statement, _function(problem.starter)))))


FUNCTION_EXAMPLE = (
    "Return the product of a and b.\n\nExample: product(2, 3) returns 6.",
    "def product(a: int, b: int) -> int:",
    "def product(a: int, b: int) -> int:\n    return a * b",
)
PROGRAM_EXAMPLE = (
    "Two integers are given on one line. Print their product.\n\nSample Input:\n2 3\n\nSample Output:\n6",
    "",
    "a, b = map(int, input().split())\nprint(a * b)",
)


def _asked(statement: str, starter: str) -> str:
    how = f"Complete this function:\n```python\n{starter}\n```" if starter else "Write a Python program."
    return f"{statement}\n\n{how}"


def _function(starter: str) -> str:
    """What a starter of one method without anything else is as a function."""
    _, found, method = starter.partition("class Solution:\n")
    return textwrap.dedent(method).replace("(self, ", "(", 1).rstrip() if found else starter.rstrip()

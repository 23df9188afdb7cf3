"""What a programming problem is: a statement and tests, on stdin and stdout or of a function. Knows no source and no grader."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Case:
    """A test. stdin problems: the text that goes in and the text expected out. Functions: JSON, an argument a line, and
    the JSON expected back, as LiveCodeBench writes them."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Problem:
    """`public` cases may be shown to a model; of `private` ones nothing but the verdict may reach it."""

    id: str
    title: str
    statement: str
    public: tuple[Case, ...]
    private: tuple[Case, ...]
    function: str | None = None
    """The method of `class Solution` that is called; None: a program on stdin and stdout."""
    starter: str = ""
    difficulty: str = ""
    platform: str = ""
    date: str = ""
    """Of the contest, ISO 8601."""

    @property
    def cases(self) -> tuple[Case, ...]:
        return self.public + self.private

"""A change to a file as the lines a person reviews. Pure: two texts in, lines with numbers out."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

CONTEXT = 3
MATCHED_LINES = 2_000
"""Beyond this many lines that differ, pairing them up takes too long: they are shown as removed, then added."""


@dataclass(frozen=True, slots=True)
class DiffLine:
    """One line of a diff. `number` counts from 1: in the old file for removed lines, else in the new one."""

    kind: Literal["context", "removed", "added", "gap", "note"]
    number: int | None
    text: str


@dataclass(frozen=True, slots=True)
class Diff:
    """All lines of a change, with the counts of what it adds and removes."""

    lines: tuple[DiffLine, ...]
    added: int
    removed: int


def diff(before: str, after: str) -> Diff:
    """The unified diff, three lines of context; lines end at \\n only, as the tools count them."""
    old, new = _lines(before), _lines(after)
    crlf = _is_crlf(old) and _is_crlf(new)
    lines = tuple(_number(old, new, crlf))
    return Diff(lines, _count(lines, "added"), _count(lines, "removed"))


def _number(old: Sequence[str], new: Sequence[str], crlf: bool) -> Iterator[DiffLine]:
    for index, group in enumerate(_hunks(old, new)):
        if index:
            yield DiffLine("gap", None, "")
        for tag, i1, i2, j1, j2 in group:
            if tag == "equal":
                for offset, line in enumerate(new[j1:j2]):
                    yield from _shown("context", j1 + offset + 1, line, crlf)
                continue
            for offset, line in enumerate(old[i1:i2]):
                yield from _shown("removed", i1 + offset + 1, line, crlf)
            for offset, line in enumerate(new[j1:j2]):
                yield from _shown("added", j1 + offset + 1, line, crlf)


def _shown(kind: Literal["context", "removed", "added"], number: int, line: str, crlf: bool) -> Iterator[DiffLine]:
    yield DiffLine(kind, number, line.removesuffix("\r\n" if crlf else "\n").removesuffix("\n"))
    if not line.endswith("\n"):
        yield DiffLine("note", None, "no newline at the end of the file")


_Opcode = tuple[str, int, int, int, int]


def _hunks(old: Sequence[str], new: Sequence[str]) -> Iterator[list[_Opcode]]:
    """difflib's grouped opcodes, worked out between the common beginning and the common end."""
    head = _common(old, new)
    tail = _common(old[head:][::-1], new[head:][::-1])
    start, after = max(0, head - CONTEXT), max(0, tail - CONTEXT)
    old, new = old[start : len(old) - after], new[start : len(new) - after]
    if max(len(old), len(new)) > MATCHED_LINES:
        left, right = head - start, tail - after
        groups = [
            [
                ("equal", 0, left, 0, left),
                ("replace", left, len(old) - right, left, len(new) - right),
                ("equal", len(old) - right, len(old), len(new) - right, len(new)),
            ]
        ]
    else:
        groups = list(SequenceMatcher(None, old, new, autojunk=False).get_grouped_opcodes(CONTEXT))
    for group in groups:
        yield [(tag, i1 + start, i2 + start, j1 + start, j2 + start) for tag, i1, i2, j1, j2 in group]


def _common(old: Sequence[str], new: Sequence[str]) -> int:
    count = 0
    for left, right in zip(old, new, strict=False):
        if left != right:
            break
        count += 1
    return count


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _is_crlf(lines: Sequence[str]) -> bool:
    return all(line.endswith("\r\n") for line in lines if line.endswith("\n"))


def _count(lines: Sequence[DiffLine], kind: str) -> int:
    return sum(line.kind == kind for line in lines)

"""Where problems come from: our own, LiveCodeBench, DeepCoder or a file. Knows no model, no prompt and no grader."""

from __future__ import annotations

import base64
import hashlib
import heapq
import json
import pickletools
import re
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, TypeAlias, TypeVar

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from continualcode.errors import ConfigError
from livecode import deepcoder
from livecode.deepcoder import parse_deepcoder
from livecode.problem import Case, Problem

__all__ = ["load", "parse_deepcoder", "parse_livecodebench"]

T = TypeVar("T")
Split: TypeAlias = Literal["train", "test"]
OWN = Path(__file__).with_name("own.jsonl")
LIVECODEBENCH = "livecodebench/code_generation_lite"
RELEASES = {f"release_v{n}": ["test.jsonl", *(f"test{i}.jsonl" for i in range(2, n + 1))] for n in range(1, 7)}
RELEASES["release_latest"] = RELEASES["release_v6"]
"""Each release adds a file. They are read as they are: the repository's loading script no longer runs in `datasets` >= 4."""
MOST_TEXT = 1 << 30
"""Bytes that the tests of one problem may unpack to."""


def load(
    name: str,
    *,
    split: Split = "train",
    since: str | None = None,
    until: str | None = None,
    limit: int = -1,
    seed: int = 42,
) -> list[Problem]:
    """The problems of `name`: "own", a .jsonl (ours or LiveCodeBench's), "release_v1" ... "release_v6", "release_latest",
    "deepcoder:taco" ..., or several joined by "+".

    DeepCoder's sets keep their published splits; of all else a quarter, by a hash of the id, is "test". A problem that
    two joined sources hold is loaded once, and only from "test" if either has it there. `since` and `until` (inclusive,
    ISO 8601) bound the contest's date. The order, and which `limit` are taken (-1: all), depend on seed and ids alone.
    """
    first, last = (_day(text) if text else None for text in (since, until))
    seen = {_key(problem) for problem in _problems(name, "test")} if split == "train" and "+" in name else set()
    found = (problem for problem in _unseen(_problems(name, split), seen) if _within(problem, first, last))
    most = limit if limit >= 0 else sys.maxsize
    # Holds no more than `most` at any time: the tests of a whole release are large.
    problems = heapq.nsmallest(
        most, found, key=lambda problem: hashlib.sha256(f"{seed}/{problem.id}".encode()).digest()
    )
    if not problems and most:
        hint = "; deepcoder:taco and :primeintellect have only train, :codeforces only test: join sources with +"
        raise ConfigError(f"{name}: no problem in split {split!r}, since={since}, until={until}{hint}")
    return problems


def parse_livecodebench(row: Mapping[str, object]) -> Problem:
    """A row of code_generation_lite, as its files have it."""
    read = _validated(_ROW, row, f"problem {row.get('question_id')!r}")
    tests = read.public_test_cases + read.private_test_cases
    function, kinds = read.metadata.func_name, {test.testtype for test in tests}
    if kinds != {"functional" if function else "stdin"}:
        raise ConfigError(f"problem {read.question_id!r}: func_name is {function!r}, its tests are {sorted(kinds)}")
    cases, shown = tuple(Case(test.input, test.output) for test in tests), len(read.public_test_cases)
    return Problem(
        id=read.question_id,
        title=read.question_title,
        statement=read.question_content,
        public=cases[:shown],
        private=cases[shown:],
        function=function,
        starter=read.starter_code,
        difficulty=read.difficulty,
        platform=read.platform,
        date=read.contest_date,
    )


def _problems(name: str, split: Split) -> Iterator[Problem]:
    for part in name.split("+"):
        if part.startswith("deepcoder:"):
            yield from deepcoder.problems(part.removeprefix("deepcoder:"), split)
        else:
            read = (problem for path in _files(part) for problem in _read(path))
            yield from (problem for problem in read if _split(problem.id) == split)


def _files(name: str) -> list[Path]:
    if name in RELEASES:
        return [_downloaded(file) for file in RELEASES[name]]
    path = OWN if name == "own" else Path(name)
    if not path.is_file():
        known = ", ".join(["own", *RELEASES, *(f"deepcoder:{config}" for config in deepcoder.SPLITS)])
        raise ConfigError(f"no file and no source {name!r}; sources: {known}")
    return [path]


def _downloaded(file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(LIVECODEBENCH, file, repo_type="dataset"))
    except OSError as failed:
        raise ConfigError(f"no {file} of {LIVECODEBENCH}: {failed}; or give the path of a copy") from failed


def _read(path: Path) -> Iterator[Problem]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            row = _validated(_JSON_OBJECT, line, f"{path}, line {number}")
            theirs = "question_id" in row
            yield parse_livecodebench(row) if theirs else _validated(_PROBLEM, row, f"problem {row.get('id')!r}")


def _split(name: str) -> Split:
    return "test" if hashlib.sha256(name.encode()).digest()[0] % 4 == 0 else "train"


def _key(problem: Problem) -> str:
    """The statement without what may differ in a copy: spaces, punctuation, case."""
    return "".join(re.findall(r"\w", problem.statement.lower()))


def _unseen(problems: Iterable[Problem], seen: set[str]) -> Iterator[Problem]:
    for problem in problems:
        if (key := _key(problem)) not in seen:
            seen.add(key)
            yield problem


def _within(problem: Problem, since: date | None, until: date | None) -> bool:
    if since is None and until is None:
        return True
    day = _day(problem.date[:10], f" of problem {problem.id!r}")
    return (since is None or since <= day) and (until is None or day <= until)


def _day(text: str, whose: str = "") -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as bad:
        raise ConfigError(f"a date{whose} is one like 2024-08-31, not {text!r}") from bad


def _decoded(value: object) -> object:
    """A column that holds JSON: as text, as base64(zlib(pickle(text))), or read already."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return json.loads(_unpacked(value))


def _unpacked(packed: str) -> str:
    """The text in a pickle that holds nothing but one text. It is only read: what was downloaded must not run."""
    try:
        pickled = zlib.decompressobj().decompress(base64.b64decode(packed, validate=True), MOST_TEXT)
        steps = [(step.name, value) for step, value, _ in pickletools.genops(pickled)]
    except (ValueError, zlib.error) as bad:
        raise ValueError(f"neither JSON nor base64(zlib(pickle(JSON))): {bad}") from bad
    texts = [value for _, value in steps if isinstance(value, str)]
    if len(texts) != 1 or not {name for name, _ in steps} <= _TEXT_STEPS:
        raise ValueError(f"a pickle of more than one text: {[name for name, _ in steps][:12]}")
    return texts[0]


_TEXT_STEPS = {"PROTO", "FRAME", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "MEMOIZE", "BINPUT", "STOP"}


def _validated(kind: TypeAdapter[T], value: object, what: str) -> T:
    try:
        return kind.validate_json(value) if isinstance(value, str) else kind.validate_python(value)
    except ValidationError as bad:
        first = bad.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{what}: {where}: {first['msg']}; found {first['input']!r:.80}") from bad


class _Test(BaseModel):
    input: str
    output: str
    testtype: Literal["stdin", "functional"]


class _Metadata(BaseModel):
    func_name: str | None = None


class _Row(BaseModel):
    question_id: str
    question_title: str
    question_content: str
    platform: str
    contest_date: str
    starter_code: str
    difficulty: str
    public_test_cases: Annotated[list[_Test], BeforeValidator(_decoded)]
    private_test_cases: Annotated[list[_Test], BeforeValidator(_decoded)]
    metadata: Annotated[_Metadata, BeforeValidator(_decoded)]


_ROW = TypeAdapter(_Row)
_PROBLEM = TypeAdapter(Problem)
_JSON_OBJECT = TypeAdapter(dict[str, object])

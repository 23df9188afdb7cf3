"""Where problems come from: our own, LiveCodeBench, DeepCoder or a file. Knows no model, no prompt and no grader."""

from __future__ import annotations

import base64
import binascii
import hashlib
import heapq
import io
import json
import pickle
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from continualcode.errors import ConfigError

from . import deepcoder
from .deepcoder import parse_deepcoder
from .problem import Case, Problem

__all__ = ["load", "parse_deepcoder", "parse_livecodebench"]

Split: TypeAlias = Literal["train", "test"]
OWN = Path(__file__).with_name("own.jsonl")
LIVECODEBENCH = "livecodebench/code_generation_lite"
RELEASES = {f"release_v{n}": ["test.jsonl", *(f"test{i}.jsonl" for i in range(2, n + 1))] for n in range(1, 7)}
RELEASES["release_latest"] = RELEASES["release_v6"]
"""Each release adds a file to those before it. The files are read as they are: `datasets` no longer runs the script with
which that repository is loaded."""
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
    """The problems of `name`: "own", a .jsonl (ours or LiveCodeBench's), "release_v1" ... "release_v6",
    "release_latest", "deepcoder:taco" ..., or several joined by "+".

    DeepCoder's sets keep their published splits; of all else a quarter, by a hash of the id, is "test". A problem that
    two joined sources hold is loaded once, and from "test" if either has it there. `since` and `until` (inclusive, ISO 8601)
    bound the contest's date. The order, and which `limit` are taken (-1: all), depends on `seed` and the ids alone.
    """
    window = _day(since, "since"), _day(until, "until")
    held_out = {_key(problem) for problem in _problems(name, "test")} if split == "train" and "+" in name else set()
    found = (problem for problem in _unseen(_problems(name, split), held_out) if _within(problem, *window))
    count = len(problems := _ordered(found, limit, seed))
    if not count and limit:
        lacking = "; of DeepCoder, taco and primeintellect have only train, codeforces only test: join them with +"
        raise ConfigError(f"{name}: no problem in split {split!r}, since={since}, until={until}{lacking}")
    return problems


def parse_livecodebench(row: Mapping[str, object]) -> Problem:
    """A row of code_generation_lite, as its files have it."""
    try:
        read = _ROW.validate_python(row)
    except ValidationError as bad:
        raise _malformed(row.get("question_id"), bad) from bad
    function = read.metadata.get("func_name")
    kinds = {test.testtype for test in read.public_test_cases + read.private_test_cases}
    if kinds != ({"functional"} if function else {"stdin"}):
        raise ConfigError(f"problem {read.question_id!r}: func_name is {function!r}, its tests are {sorted(kinds)}")
    return Problem(
        id=read.question_id,
        title=read.question_title,
        statement=read.question_content,
        public=_cases(read.public_test_cases),
        private=_cases(read.private_test_cases),
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
            rows = (row for path in _files(part) for row in _rows(path))
            yield from (problem for problem in map(_parsed, rows) if _split(problem.id) == split)


def _files(name: str) -> list[Path]:
    if name == "own":
        return [OWN]
    if name in RELEASES:
        return [_downloaded(file) for file in RELEASES[name]]
    if Path(name).is_file():
        return [Path(name)]
    known = ", ".join(["own", *RELEASES, *(f"deepcoder:{config}" for config in deepcoder.SPLITS)])
    raise ConfigError(f"no file and no source {name!r}; sources: {known}")


def _downloaded(file: str) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(LIVECODEBENCH, file, repo_type="dataset"))
    except OSError as failed:
        advice = f"fetch it elsewhere and give its path, or put it into Hugging Face's cache: {failed}"
        raise ConfigError(f"could not download {file} of {LIVECODEBENCH}; {advice}") from failed


def _rows(path: Path) -> Iterator[Mapping[str, object]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except ValueError as bad:
                raise ConfigError(f"{path}, line {number}: not JSON: {bad}") from bad
            if not isinstance(row, dict):
                raise ConfigError(f"{path}, line {number}: a problem is a JSON object, not {line!r:.60}")
            yield row


def _parsed(row: Mapping[str, object]) -> Problem:
    if "question_id" in row:
        return parse_livecodebench(row)
    try:
        return _PROBLEM.validate_python(row)
    except ValidationError as bad:
        raise _malformed(row.get("id"), bad) from bad


def _split(name: str) -> Split:
    return "test" if hashlib.sha256(name.encode()).digest()[0] % 4 == 0 else "train"


def _key(problem: Problem) -> str:
    """The statement without what a copy of it may change: spaces, punctuation, case."""
    return "".join(re.findall(r"\w", problem.statement.lower()))


def _unseen(problems: Iterable[Problem], seen: set[str]) -> Iterator[Problem]:
    for problem in problems:
        if (key := _key(problem)) not in seen:
            seen.add(key)
            yield problem


def _day(text: str | None, which: str) -> date | None:
    try:
        return None if text is None else date.fromisoformat(text)
    except ValueError as bad:
        raise ConfigError(f"{which} is a date like 2024-08-31, not {text!r}") from bad


def _within(problem: Problem, since: date | None, until: date | None) -> bool:
    if since is None and until is None:
        return True
    try:
        day = date.fromisoformat(problem.date[:10])
    except ValueError as bad:
        raise ConfigError(
            f"problem {problem.id!r} has no date ({problem.date!r}) for since and until to bound"
        ) from bad
    return (since is None or since <= day) and (until is None or day <= until)


def _ordered(problems: Iterable[Problem], limit: int, seed: int) -> list[Problem]:
    """At no time more than `limit` are held: the tests of a whole release take gigabytes."""

    def place(problem: Problem) -> bytes:
        return hashlib.sha256(f"{seed}/{problem.id}".encode()).digest()

    return sorted(problems, key=place) if limit < 0 else heapq.nsmallest(limit, problems, key=place)


def _decoded(value: object) -> object:
    """Of a column that holds JSON: as text, as base64(zlib(pickle(text))), or read already."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return json.loads(_unpacked(value))


def _unpacked(packed: str) -> str:
    try:
        unzip = zlib.decompressobj()
        text = _TextUnpickler(io.BytesIO(unzip.decompress(base64.b64decode(packed, validate=True), MOST_TEXT))).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, IndexError, KeyError) as bad:
        raise ValueError(f"neither JSON nor base64(zlib(pickle(JSON))): {bad}") from bad
    if not isinstance(text, str):
        raise ValueError(f"the pickle holds {type(text).__name__}, not text")
    return text


class _TextUnpickler(pickle.Unpickler):
    """What is downloaded names no class or function to call: a pickle of text needs none."""

    def find_class(self, module: str, name: str) -> object:
        raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}")


def _malformed(name: object, bad: ValidationError) -> ConfigError:
    first = bad.errors(include_url=False)[0]
    where = ".".join(map(str, first["loc"]))
    return ConfigError(f"problem {name!r}: {where}: {first['msg']}; found {first['input']!r:.80}")


class _Test(BaseModel):
    input: str
    output: str
    testtype: Literal["stdin", "functional"]


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
    metadata: Annotated[dict[str, str | None], BeforeValidator(_decoded)]


def _cases(tests: list[_Test]) -> tuple[Case, ...]:
    return tuple(Case(test.input, test.output) for test in tests)


_ROW = TypeAdapter(_Row)
_PROBLEM = TypeAdapter(Problem)

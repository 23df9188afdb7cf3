"""DeepCoder's problems (agentica-org/DeepCoder-Preview-Dataset): four sets, each with tests in a shape of its own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from continualcode.errors import ConfigError, MissingExtraError
from livecode.problem import Case, Problem

Test: TypeAlias = Mapping[str, Any]
DATASET = "agentica-org/DeepCoder-Preview-Dataset"
SPLITS = {"taco": ["train"], "primeintellect": ["train"], "codeforces": ["test"], "lcbv5": ["train", "test"]}
"""As published. A set has no problem in a split that it lacks."""
log = logging.getLogger(__name__)


def problems(name: str, split: str) -> Iterator[Problem]:
    """The set `name`, in its own order; how many rows had no usable tests is logged."""
    if name not in SPLITS:
        raise ConfigError(f"no set {name!r} in DeepCoder; there are: {', '.join(SPLITS)}")
    if split not in SPLITS[name]:
        return
    try:
        from datasets import load_dataset
    except ImportError as missing:
        raise MissingExtraError(f"deepcoder:{name}", "bench") from missing
    try:
        rows = load_dataset(DATASET, name, split=split)
    except (OSError, ValueError) as failed:
        raise ConfigError(f"could not load {DATASET} ({name}, {split}): {failed}") from failed
    usable = 0
    for problem in map(parse_deepcoder, rows):
        if problem is not None:
            usable += 1
            yield problem
    if usable < len(rows):
        log.warning("deepcoder:%s: %d of %d rows have no usable tests", name, len(rows) - usable, len(rows))


def parse_deepcoder(row: Mapping[str, object]) -> Problem | None:
    """None if the row has no usable tests. Its id is a hash of the statement, as rows have none. Which cases are public
    is not said: the first two are taken for the statement's samples, or half of them where there are fewer than four."""
    statement = row.get("problem")
    if not isinstance(statement, str) or not statement.strip():
        raise ConfigError(f"a DeepCoder row has a text `problem`, not {statement!r:.60}; its columns: {sorted(row)}")
    name = f"deepcoder-{hashlib.sha256(statement.encode()).hexdigest()[:16]}"
    tests = _tests(row.get("tests"), name)
    functions = {_function(test, row, name) for test in tests}
    if len(functions) != 1 or "" in functions:
        return None
    function = functions.pop()
    cases = _calls(tests) if function else [Case(_text(test["input"]), _text(test["output"])) for test in tests]
    if not cases:
        return None
    starter = row.get("starter_code") or (_starter(function, cases[0]) if function else "")
    shown = min(2, len(cases) // 2)
    return Problem(name, name, statement, tuple(cases[:shown]), tuple(cases[shown:]), function, str(starter))


def _loaded(text: str, name: str) -> object:
    try:
        return json.loads(text)
    except ValueError as bad:
        raise ConfigError(f"{name}: not JSON ({bad}): {text!r:.60}") from bad


def _tests(found: Any, name: str) -> list[Test]:
    """Any of the shapes as a flat list of {"input", "output", ...}. Inputs and outputs that do not pair up are no tests."""
    match found:
        case None:
            return []
        case str():
            return _tests(_loaded(found, name), name)
        case {"inputs": list(inputs), "outputs": list(outputs), **others}:
            pairs = zip(inputs, outputs, strict=True) if len(inputs) == len(outputs) else ()
            return [{**others, "input": given, "output": wanted} for given, wanted in pairs]
        case {"input": _, "output": _}:
            return [found]
        case list():
            return [test for item in found for test in _tests(item, name)]
    raise ConfigError(f"{name}: a test is {{input, output}} or {{inputs, outputs}}, not {found!r:.80}")


def _function(test: Test, row: Mapping[str, object], name: str) -> str | None:
    """The function that the test calls; None: it is of a program; "": of a function without a name."""
    if test.get("fn_name"):
        return str(test["fn_name"])
    if (test.get("testtype") or test.get("type")) not in ("functional", "function_call"):
        return None
    for metadata in (test.get("metadata"), row.get("metadata")):
        match _loaded(metadata, name) if isinstance(metadata, str) else metadata:
            case {"func_name": str(function)}:
                return function
    return ""


def _calls(tests: list[Test]) -> list[Case]:
    """Arguments and result as JSON. TACO and PrimeIntellect put a result into a list of one: it is taken for that if
    every result of the problem is such a list. Text is LiveCodeBench's form already; if it is not JSON, there are no cases."""
    lone = all(isinstance(test["output"], list) and len(test["output"]) == 1 for test in tests)
    cases = []
    for given, wanted in ((test["input"], test["output"]) for test in tests):
        if isinstance(given, str) and isinstance(wanted, str):
            try:
                arguments, wanted = [json.loads(line) for line in given.split("\n")], json.loads(wanted)
            except ValueError:
                return []
        else:
            arguments, wanted = given if isinstance(given, list) else [given], wanted[0] if lone else wanted
        cases.append(Case("\n".join(map(json.dumps, arguments)), json.dumps(wanted)))
    return cases


def _text(value: object) -> str:
    """What goes through stdin or stdout: a list is its items, one a line."""
    return "\n".join(map(_text, value)) if isinstance(value, list) else str(value)


def _starter(function: str, case: Case) -> str:
    """For rows that have a function's name alone, which the model cannot guess."""
    names = "".join(f", argument{number}" for number, _ in enumerate(case.input.split("\n"), start=1) if case.input)
    return f"class Solution:\n    def {function}(self{names}):\n        "

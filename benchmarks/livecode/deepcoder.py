"""DeepCoder's problems (agentica-org/DeepCoder-Preview-Dataset): four sets, each with tests in a shape of its own."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping

from continualcode.errors import ConfigError, MissingExtraError

from .problem import Case, Problem

DATASET = "agentica-org/DeepCoder-Preview-Dataset"
SPLITS = {
    "taco": ("train",),
    "primeintellect": ("train",),
    "codeforces": ("test",),
    "lcbv5": ("train", "test"),
}
"""As published. A set has no problem in a split that it lacks."""

log = logging.getLogger(__name__)


def problems(name: str, split: str) -> Iterator[Problem]:
    """Set `name`, in its own order; how many rows had no usable tests is logged."""
    if name not in SPLITS:
        raise ConfigError(f"no set {name!r} in DeepCoder; there are: {', '.join(sorted(SPLITS))}")
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
    skipped = 0
    for row in rows:
        problem = parse_deepcoder(row)
        if problem is None:
            skipped += 1
        else:
            yield problem
    if skipped:
        log.warning("deepcoder:%s: %d of %d rows have no usable tests and were left out", name, skipped, len(rows))


def parse_deepcoder(row: Mapping[str, object]) -> Problem | None:
    """None if the row has no usable tests. Its id, as rows have none, is a hash of the statement. The sets do not say
    which cases are public: the first two are (usually the statement's own samples), or half of them where there are fewer."""
    statement = row.get("problem")
    if not isinstance(statement, str) or not statement.strip():
        raise ConfigError(f"a DeepCoder row without a problem; its columns: {sorted(row)}, problem: {statement!r:.60}")
    name = f"deepcoder-{hashlib.sha256(statement.encode()).hexdigest()[:16]}"
    tests = _tests(_loaded(row.get("tests"), name, "tests"), name)
    functions = {_function(test, row, name) for test in tests}
    if len(functions) != 1 or "" in functions:
        return None
    function = functions.pop()
    cases = _calls(tests) if function else [Case(_text(test["input"]), _text(test["output"])) for test in tests]
    if not cases:
        return None
    starter = str(row.get("starter_code") or "") or (_starter(function, cases[0]) if function else "")
    shown = min(2, len(cases) // 2)
    return Problem(name, name, statement, tuple(cases[:shown]), tuple(cases[shown:]), function, starter)


def _loaded(value: object, name: str, column: str) -> object:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as bad:
        raise ConfigError(f"{name}: {column} is not JSON ({bad}): {value!r:.60}") from bad


def _tests(found: object, name: str) -> list[Mapping[str, object]]:
    """Any of the shapes as a flat list of {"input", "output", ...}. Inputs and outputs that do not pair up are no tests."""
    match found:
        case None:
            return []
        case {"inputs": list(inputs), "outputs": list(outputs), **others}:
            if len(inputs) != len(outputs):
                return []
            return [{**others, "input": given, "output": wanted} for given, wanted in zip(inputs, outputs, strict=True)]
        case {"input": _, "output": _}:
            return [found]
        case list():
            return [test for item in found for test in _tests(item, name)]
    raise ConfigError(f"{name}: a test is {{input, output}} or {{inputs, outputs}}, not {found!r:.80}")


def _function(test: Mapping[str, object], row: Mapping[str, object], name: str) -> str | None:
    """The function that a test calls; None: it is of a program; "": of a function without a name."""
    function = test.get("fn_name")
    if (
        not function
        and "functional" not in (test.get("testtype"), test.get("type"))
        and test.get("type") != "function_call"
    ):
        return None
    for metadata in (test.get("metadata"), row.get("metadata")):
        loaded = _loaded(metadata, name, "metadata")
        if not function and isinstance(loaded, Mapping):
            function = loaded.get("func_name")
    return str(function or "")


def _calls(tests: list[Mapping[str, object]]) -> list[Case]:
    """Arguments and result as JSON. TACO and PrimeIntellect put the result into a list of one: it is taken for that if
    every result of the problem is such a list. Text is LiveCodeBench's form already; no cases if it is not JSON."""
    lone = all(isinstance(test["output"], list) and len(test["output"]) == 1 for test in tests)
    cases = []
    for test in tests:
        given, wanted = test["input"], test["output"]
        if isinstance(given, str) and isinstance(wanted, str):
            if not all(_is_json(line) for line in (*given.split("\n"), wanted)):
                return []
            cases.append(Case(given, wanted))
        else:
            arguments = given if isinstance(given, list) else [given]
            cases.append(Case("\n".join(map(json.dumps, arguments)), json.dumps(wanted[0] if lone else wanted)))
    return cases


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _text(value: object) -> str:
    """What goes through stdin or stdout: a list is its items, one a line."""
    return "\n".join(map(_text, value)) if isinstance(value, list) else str(value)


def _starter(function: str, case: Case) -> str:
    """For functions of which the row says only the name: a problem that names none cannot be answered."""
    names = "".join(f", argument{number + 1}" for number in range(len(case.input.split("\n")) if case.input else 0))
    return f"class Solution:\n    def {function}(self{names}):\n        "

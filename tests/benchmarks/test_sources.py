"""Problems as LiveCodeBench and DeepCoder store them, read from rows made by hand in exactly their formats."""

import base64
import json
import pickle
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from continualcode.errors import ConfigError, MissingExtraError

STDIN = [
    {"input": "1 2\n", "output": "3\n", "testtype": "stdin"},
    {"input": "4 5\n", "output": "9\n", "testtype": "stdin"},
]
CALLS = [{"input": '[1, 2]\n"a"', "output": "3", "testtype": "functional"}]


@pytest.fixture(scope="module")
def sources(livecode):
    return livecode("sources")


def packed(value, protocol=None):
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


def row(**columns):
    """A line of code_generation_lite's test.jsonl."""
    number = columns.pop("number", 1)
    return {
        "question_title": "A",
        "question_content": f"Add up, {number}.",
        "platform": "atcoder",
        "question_id": f"abc{number}_a",
        "contest_id": f"abc{number}",
        "contest_date": f"2024-01-{number:02}T00:00:00",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps(STDIN[:1]),
        "private_test_cases": packed(json.dumps(STDIN[1:])),
        "metadata": "{}",
    } | columns


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_private_tests_are_read_as_json_and_as_a_packed_pickle_alike(sources):
    problem = sources.parse_livecodebench(row())
    assert problem == sources.parse_livecodebench(row(private_test_cases=json.dumps(STDIN[1:])))
    assert [(case.input, case.output) for case in problem.public] == [("1 2\n", "3\n")]
    assert [(case.input, case.output) for case in problem.private] == [("4 5\n", "9\n")]
    assert (problem.id, problem.function, problem.date) == ("abc1_a", None, "2024-01-01T00:00:00")


def test_a_long_packed_text_is_read_in_each_pickle_protocol_with_binary_text(sources):
    tests = json.dumps([{"input": "é" * 70_000, "output": "1", "testtype": "stdin"}], ensure_ascii=False)
    for protocol in range(1, pickle.HIGHEST_PROTOCOL + 1):
        problem = sources.parse_livecodebench(row(private_test_cases=packed(tests, protocol)))
        assert problem.private[0].input == "é" * 70_000


def test_a_pickle_that_would_run_something_is_refused_and_runs_nothing(sources, tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    for pickled in (Bomb(), [Bomb(), "[]"], ["[]"], ("[]", "[]"), b"[]", 1):
        with pytest.raises(ConfigError, match=r"problem 'abc1_a': private_test_cases: .*pickle"):
            sources.parse_livecodebench(row(private_test_cases=packed(pickled)))
    assert not (tmp_path / "ran").exists()


def test_a_functional_problem_has_the_name_of_its_function_and_its_starter(sources):
    columns = {"public_test_cases": json.dumps(CALLS), "private_test_cases": packed(json.dumps(CALLS))}
    problem = sources.parse_livecodebench(
        row(**columns, metadata='{"func_name": "total"}', starter_code="class Solution:")
    )
    assert (problem.function, problem.starter, problem.private[0].input) == ("total", "class Solution:", '[1, 2]\n"a"')


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"metadata": '{"func_name": "f"}'}, r"'abc1_a': func_name is 'f', its tests are \['stdin'\]"),
        ({"public_test_cases": json.dumps(CALLS)}, r"func_name is None, its tests are \['functional', 'stdin'\]"),
        ({"public_test_cases": "[{]"}, r"'abc1_a': public_test_cases: .*neither JSON nor base64.*found '\[\{\]'"),
        ({"public_test_cases": '[{"input": "1"}]'}, r"'abc1_a': public_test_cases.0.output: Field required"),
        ({"question_content": None}, r"'abc1_a': question_content: .* found None"),
    ],
)
def test_a_malformed_row_is_named_with_what_was_found(sources, columns, complaint):
    with pytest.raises(ConfigError, match=complaint):
        sources.parse_livecodebench(row(**columns))


def test_a_file_in_either_format_is_loaded_and_split_by_id(sources, tmp_path):
    name = lines(tmp_path / "raw.jsonl", [row(number=number) for number in range(1, 31)])
    train, test = (sources.load(name, split=split) for split in ("train", "test"))
    assert len(train) + len(test) == 30
    assert 1 <= len(test) <= 15
    assert not {problem.id for problem in train} & {problem.id for problem in test}
    both = sources.load(f"{name}+own")
    assert {problem.id for problem in both} == {problem.id for problem in train + sources.load("own")}


def test_order_and_limit_depend_on_the_seed_alone(sources):
    every = sources.load("own", seed=1)
    assert sources.load("own", seed=1, limit=5) == every[:5]
    assert sources.load("own", seed=2)[:5] != every[:5]
    assert sources.load("own", limit=0) == []


def test_a_copy_of_a_held_out_problem_in_another_source_is_not_trained_on(sources, tmp_path):
    train, test = (sources.load("own", split=split) for split in ("train", "test"))
    copy = {"title": "", "statement": f" {test[0].statement.upper()}", "public": [], "private": []}
    name = lines(tmp_path / "copies.jsonl", [copy | {"id": f"copy-{number}"} for number in range(20)])
    assert len(sources.load(name)) == 1
    assert sources.load(f"own+{name}") == sources.load(f"{name}+own") == train
    assert len(sources.load(f"own+{name}", split="test")) == len(test)


def test_since_and_until_bound_the_date_of_the_contest_inclusively(sources, tmp_path):
    name = lines(tmp_path / "raw.jsonl", [row(number=number) for number in range(1, 31)])
    days = {problem.date[8:10] for problem in sources.load(name)}
    assert "15" in days
    within = sources.load(name, since="2024-01-10", until="2024-01-15")
    assert {problem.date[8:10] for problem in within} == {day for day in days if "10" <= day <= "15"}
    with pytest.raises(ConfigError, match=r"no problem in split 'train', since=2025-01-01"):
        sources.load(name, since="2025-01-01")
    with pytest.raises(ConfigError, match="one like 2024-08-31, not 'May'"):
        sources.load(name, since="May")
    with pytest.raises(ConfigError, match=r"a date of problem '.*' is one like 2024-08-31, not ''"):
        sources.load("own", since="2024-01-01")


def test_what_is_no_source_is_refused_with_the_sources_there_are(sources, tmp_path):
    with pytest.raises(
        ConfigError, match=r"no file and no source 'release_v9'; sources: own, release_v1, .*deepcoder:taco"
    ):
        sources.load("release_v9")
    with pytest.raises(ConfigError, match="there are: taco, primeintellect, codeforces, lcbv5"):
        sources.load("deepcoder:apps")
    (tmp_path / "a.jsonl").write_text("{}\n{\n")
    with pytest.raises(ConfigError, match="problem None: id: Field required"):
        sources.load(str(tmp_path / "a.jsonl"))


def test_a_release_is_all_files_up_to_its_own_from_the_hub(sources, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cached = tmp_path / "datasets--livecodebench--code_generation_lite"
    (cached / "snapshots" / "1234").mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("1234")
    for file, first in (("test.jsonl", 1), ("test2.jsonl", 11)):
        lines(cached / "snapshots" / "1234" / file, [row(number=number) for number in range(first, first + 10)])
    counts = [sum(len(sources.load(f"release_v{n}", split=split)) for split in ("train", "test")) for n in (1, 2)]
    assert counts == [10, 20]
    with pytest.raises(ConfigError, match=r"no test3.jsonl of livecodebench/code_generation_lite"):
        sources.load("release_v3")


def cases(problem):
    return [(case.input, case.output) for case in problem.cases]


@pytest.mark.parametrize(
    ("columns", "function", "expected"),
    [
        ({"tests": json.dumps({"inputs": ["1\n", "2\n"], "outputs": ["3\n", "4\n"]})}, None, [("1\n", "3\n"), ("2\n", "4\n")]),
        ({"tests": {"inputs": [["1", "2"]], "outputs": [["3", "4"]]}}, None, [("1\n2", "3\n4")]),
        ({"tests": {"inputs": [[[1], "a"], [[], "b"]], "outputs": [[2], [3]], "fn_name": "f"}}, "f", [('[1]\n"a"', "2"), ('[]\n"b"', "3")]),
        ({"tests": {"inputs": [[1], [2]], "outputs": [[2], []], "fn_name": "f"}}, "f", [("1", "[2]"), ("2", "[]")]),
        ({"tests": json.dumps([{"type": "stdin_stdout", "fn_name": None, "input": "1\n", "output": "2\n"}])}, None, [("1\n", "2\n")]),
        ({"tests": json.dumps([{"type": "function_call", "fn_name": "f", "input": [[1, 2]], "output": [[3]]}])}, "f", [("[1, 2]", "[3]")]),
        ({"tests": json.dumps(CALLS), "metadata": {"func_name": "total"}}, "total", [('[1, 2]\n"a"', "3")]),
        ({"tests": json.dumps([[CALLS[0] | {"metadata": '{"func_name": "g"}'}]])}, "g", [('[1, 2]\n"a"', "3")]),
        ({"tests": json.dumps(STDIN), "metadata": {"func_name": None}, "starter_code": ""}, None, [("1 2\n", "3\n"), ("4 5\n", "9\n")]),
        ({"tests": [{"input": "7", "output": "8"}, {"input": "9", "output": "0"}]}, None, [("7", "8"), ("9", "0")]),
    ],
)  # fmt: skip
def test_deepcoder_tests_of_every_shape_become_cases(sources, columns, function, expected):
    problem = sources.parse_deepcoder({"problem": "Do it.", **columns})
    assert (problem.function, cases(problem)) == (function, expected)
    assert len(problem.public) == len(expected) // 2
    assert not function or f"def {function}(self, argument1" in problem.starter


@pytest.mark.parametrize(
    "tests",
    [None, "[]", "null", '{"inputs": [], "outputs": []}', '{"inputs": ["1"], "outputs": []}', json.dumps(CALLS), json.dumps(STDIN + CALLS),
     json.dumps([CALLS[0] | {"input": "[1", "fn_name": "f"}])],
)  # fmt: skip
def test_a_deepcoder_row_without_usable_tests_is_none(sources, tests):
    assert sources.parse_deepcoder({"problem": "Do it.", "tests": tests}) is None


@pytest.mark.parametrize(
    "columns", [{"problem": " ", "tests": "[]"}, {"problem": "x", "tests": "[{"}, {"problem": "x", "tests": [1]}]
)
def test_a_malformed_deepcoder_row_is_named_with_what_was_found(sources, columns):
    with pytest.raises(
        ConfigError, match=r"DeepCoder row .*columns: \['problem', 'tests'\]|deepcoder-2d711642b726b044: "
    ):
        sources.parse_deepcoder(columns)


def test_without_the_datasets_library_the_command_that_installs_it_is_said(sources, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"deepcoder:taco needs .* pip install 'continualcode\[bench\]'"):
        sources.load("deepcoder:taco")


def test_deepcoder_is_loaded_from_parquet_through_datasets_in_its_published_splits(
    livecode, tmp_path, monkeypatch, caplog
):
    datasets, deepcoder = pytest.importorskip("datasets"), livecode("deepcoder")
    monkeypatch.setattr(deepcoder, "DATASET", str(tmp_path))
    configs = []
    for name, splits in deepcoder.SPLITS.items():
        files = [{"split": split, "path": f"{name}/{split}-*.parquet"} for split in splits]
        configs.append({"config_name": name, "data_files": files})
        for split in splits:
            tests = ["[]", json.dumps({"inputs": ["1", "2"], "outputs": ["3", "4"]}), json.dumps(STDIN)]
            rows = [{"problem": f"{name} {split} {number}", "tests": text} for number, text in enumerate(tests)]
            datasets.Dataset.from_list(rows).to_parquet(tmp_path / name / f"{split}-00000-of-00001.parquet")
    (tmp_path / "README.md").write_text(f"---\nconfigs: {json.dumps(configs)}\n---\n")
    every = "+".join(f"deepcoder:{name}" for name in deepcoder.SPLITS)
    for split, sets in (("train", {"taco", "primeintellect", "lcbv5"}), ("test", {"codeforces", "lcbv5"})):
        statements = {problem.statement for problem in livecode("sources").load(every, split=split)}
        assert statements == {f"{name} {split} {number}" for name in sets for number in (1, 2)}
    assert "deepcoder:taco: 1 of 3 rows have no usable tests" in caplog.text
    with pytest.raises(ConfigError, match="taco and :primeintellect have only train"):
        livecode("sources").load("deepcoder:taco", split="test")


def test_a_problem_is_put_as_livecodebench_puts_it(livecode, sources):
    problem = sources.parse_livecodebench(row())
    system, question = livecode("prompts").conversation(problem).messages
    assert (system.role, question.role) == ("system", "user")
    assert system.content.startswith("You are an expert Python programmer.")
    assert question.content.startswith("### Question:\nAdd up, 1.\n\n### Format: Read the inputs from stdin ")
    answer = "\n```\n\n### Answer: (use the provided format with backticks)\n\n"
    assert question.content.endswith(f"```python\n# YOUR CODE HERE{answer}")
    starter = livecode("prompts").conversation(replace(problem, starter="class Solution:")).messages[1].content
    assert "### Format: You will use the following starter code" in starter
    assert starter.endswith(f"```python\nclass Solution:{answer}")

"""What a model is told of a failure: all of the public cases, of the private ones nothing but the kind."""

import re
import sys

import pytest

from continualcode.tools.sandbox import Sandbox

SECRETS = ("private-input", "private-output", "private-got", "private-detail")


@pytest.fixture(scope="module")
def lib(livecode):
    return livecode("feedback")


@pytest.fixture(scope="module")
def told(livecode):
    """Feedback on a problem of two public and three private cases that came out so: `told("passed", ("wrong", got))`."""
    grader, problem = livecode("grader"), livecode("problem")
    public = [problem.Case(f"public-input-{i}", f"public-output-{i}") for i in range(2)]
    private = [problem.Case(f"private-input-{i}", f"private-output-{i}") for i in range(3)]
    asked = problem.Problem("p", "P", "Add.", tuple(public), tuple(private))

    def feedback(*outcomes, cases=None):
        verdicts = [grader.Verdict(*([each] if isinstance(each, str) else each)) for each in outcomes]
        cases = asked.cases if cases is None else tuple(asked.cases[index] for index in cases)
        return livecode("feedback").feedback(asked, grader.Grade(tuple(verdicts), 0.1, cases))

    return feedback


def test_a_wrong_answer_is_shown_beside_the_right_one(told):
    assert told("passed", ("wrong", "7\n"), "passed", "passed", "passed") == (
        "1 of 2 public tests failed.\n\nWrong answer.\nInput:\npublic-input-1\nExpected:\npublic-output-1\nGot:\n7"
    )


def test_no_output_is_said_to_be_none(told):
    assert told(("wrong", "\n"), *["passed"] * 4).endswith("Got:\n(nothing)")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("error", "Runtime error."),
        ("timeout", "Time limit exceeded."),
        ("memory", "Memory limit exceeded."),
        ("output", "Output limit exceeded."),
    ],
)
def test_a_traceback_or_a_limit_is_shown_with_its_input(told, status, said):
    text = told((status, "half", "what happened"), *["passed"] * 4)
    assert text.endswith(f"{said}\nInput:\npublic-input-0\nwhat happened")


def test_the_same_traceback_is_shown_once(told):
    text = told(("error", "", "KeyError: 1"), ("error", "", "KeyError: 1"), *["passed"] * 3)
    assert text.startswith("2 of 2 public tests failed.")
    assert text.count("KeyError") == 1
    assert "public-input-0" in text


def test_while_public_cases_fail_nothing_is_said_of_private_ones(told):
    private = [("wrong", "private-got"), ("error", "private-got", "private-detail"), "timeout"]
    text = told(("wrong", "7"), "passed", *private)
    assert "hidden" not in text
    assert not any(secret in text for secret in SECRETS)


def test_of_private_cases_only_the_kinds_are_told(told):
    detail = "Traceback (most recent call last):\n  private-detail\nValueError: private-detail"
    private = [("wrong", "private-got"), ("error", "private-got", detail), ("timeout", "private-got", "private-detail")]
    assert told("passed", "passed", *private) == (
        "All 2 public tests passed, but 3 of 3 hidden tests failed: "
        "1 wrong answer, 1 runtime error (ValueError), 1 time limit exceeded."
    )


@pytest.mark.parametrize(
    "detail",
    [
        "private-detail",
        "private_detail: x",
        "Traceback\nprivate_detail.Error: 1",
        "ValueError: 1\nprivate-detail",
        "private_detail",
        "print: private-detail",
        "",
    ],
)
def test_a_name_that_the_solution_chose_is_not_told(told, detail):
    text = told("passed", "passed", "passed", ("error", "", detail), "passed")
    assert text == "All 2 public tests passed, but 1 of 3 hidden tests failed: 1 runtime error."


def test_cases_in_another_order_are_told_apart(told):
    text = told(("wrong", "private-got"), ("wrong", "7"), cases=[3, 0])
    assert "public-input-0" in text
    assert not any(secret in text for secret in SECRETS)
    assert told(("wrong", "private-got"), cases=[2]) == "1 of 1 hidden tests failed: 1 wrong answer."


def test_verdicts_and_cases_must_be_as_many(told):
    with pytest.raises(ValueError, match="shorter"):
        told("passed")


def test_nothing_is_said_of_success(told):
    assert told(*["passed"] * 5) == ""


def test_long_texts_are_cut_in_the_middle(told, lib):
    text = told(("wrong", "a" * 10_000 + "b" * 10_000), *["passed"] * 4)
    assert len(text) < lib.SHOWN_CHARACTERS + 200
    assert re.search(r"Got:\na+\n\[\.\.\.]\nb+$", text)


@pytest.mark.parametrize(
    ("reply", "code"),
    [
        ("So:\n```python\nprint(1)\n```\nDone.", "print(1)"),
        ("```\na\n```\nBetter:\n```python\nb\nc\n```", "b\nc"),
        ("```python\n```", ""),
        ("print(1)", None),
        ("```python\nprint(1)", None),
        ("", None),
    ],
)
def test_the_code_is_the_last_fenced_block(lib, reply, code):
    assert lib.code_of(reply) == code


@pytest.mark.skipif(sys.platform != "linux", reason="solutions are graded on Linux only")
@pytest.mark.parametrize(
    "code", ["print(open('/etc/shadow'))", "class E(Exception): pass\nraise E(input())", "print(input())"]
)
async def test_what_really_came_out_tells_nothing_private(livecode, code):
    grader, problem = livecode("grader"), livecode("problem")
    public, private = problem.Case("7", "7"), problem.Case("private-input", "private-output")
    asked = problem.Problem("p", "P", "Echo.", (public,), (private,))
    async with grader.Grader(sandbox=Sandbox("none", "as tested")) as judged:
        grade = await judged.grade(asked, code)
    assert not grade.passed
    text = livecode("feedback").feedback(asked, grade)
    assert not any(secret in text for secret in SECRETS)

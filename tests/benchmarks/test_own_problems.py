"""Our own problems: every reference solution passes every case of its problem, nothing cheaper does, no two are alike."""

import ast
import contextlib
import io
import json
import re

import pytest

NEAR = 0.75
"""Words in common out of all words of both statements, from which on they are near-duplicates."""


@pytest.fixture(scope="module")
def held_out(livecode):
    return livecode("sources").load("own", split="test")


@pytest.fixture(scope="module")
def problems(livecode, held_out):
    return {problem.id: problem for problem in livecode("sources").load("own") + held_out}


@pytest.fixture(scope="module")
def solutions(livecode):
    rows = map(json.loads, livecode("sources").OWN.with_name("solutions.jsonl").read_text().splitlines())
    return {row["id"]: row["code"] for row in rows}


def answer(problem, code, case):
    """What the code prints, or its method returns, for the case."""
    names, printed = {"__name__": "__main__"}, io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr("sys.stdin", io.StringIO(case.input))
        exec(code, names)
        if problem.function is None:
            return printed.getvalue()
        call = getattr(names["Solution"](), problem.function)
        return json.dumps(call(*map(json.loads, case.input.split("\n"))))


def passes(problem, code):
    return all(answer(problem, code, case) == case.output for case in problem.cases)


def test_every_reference_solution_passes_every_case_of_its_problem(problems, solutions):
    assert solutions.keys() == problems.keys()
    assert [name for name, problem in problems.items() if not passes(problem, solutions[name])] == []


def test_there_are_enough_problems_of_both_kinds_with_cases_to_show_and_to_hide(problems):
    functions = [problem for problem in problems.values() if problem.function]
    assert len(problems) >= 48
    assert 0.4 < len(functions) / len(problems) < 0.6
    assert all(f"def {problem.function}(self" in problem.starter for problem in functions)
    for problem in problems.values():
        assert 2 <= len(problem.public) <= 3, problem.id
        assert 5 <= len(problem.private) <= 10, problem.id
        assert len({case.input for case in problem.cases}) == len(problem.cases), problem.id


def test_the_trivial_ones_are_one_statement_and_some_of_them_are_held_out(held_out, problems, solutions):
    trivial = [name for name, problem in problems.items() if problem.difficulty == "trivial"]
    assert len(trivial) >= 20
    for name in trivial:
        body = ast.parse(solutions[name]).body
        assert len(body[0].body[0].body if problems[name].function else body) == 1, name
    assert 0.2 < len(held_out) / len(problems) < 0.3
    assert sum(problem.id in trivial for problem in held_out) >= 10


def test_no_constant_no_public_output_and_no_echo_of_the_input_passes(problems):
    for problem in problems.values():
        shown = [case.output for case in problem.public]
        for text in (*shown, "".join(shown)):
            program, method = f"print({text!r}, end='')", f"def {problem.function}(self, *given): return {text!r}"
            assert not passes(problem, f"class Solution:\n    {method}" if problem.function else program), problem.id
        assert len({case.output for case in problem.private}) > 1, problem.id
        assert any(case.output.strip() != case.input.strip() for case in problem.private), problem.id


def test_no_two_statements_are_alike(problems):
    words = {name: set(re.findall(r"\w+", problem.statement.lower())) for name, problem in problems.items()}
    for name, mine in words.items():
        for other, theirs in words.items():
            assert name == other or len(mine & theirs) / len(mine | theirs) < NEAR, (name, other)


def test_a_statement_shows_its_first_public_case(problems):
    for problem in problems.values():
        first, sample = problem.public[0], problem.statement.split("\n\n", 1)[1]
        if problem.function is None:
            assert sample == f"Sample Input:\n{first.input}\nSample Output:\n{first.output}".rstrip(), problem.id
        else:
            given = ", ".join(repr(json.loads(line)) for line in first.input.split("\n"))
            assert sample == f"Example: {problem.function}({given}) returns {json.loads(first.output)!r}.", problem.id

"""A problem as LiveCodeBench puts it to a chat model (lcb_runner/prompts/code_generation.py). Knows no model and no renderer."""

from __future__ import annotations

from continualcode.types import Conversation, Message
from livecode.problem import Problem

SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests."
)
WITH_STARTER = "You will use the following starter code to write the solution to the problem and enclose your code within delimiters."
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows. Ensure that when the python program runs, it reads the "
    "inputs, runs the algorithm and writes output to STDOUT."
)


def conversation(problem: Problem) -> Conversation:
    """The system message and the question; no case is in it but those that the statement itself shows."""
    how, code = (WITH_STARTER, problem.starter) if problem.starter else (WITHOUT_STARTER, "# YOUR CODE HERE")
    question = (
        f"### Question:\n{problem.statement}\n\n"
        f"### Format: {how}\n```python\n{code}\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )
    return Conversation((Message("system", SYSTEM), Message("user", question)))

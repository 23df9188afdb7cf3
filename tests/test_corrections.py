"""The data of benchmarks/corrections.py: held out from the cold start, and sound. No model."""

import importlib
import re
from pathlib import Path

import pytest

from continualcode.local.coldstart.data import make_sessions
from continualcode.tools import standard_tools
from continualcode.tools.registry import ToolRegistry
from continualcode.tools.workspace import Workspace

NEAR = 0.75
"""Words in common out of all words of both texts, from which on two texts are near-duplicates."""


@pytest.fixture(scope="module")
def habits():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
        return importlib.import_module("corrections_habits")


@pytest.fixture(scope="module")
def others(habits):
    """The requests that are not of a habit: unrelated ones with what they are about, ordinary work."""
    return (*habits.requests.UNRELATED, *((text, "work") for text in habits.requests.APPROVED))


@pytest.fixture(scope="module")
def trained_on():
    """Requests and reasons of the cold-start data: more sessions than the adapter was trained on, from its seed."""
    requests, reasons = set(), set()
    for session in make_sessions(1500, seed=0):
        for message in session.messages:
            if message.content.startswith("denied: "):
                reasons.add(message.content.removeprefix("denied: "))
            elif "unsuccessful earlier attempt:" in message.content:
                request, _, feedback = message.content.partition("\n\nThe following is feedback")
                requests.add(request)
                reasons.add(feedback.partition(":\n\n")[2].partition("\n\nCorrectly solve")[0])
            elif message.role == "user":
                requests.add(message.content)
    assert len(requests) > 2000
    assert len(reasons) > 400
    return requests, reasons


def words(text):
    return re.findall(r"\w+", text.lower())


def nearest(text, others):
    mine = set(words(text))
    return max((len(mine & theirs) / len(mine | theirs), other) for other, theirs in others.items())


def assert_held_out(texts, others):
    plain = {" ".join(words(other)) for other in others}
    sets = {other: set(words(other)) for other in others}
    for text in texts:
        assert text not in others
        assert " ".join(words(text)) not in plain
        likeness, other = nearest(text, sets)
        assert likeness < NEAR, (text, other)


def test_no_request_of_the_benchmark_is_in_the_cold_start_data_or_nearly_so(habits, others, trained_on):
    requests, _ = trained_on
    assert_held_out([ask.text for habit in habits.HABITS for ask in habit.asks], requests)
    assert_held_out([text for text, _ in others], requests)


def test_no_reason_of_the_benchmark_is_in_the_cold_start_data_or_nearly_so(habits, trained_on):
    _, reasons = trained_on
    assert_held_out([habit.reason for habit in habits.HABITS], reasons)


def test_nothing_the_benchmark_asks_for_is_ever_called_in_the_cold_start_data(habits):
    called = {call.to_json() for s in make_sessions(1500, seed=0) for m in s.messages for call in m.calls}
    for habit in habits.HABITS:
        assert not called & {ask.right.to_json() for ask in habit.asks}, habit.name


def test_near_duplicates_are_found():
    with pytest.raises(AssertionError):
        assert_held_out(["please run all of the tests"], {"run all of the tests"})
    assert_held_out(["run the tests"], {"run the linter on everything"})


def test_each_of_a_dozen_habits_has_four_training_requests_and_ten_others_all_different(habits, others):
    assert len(habits.HABITS) >= 12
    assert all(len(habit.training) == 4 and len(habit.held_out) == 10 for habit in habits.HABITS)
    texts = [ask.text for habit in habits.HABITS for ask in habit.asks] + [text for text, _ in others]
    assert len({" ".join(words(text)) for text in texts}) == len(texts)
    assert len({habit.name for habit in habits.HABITS}) == len(habits.HABITS)


def test_the_right_call_complies_and_is_valid_and_the_usual_ones_do_not_comply(habits, tmp_path):
    registry = ToolRegistry(standard_tools(Workspace(tmp_path)))
    for habit in habits.HABITS:
        for ask in habit.asks:
            assert habit.complies(ask.right), ask.text
            assert registry.check(ask.right) is None, ask.text
            assert all(begun.upto in begun.call.to_json() for begun in (*ask.complying, *ask.violating)), ask.text
            assert ask.choice in ask.right.to_json()
            assert not any(habit.complies(begun.call) for begun in ask.violating), ask.text
            assert not any(begun.upto in ask.right.to_json() for begun in ask.violating), ask.text


def test_24_unrelated_requests_are_left_for_each_habit(habits, others):
    for habit in habits.HABITS:
        assert len(habits.unrelated(habit)) == 24
        assert all(about != habit.about for text, about in others if text in habits.unrelated(habit))

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from continualcode.frontends.terminal.report import (
    heat_map,
    learned_line,
    learned_lines,
    metrics_table,
    probability,
    why,
)
from continualcode.types import TokenView, TrainReport


def report(before, after, kind="rejected", *more):
    view = TokenView(tuple(range(len(before))), np.log(before), np.log(before) - 2.0, np.log(after), kind)
    return TrainReport(3, 1, len(before), 0.12, 3.42, (view, *more))


@pytest.mark.parametrize(
    ("chance", "shown"),
    [
        (1.0, "100 %"),
        (0.31, "31 %"),
        (0.004, "0.4 %"),
        (0.0123, "1.2 %"),
        (0.0001, "0.01 %"),
        (0.00005, "10^-4.3"),
        (1e-40, "10^-40.0"),
    ],
)
def test_probabilities_are_percent_or_powers_of_ten(chance, shown):
    assert probability(math.log(chance)) == shown


def test_probabilities_that_are_none_are_told_as_such():
    assert probability(-math.inf) == "0 %"
    assert probability(math.nan) == "?"


def test_what_of_a_reason_was_left_out_is_told():
    whole = report([0.62, 0.5], [0.1, 0.04])
    assert learned_lines(whole) == [learned_line(whole)]
    left_out, learned = learned_lines(replace(whole, cut=1200))
    assert "no room for 1,200 characters of the reason" in left_out.plain
    assert learned == learned_line(whole)


def test_one_line_shows_how_the_rejected_call_became_less_likely():
    line = learned_line(report([0.62, 0.5], [0.1, 0.04])).plain
    expected = "learned in 3.4 s: P(rejected call) 31 % -> 0.4 % (per token 0.56 -> 0.063) over 2 tokens, step 3"
    assert line == expected


def test_it_says_so_when_the_rejected_call_did_not_become_less_likely():
    line = learned_line(report([0.5, 0.5], [0.6, 0.5]))
    assert line.plain.startswith("learned in 3.4 s, but P(rejected call) did not fall: 25 % -> 30 %")
    assert line.style == "yellow"


def test_what_was_approved_instead_is_told_too_and_not_mixed_in():
    approved = TokenView((7,), np.log([0.1]), np.log([0.2]), np.log([0.4]), "approved")
    line = learned_line(report([0.5, 0.5], [0.1, 0.5], "rejected", approved)).plain
    assert "P(rejected call) 25 % -> 5 % (per token 0.5 -> 0.22), P(approved call) 10 % -> 40 %" in line


def test_a_step_without_views_is_told_by_its_loss():
    assert learned_line(TrainReport(1, 1, 5, 0.5, 2.0)).plain == "learned in 2.0 s over 5 tokens, step 1: loss 0.5"


def test_the_table_of_steps_fits_a_narrow_terminal():
    file = io.StringIO()
    steps = [report([0.5] * 200, [0.1] * 200), TrainReport(1000, 1, 12345, 0.5, 200.0)]
    Console(file=file, width=60).print(metrics_table(steps))
    assert max(len(line) for line in file.getvalue().splitlines()) <= 60
    assert "10^-60.2 -> 10^-200.0" in file.getvalue()


def test_the_heat_map_is_red_where_the_teacher_disagrees():
    class Renderer:
        def decode(self, token):
            return f"<{token}>\x1b"

    learned = report([0.5, 0.5], [0.1, 0.1])
    shown = heat_map(learned.views[0], Renderer())
    assert shown.plain == r"<0>\x1b<1>\x1b"
    assert {span.style for span in shown.spans} == {"bold red underline"}
    told = [line.plain for line in why(learned, Renderer())]
    assert told[0] == "rejected reply:"
    assert told[2].startswith("most against '<0>\\x1b': 50 %, with your reason ")
    assert told[2].endswith("since the step 10 %")
    assert "would hardly have said this" in told[-1]


@pytest.mark.parametrize(
    ("outcome", "said"),
    [("too weak", "context only (gap 0.05 nats)"), ("understood", "unlearned it by now (gap 0.05 nats)")],
)
def test_a_correction_that_was_not_trained_on_says_why(outcome, said):
    line = learned_line(replace(report([0.5], [0.5]), outcome=outcome, inner_steps=0, gap=0.05)).plain
    assert line.startswith("not trained: ")
    assert said in line


def test_several_steps_say_what_ended_them():
    line = learned_line(replace(report([0.5], [0.1]), outcome="drifted", inner_steps=3)).plain
    assert line.endswith("(3 of them, until what was approved began to move)")

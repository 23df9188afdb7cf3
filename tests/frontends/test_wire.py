"""The lines of the headless protocol."""

import json
import math

import numpy as np
import pytest

from continualcode.events import Learned
from continualcode.frontends.wire import call_message, event_message, write_line
from continualcode.types import TokenView, ToolCall, TrainReport

CALL = ToolCall("write", {"path": "é.py", "lines": [1, {"deep": [True, None]}]})


def test_a_line_is_pure_ascii_with_every_frozen_argument_in_it():
    line = write_line({"type": "review", "call": call_message(CALL)})
    assert line.isascii()
    assert line.endswith("}\n")
    assert json.loads(line)["call"] == {
        "name": "write",
        "arguments": {"path": "é.py", "lines": [1, {"deep": [True, None]}]},
    }


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_without_a_word_in_json_is_null_and_the_rest_is_as_it_was(number):
    view = TokenView((3, 4), np.array([-1.0, number]), np.array([-2.0, -2.5]), np.array([-3.0, -3.5]))
    (seen,) = json.loads(write_line(event_message(Learned(TrainReport(1, 1, 2, number, 0.1, (view,))))))["tokens_seen"]
    assert seen["before"] == [-1.0, None]
    assert seen["teacher"] == [-2.0, -2.5]
    assert json.loads(write_line({"call": call_message(CALL), "loss": number}))["loss"] is None


def test_what_is_no_json_is_an_error():
    with pytest.raises(TypeError):
        write_line({"type": object()})

import json
from dataclasses import replace

import numpy as np
import pytest

from continualcode.types import (
    Conversation,
    Edit,
    Example,
    Message,
    Reply,
    TokenView,
    ToolCall,
    TrainReport,
)


def test_a_calls_arguments_are_read_only_all_the_way_down():
    given = {"paths": ["a", {"b": 1}]}
    call = ToolCall("read", given)
    given["paths"].append("sneaked in")
    assert call.to_json() == '{"name": "read", "arguments": {"paths": ["a", {"b": 1}]}}'
    with pytest.raises(TypeError):
        call.arguments["paths"] = []
    with pytest.raises(TypeError):
        call.arguments["paths"][1]["b"] = 2


@pytest.mark.parametrize("bad", [{"a": object()}, {"a": {1: 2}}, {"a": b"bytes"}])
def test_what_is_not_json_is_no_argument(bad):
    with pytest.raises(TypeError):
        ToolCall("read", bad)


def test_json_keeps_order_and_text():
    call = ToolCall("write", {"path": "ü.py", "content": "a\n"})
    assert json.loads(call.to_json()) == {"name": "write", "arguments": {"path": "ü.py", "content": "a\n"}}
    assert "ü" in call.to_json()


def test_an_edit_keeps_the_name_unless_it_gives_one():
    call = ToolCall("write", {"path": "a"})
    assert Edit({"path": "b"}).apply(call) == ToolCall("write", {"path": "b"})
    assert Edit({"path": "b"}, name="read").apply(call) == ToolCall("read", {"path": "b"})


def test_a_conversation_grows_into_a_new_one():
    first = Conversation()
    second = first.add(Message("user", "hi"))
    assert (len(first.messages), len(second.messages)) == (0, 1)


def test_a_reply_has_a_call_only_when_there_is_exactly_one_and_no_problem():
    call = ToolCall("read", {})
    assert Reply("", calls=(call,)).call == call
    assert Reply("", calls=(call, call)).call is None
    assert Reply("", calls=(call,), problem="cut off").call is None
    assert Reply("hello").call is None


def test_an_example_whose_arrays_do_not_line_up_is_refused():
    with pytest.raises(ValueError, match="T = 2"):
        Example((1,), (2, 3), np.zeros((3, 1), dtype=np.int64), np.zeros((3, 1)))


def test_a_report_sums_the_rejected_tokens_and_averages_over_lessons():
    view = TokenView((1, 2), np.array([-1.0, -2.0]), np.array([-1.5, -0.5]), np.array([-3.0, -4.0]))
    report = TrainReport(
        step=1,
        lessons=2,
        tokens=4,
        loss=0.0,
        seconds=0.0,
        views=(view, view, replace(view, kind="approved", after_T=view.teacher_T)),
    )
    assert (report.logprob_before, report.logprob_after) == (-3.0, -7.0)
    assert len(report.approved) == 1
    np.testing.assert_allclose(view.advantages_T, [-0.5, 1.5])

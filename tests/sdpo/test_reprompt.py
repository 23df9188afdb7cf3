import numpy as np

from continualcode.sdpo import teacher_context
from continualcode.types import Completion, Conversation, Lesson, Message, Reply, ToolCall, Turn


def lesson(*messages, reason="use edit_lines", demonstration=None):
    completion = Completion((1,), (2,), np.zeros(1))
    return Lesson(Turn(Conversation(messages), Reply("no"), completion), reason, demonstration)


def test_a_user_message_at_the_end_is_rewritten_with_the_feedback_in_it():
    before = Message("system", "be good")
    context = teacher_context(lesson(before, Message("user", "fix {x}")))
    assert context.messages[0] == before
    assert len(context.messages) == 2
    text = context.messages[1].content
    assert text.startswith("fix {x}\n\n")
    assert "feedback from your unsuccessful earlier attempt:\n\nuse edit_lines" in text
    assert text.endswith("Correctly solve the original question.")


def test_after_a_tools_answer_a_turn_is_added_so_that_the_prefix_is_shared():
    messages = (Message("user", "fix"), Message("assistant", "", calls=()), Message("tool", "42 lines"))
    context = teacher_context(lesson(*messages))
    assert context.messages[:3] == messages
    assert context.messages[3].role == "user"
    assert context.messages[3].content.startswith("The following is feedback")


def test_a_demonstration_is_shown_as_the_correct_solution():
    call = ToolCall("edit_lines", {"path": "a.py", "start_line": 1})
    text = teacher_context(lesson(Message("user", "fix"), reason="", demonstration=call)).messages[-1].content
    assert call.to_json() in text
    assert "feedback" not in text


def test_without_reason_or_demonstration_there_is_no_teacher():
    assert teacher_context(lesson(Message("user", "fix"), reason="  ")) is None


def test_braces_in_a_reason_are_just_text():
    assert "{reason} {}" in teacher_context(lesson(Message("user", "fix"), reason="{reason} {}")).messages[-1].content

"""The teacher's context: the student's conversation, told what went wrong (SDPO, arXiv 2601.20802, appendix; three slots).

Knows nothing of tokens. {prompt}{solution}{feedback} become one user turn, followed by a line that asks to solve the
original question. Where the conversation ends in a user message that message is rewritten, as in the paper; where it
ends in a tool's answer a user turn is added, so that teacher and student share everything before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from continualcode.types import Conversation, Lesson, Message


@dataclass(frozen=True, slots=True)
class RepromptTemplate:
    """The texts of the teacher's user turn. `{prompt}`, `{demonstration}` and `{feedback}` are filled in."""

    solution: str = "\n\nCorrect solution:\n\n{demonstration}"
    feedback: str = "\n\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback}"
    closing: str = "\n\nCorrectly solve the original question."


DEFAULT_TEMPLATE = RepromptTemplate()


def teacher_context(lesson: Lesson, template: RepromptTemplate = DEFAULT_TEMPLATE) -> Conversation | None:
    """The lesson's conversation with its correction in it; None when it has neither reason nor demonstration."""
    reason = lesson.reason.strip()
    if not reason and lesson.demonstration is None:
        return None
    solution = template.solution.format(demonstration=lesson.demonstration.to_json()) if lesson.demonstration else ""
    feedback = template.feedback.format(feedback=reason) if reason else ""
    context = lesson.turn.context
    if context.messages and context.messages[-1].role == "user":
        *before, last = context.messages
        rewritten = replace(last, content=f"{last.content}{solution}{feedback}{template.closing}")
        return replace(context, messages=(*before, rewritten))
    return context.add(Message("user", f"{solution}{feedback}{template.closing}".strip()))

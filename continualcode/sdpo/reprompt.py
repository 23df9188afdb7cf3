"""The teacher's context: the student's conversation, told what went wrong (SDPO, arXiv 2601.20802, appendix; three slots).

Knows nothing of tokens. {prompt}{solution}{feedback} become one user turn, followed by a line that asks to solve the
original question. Where the conversation ends in a user message that message is rewritten, as in the paper; where it
ends in a tool's answer a user turn is added, so that teacher and student share everything before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from continualcode.sdpo.settings import SDPOConfig
from continualcode.types import Conversation, Lesson, Message, ToolCall, Turn


@dataclass(frozen=True, slots=True)
class RepromptTemplate:
    """The texts of the teacher's user turn. `{prompt}`, `{demonstration}`, `{notes}` and `{feedback}` are filled in."""

    solution: str = "\n\nCorrect solution:\n\n{demonstration}"
    notes: str = "\n\nWhat the user said before:\n\n{notes}"
    feedback: str = "\n\nThe following is feedback from your unsuccessful earlier attempt:\n\n{feedback}"
    closing: str = "\n\nCorrectly solve the original question."


DEFAULT_TEMPLATE = RepromptTemplate()


@dataclass(frozen=True, slots=True)
class Hints:
    """What a teacher is shown beside the student's conversation."""

    solution: str = ""
    notes: tuple[str, ...] = ()
    feedback: str = ""

    def __bool__(self) -> bool:
        """Whether there is anything to learn from; notes alone are not: they say nothing of this completion."""
        return bool(self.solution or self.feedback)


def hints_of(lesson: Lesson, config: SDPOConfig = SDPOConfig(), siblings: Sequence[Lesson] = ()) -> Hints:
    """A lesson's own demonstration, else the first of its siblings' successes; and its reason, by the config's flags."""
    if lesson.demonstration is not None:
        solution = _text(lesson.demonstration)
    else:
        solution = next((_answer(s.turn, config) for s in siblings if _succeeded(s, lesson, config)), "")
    wanted = config.include_environment_feedback
    if solution and config.environment_feedback_only_without_solution:
        wanted = False
    return Hints(solution, lesson.notes, lesson.reason.strip() if wanted else "")


def context_with(hints: Hints, context: Conversation, template: RepromptTemplate = DEFAULT_TEMPLATE) -> Conversation:
    """The conversation with the hints in its last user turn."""
    slots = (
        template.solution.format(demonstration=hints.solution) if hints.solution else "",
        template.notes.format(notes="\n".join(f"- {note}" for note in hints.notes)) if hints.notes else "",
        template.feedback.format(feedback=hints.feedback) if hints.feedback else "",
    )
    told = f"{''.join(slots)}{template.closing}"
    if context.messages and context.messages[-1].role == "user":
        *before, last = context.messages
        return replace(context, messages=(*before, replace(last, content=f"{last.content}{told}")))
    return context.add(Message("user", told.strip()))


def teacher_context(lesson: Lesson, template: RepromptTemplate = DEFAULT_TEMPLATE) -> Conversation | None:
    """The lesson's conversation with its correction in it; None when it has neither reason nor demonstration."""
    hints = hints_of(lesson)
    return context_with(hints, lesson.turn.context, template) if hints else None


def _succeeded(sibling: Lesson, lesson: Lesson, config: SDPOConfig) -> bool:
    if sibling is lesson and config.dont_reprompt_on_self_success:
        return False
    return sibling.reward is not None and sibling.reward >= config.success_reward_threshold


def _answer(turn: Turn, config: SDPOConfig) -> str:
    call = turn.reply.call
    answer = "\n\n".join(part for part in (turn.reply.text, _text(call) if call else "") if part)
    if config.remove_thinking_from_demonstration or not turn.reply.thinking:
        return answer
    return f"<think>\n{turn.reply.thinking}\n</think>\n\n{answer}"


def _text(solution: ToolCall | str) -> str:
    return solution if isinstance(solution, str) else solution.to_json()

"""The headless protocol's values: commands read from JSON lines, events written as them. Knows nothing of streams."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Annotated, Literal, assert_never

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from continualcode.events import (
    Asked,
    Event,
    Learned,
    LearnFailed,
    Learning,
    Malformed,
    Proposed,
    Restored,
    Reviewed,
    Stopped,
    Thinking,
    ToolReturned,
    Tried,
)
from continualcode.types import (
    Approve,
    Deny,
    Edit,
    Json,
    JsonObject,
    Lesson,
    TokenView,
    ToolCall,
    TrainReport,
    Verdict,
    thaw,
)


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class AskCommand(_Command):
    """Begins a turn."""

    type: Literal["ask"]
    text: str = Field(min_length=1)


class ApproveCommand(_Command):
    """Runs the call of review `id`; with `teach_on_failure` a failure's message becomes the lesson."""

    type: Literal["approve"]
    id: int
    teach_on_failure: bool = False


class DenyCommand(_Command):
    """Denies the call of review `id`; with `teach` the reason is learned from."""

    type: Literal["deny"]
    id: int
    reason: str = Field(min_length=1)
    teach: bool = True


class EditCommand(_Command):
    """Runs the call of review `id` with these arguments instead, and learns from the difference."""

    type: Literal["edit"]
    id: int
    arguments: dict[str, JsonValue]
    name: str | None = None
    reason: str = ""


class UndoCommand(_Command):
    """Takes back the last call that changed files, or makes it again."""

    type: Literal["undo", "redo"]


class NoteCommand(_Command):
    """Keeps a remark for the corrections to come."""

    type: Literal["note"]
    text: str


class ClearCommand(_Command):
    """Begins a new conversation."""

    type: Literal["clear"]


class InterruptCommand(_Command):
    """Ends the turn that runs."""

    type: Literal["interrupt"]


class QuitCommand(_Command):
    """Ends the program; what waits is denied and not learned from."""

    type: Literal["quit"]


AnswerCommand = ApproveCommand | DenyCommand | EditCommand
Command = AskCommand | AnswerCommand | UndoCommand | NoteCommand | ClearCommand | InterruptCommand | QuitCommand

_COMMANDS: TypeAdapter[Command] = TypeAdapter(Annotated[Command, Field(discriminator="type")])


class BadCommandError(ValueError):
    """A line that is no command; the message says what is wrong with it."""


def read_command(line: bytes) -> Command:
    """The command on one line. Raises BadCommandError."""
    try:
        return _COMMANDS.validate_json(line)
    except ValidationError as error:
        found = [
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" if item["loc"] else item["msg"]
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        raise BadCommandError("; ".join(found)) from error


def verdict_of(answer: AnswerCommand) -> Verdict:
    match answer:
        case ApproveCommand():
            return Approve()
        case DenyCommand():
            return Deny(answer.reason, answer.teach)
        case EditCommand():
            return Edit(answer.arguments, answer.reason, answer.name)
    assert_never(answer)


def write_line(message: JsonObject) -> str:
    """One line of pure ASCII; a number that JSON has no word for is null."""
    try:
        return json.dumps(message, default=dict, allow_nan=False) + "\n"
    except ValueError:  # there is such a number; looking for one in every list of tokens takes far longer
        return json.dumps(_finite(thaw(message)), allow_nan=False) + "\n"


def event_message(event: Event, *, kept: int = 0) -> JsonObject:
    """An event with all its fields. `kept`: how many lessons wait in the agent."""
    match event:
        case Asked(text):
            return {"type": "asked", "text": text}
        case Thinking():
            return {"type": "thinking"}
        case Proposed(turn):
            reply, completion = turn.reply, turn.completion
            return {
                "type": "proposed",
                "text": reply.text,
                "thinking": reply.thinking,
                "call": call_message(reply.call) if reply.call is not None else None,
                "tokens": len(completion.tokens),
                "prompt_tokens": len(completion.prompt),
                "logprob": float(completion.logprobs_T.sum()),
            }
        case Malformed(reply, problem):
            calls = [call_message(call) for call in reply.calls]
            return {"type": "malformed", "raw": reply.raw, "text": reply.text, "calls": calls, "problem": problem}
        case Tried():
            return {"type": "tried", **asdict(event)}
        case Reviewed(_, call, verdict, gate):
            return {
                "type": "reviewed",
                "call": call_message(call),
                "verdict": _verdict_message(verdict),
                "gate": gate,
            }
        case ToolReturned(call, result):
            return {"type": "tool_returned", "call": call_message(call), "ok": result.ok, "output": result.output}
        case Learning(lessons):
            return {"type": "learning", "lessons": [_lesson_message(lesson) for lesson in lessons]}
        case Learned(report):
            return _report_message(report)
        case LearnFailed(lessons, error):
            return {"type": "learn_failed", "error": error, "lessons": len(lessons), "kept": kept}
        case Stopped(reason, detail):
            return {"type": "stopped", "reason": reason, "detail": detail}
        case Restored(what, call, said, messages, left_out):
            return {"type": what, "what": said, "call": call, "left_out": left_out, "messages": messages}
    assert_never(event)


def call_message(call: ToolCall) -> JsonObject:
    return {"name": call.name, "arguments": call.arguments}


def _verdict_message(verdict: Verdict) -> JsonObject:
    match verdict:
        case Approve():
            return {"type": "approve"}
        case Deny(reason, teach):
            return {"type": "deny", "reason": reason, "teach": teach}
        case Edit(arguments, reason, name):
            return {"type": "edit", "arguments": arguments, "reason": reason, "name": name}
    assert_never(verdict)


def _lesson_message(lesson: Lesson) -> JsonObject:
    shown = lesson.demonstration
    right = lesson.resolution.reply.call if lesson.resolution is not None else None
    return {
        "reason": lesson.reason,
        "demonstration": call_message(shown) if isinstance(shown, ToolCall) else shown,
        "resolution": call_message(right) if right is not None else None,
    }


def _report_message(report: TrainReport) -> JsonObject:
    return {
        "type": "learned",
        "step": report.step,
        "lessons": report.lessons,
        "tokens": report.tokens,
        "loss": report.loss,
        "seconds": report.seconds,
        "logprob_before": report.logprob_before if report.rejected else None,
        "logprob_after": report.logprob_after if report.rejected else None,
        "metrics": dict(report.metrics),
        "outcome": report.outcome,
        "inner_steps": report.inner_steps,
        "gap": report.gap,
        "left": report.left,
        "drift": report.drift,
        "cut": report.cut,
        "tokens_seen": [_view_message(view) for view in report.views],
    }


def _view_message(view: TokenView) -> JsonObject:
    """Per token: ids, log-probabilities before, by the teacher, after, and by the placebo where there is one."""
    return {
        "kind": view.kind,
        "tokens": view.tokens,
        "before": tuple(view.student_T.tolist()),
        "teacher": tuple(view.teacher_T.tolist()),
        "after": tuple(view.after_T.tolist()),
        "placebo": None if view.placebo_T is None else tuple(view.placebo_T.tolist()),
    }


def _finite(value: Json) -> Json:
    match value:
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {key: _finite(item) for key, item in value.items()}
        case list():
            return [_finite(item) for item in value]
    return value

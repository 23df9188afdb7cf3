"""A reply's text to its parts: thinking, calls, and what is left to show. Knows no family's syntax."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Protocol

from continualcode.renderers.json_calls import MalformedCallError
from continualcode.types import Message, Reply, ToolCall

THINK, END_THINK = "<think>", "</think>"
EMPTY = "the reply is empty: answer in words, or make one call"
UNFINISHED = f"the reply ended while still thinking (no {END_THINK}): no answer and no call came"


class Format(Protocol):
    """How one family of models writes a reply."""

    @property
    def example(self) -> str:
        """One call as the model is to write it, for templates that do not say so themselves."""
        ...

    def read(self, text: str, *, thinking: bool) -> Reply:
        """Never raises. `thinking`: the prompt already opened the thinking block."""
        ...

    def write(self, message: Message, *, thinking: bool) -> str:
        """The inverse of `read`, without the stop token."""
        ...


class Syntax(Protocol):
    """Calls between tags, thinking before them in <think> tags."""

    @property
    def example(self) -> str: ...

    @property
    def opening(self) -> re.Pattern[str]:
        """Where a call may begin."""
        ...

    def take(self, text: str, opening: re.Match[str]) -> tuple[tuple[ToolCall, ...], int]:
        """The calls that begin here and where they end; no calls: text up to there. Raises MalformedCallError."""
        ...

    def write_calls(self, calls: tuple[ToolCall, ...]) -> str: ...


@dataclass(slots=True)
class _Parts:
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Tagged:
    """The format of every family that differs from the others by the syntax of its calls only."""

    syntax: Syntax

    @property
    def example(self) -> str:
        return self.syntax.example

    def read(self, text: str, *, thinking: bool) -> Reply:
        parts = _Parts()
        at = self._implied_thinking(text, parts, thinking)
        while at < len(text):
            at = self._step(text, at, parts)
        return reply(parts.text, parts.thinking, tuple(parts.calls), parts.problem, text)

    def write(self, message: Message, *, thinking: bool) -> str:
        thought = f"\n{message.thinking}\n{END_THINK}\n\n" if message.thinking else f"\n{END_THINK}\n\n"
        opened = thought.removeprefix("\n") if thinking else THINK + thought
        calls = self.syntax.write_calls(message.calls) if message.calls else ""
        body = "\n".join(filter(None, (message.content, calls)))
        return opened + body if thinking or message.thinking else body

    def _implied_thinking(self, text: str, parts: _Parts, thinking: bool) -> int:
        """Where the reply begins after thinking that no tag in the reply opens."""
        end = text.find(END_THINK)
        if thinking:
            if text.lstrip().startswith(THINK):
                return 0
            if end < 0:
                parts.problem = UNFINISHED
            parts.thinking.append(text if end < 0 else text[:end])
            return len(text) if end < 0 else end + len(END_THINK)
        first = re.search(f"{THINK}|{self.syntax.opening.pattern}", text, self.syntax.opening.flags)
        if end >= 0 and (first is None or end < first.start()):
            parts.thinking.append(text[:end])
            return end + len(END_THINK)
        return 0

    def _step(self, text: str, at: int, parts: _Parts) -> int:
        """Reads up to and over the next thinking block or call; returns where to go on."""
        opening, think = self.syntax.opening.search(text, at), text.find(THINK, at)
        if think >= 0 and (opening is None or think < opening.start()):
            parts.text.append(text[at:think])
            end = text.find(END_THINK, think)
            parts.thinking.append(text[think + len(THINK) : end if end >= 0 else len(text)])
            if end < 0:
                parts.problem = parts.problem or UNFINISHED
            return end + len(END_THINK) if end >= 0 else len(text)
        if opening is None:
            parts.text.append(text[at:])
            return len(text)
        parts.text.append(text[at : opening.start()])
        return self._call(text, opening, parts)

    def _call(self, text: str, opening: re.Match[str], parts: _Parts) -> int:
        try:
            calls, end = self.syntax.take(text, opening)
        except MalformedCallError as error:
            parts.problem = parts.problem or str(error)
            return max(error.end, opening.end()) if error.end is not None else len(text)
        if not calls:
            parts.text.append(text[opening.start() : end])
        parts.calls.extend(calls)
        return end


def reply(text: list[str], thinking: list[str], calls: tuple[ToolCall, ...], problem: str | None, raw: str) -> Reply:
    """A Reply from its parts, with the problem of several calls, or of nothing at all, added."""
    shown = "".join(text).strip()
    if problem is None and len(calls) > 1:
        names = ", ".join(call.name for call in calls)
        problem = f"the reply makes {len(calls)} calls ({names}): make exactly one call per reply"
    if problem is None and not calls and not shown:
        problem = EMPTY
    return Reply(shown, "\n\n".join(filter(None, (part.strip() for part in thinking))), calls, problem, raw)

"""Keeps control tokens and text that merely looks like them apart, both ways; knows no template and no format.

A break is put inside the text of every control token that is not one. The template is rendered with the breaks in it,
and the pieces between them are encoded each on its own, so that no piece contains a control token that the template
did not write. A reply is read with breaks in what the model spelt out in ordinary tokens, a file it quotes perhaps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from continualcode.types import Conversation, Json, JsonObject, Message, Reply, ToolCall, ToolSpec

BREAK = "\ufdd0"
"""A Unicode noncharacter, not meant for interchange: it survives every template, and is lost from text that has it."""


class Literal:
    """`control`: token texts that no content may become; `own`: those of them not even the model's own words may."""

    def __init__(self, control: Iterable[str], own: Iterable[str]) -> None:
        self._control, self._own = _any_of(control), _any_of(own)
        self._latest = _Latest({}, (), ())

    def conversation(self, conversation: Conversation) -> Conversation:
        """What the latest conversation had already, as most of a longer one's messages, is not gone through again."""
        known = self._latest
        pairs = {id(m): known.messages.get(id(m)) or (m, self.message(m)) for m in conversation.messages}
        tools = known.tools if conversation.tools is known.given else self._tools(conversation)
        self._latest = _Latest(pairs, conversation.tools, tools)
        return Conversation(tuple(pairs[id(m)][1] for m in conversation.messages), tools)

    def _tools(self, conversation: Conversation) -> tuple[ToolSpec, ...]:
        return tuple(
            ToolSpec(self.text(tool.name), self.text(tool.description), _mapped(tool.parameters, self.text))
            for tool in conversation.tools
        )

    def message(self, message: Message) -> Message:
        """An assistant's content keeps tags like <tool_call>: it may be a malformed call of its own."""
        own = message.role == "assistant"
        return replace(
            message,
            content=_broken(self._own if own else self._control, message.content),
            thinking=self.text(message.thinking),
            calls=_calls(message.calls, self.text),
            tool=self.text(message.tool),
        )

    def text(self, text: str) -> str:
        return _broken(self._control, text)


@dataclass(frozen=True, slots=True)
class _Latest:
    """One conversation's messages, by identity (which holds as long as they are kept here), and tools: given and done."""

    messages: Mapping[int, tuple[Message, Message]]
    given: tuple[ToolSpec, ...]
    tools: tuple[ToolSpec, ...]


def unbroken(reply: Reply, raw: str) -> Reply:
    """The reply without the breaks it was read with."""
    return Reply(
        text=_whole(reply.text),
        thinking=_whole(reply.thinking),
        calls=_calls(reply.calls, _whole),
        problem=None if reply.problem is None else _whole(reply.problem),
        raw=raw,
    )


def _whole(text: str) -> str:
    return text.replace(BREAK, "")


def _calls(calls: Iterable[ToolCall], change: Callable[[str], str]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(change(call.name), _mapped(call.arguments, change)) for call in calls)


def _mapped(value: JsonObject, change: Callable[[str], str]) -> dict[str, Json]:
    """The object with every string in it changed, keys too."""

    def one(item: Json) -> Json:
        match item:
            case str():
                return change(item)
            case Mapping():
                return _mapped(item, change)
            case list() | tuple():
                return [one(each) for each in item]
            case _:
                return item

    return {change(key): one(item) for key, item in value.items()}


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches the first character of every token's text, overlapping ones too."""
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile(f"(?=(?:{'|'.join(map(re.escape, longest_first))}))(.)" if longest_first else "(?!)", re.DOTALL)


def _broken(tokens: re.Pattern[str], text: str) -> str:
    return tokens.sub(rf"\1{BREAK}", text)

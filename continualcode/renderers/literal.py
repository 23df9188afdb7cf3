"""Keeps text from a file or a person from turning into control tokens; knows no template.

A break is put inside every control token's text. The template is rendered with the breaks in it, and the pieces
between them are encoded each on its own, so that no piece contains a control token that the template did not write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from continualcode.types import Conversation, Json, Message, ToolCall, ToolSpec

BREAK = "\ufdd0"
"""A Unicode noncharacter, not meant for interchange: it survives every template, and is lost from text that has it."""


class Literal:
    """`control`: token texts that no content may become; `own`: those of them not even the model's own words may."""

    def __init__(self, control: Iterable[str], own: Iterable[str]) -> None:
        self._control, self._own = _any_of(control), _any_of(own)

    def conversation(self, conversation: Conversation) -> Conversation:
        tools = tuple(
            ToolSpec(self.text(tool.name), self.text(tool.description), self._object(tool.parameters))
            for tool in conversation.tools
        )
        return Conversation(tuple(map(self.message, conversation.messages)), tools)

    def message(self, message: Message) -> Message:
        """An assistant's content keeps tags like <tool_call>: it may be a malformed call of its own."""
        own = message.role == "assistant"
        return replace(
            message,
            content=_broken(self._own if own else self._control, message.content),
            thinking=self.text(message.thinking),
            calls=tuple(ToolCall(self.text(call.name), self._object(call.arguments)) for call in message.calls),
            tool=self.text(message.tool),
        )

    def text(self, text: str) -> str:
        return _broken(self._control, text)

    def _object(self, value: Mapping[str, Json]) -> dict[str, Json]:
        return {self.text(key): self._json(item) for key, item in value.items()}

    def _json(self, value: Json) -> Json:
        match value:
            case str():
                return self.text(value)
            case Mapping():
                return self._object(value)
            case list() | tuple():
                return [self._json(item) for item in value]
            case _:
                return value


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    """Matches the first character of every token's text, overlapping ones too."""
    longest_first = sorted(filter(None, tokens), key=len, reverse=True)
    return re.compile(f"(?=(?:{'|'.join(map(re.escape, longest_first))}))(.)" if longest_first else "(?!)", re.DOTALL)


def _broken(tokens: re.Pattern[str], text: str) -> str:
    return tokens.sub(rf"\1{BREAK}", text)

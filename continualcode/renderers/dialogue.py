"""A conversation as the dictionaries a chat template takes, with our own words for what the template cannot say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from continualcode.renderers.families import Family
from continualcode.renderers.template import Abilities
from continualcode.types import Conversation, Message, ToolCall, ToolSpec, thaw

Rendered = tuple[list[dict[str, Any]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Dialogue:
    """Messages and tools for one family's template."""

    family: Family
    abilities: Abilities

    def write(self, conversation: Conversation) -> Rendered:
        """The template's messages and its tools; no tools where the template would not show them."""
        messages = list(self._plain(conversation.messages))
        if conversation.tools and not self.abilities.lists_tools:
            messages = _with_system(messages, tool_list(conversation.tools, self.family.format.example))
        messages = self._placed_system(messages)
        if not self.abilities.takes_repeats:
            messages = _merged(messages)
        tools = [_tool(tool) for tool in conversation.tools] if self.abilities.lists_tools else []
        return self._dictionaries(messages), tools

    def _plain(self, messages: Iterable[Message]) -> Iterator[Message]:
        """Calls and results that the template would drop become text."""
        unanswered = 0
        for message in messages:
            if message.role == "tool" and not (self.abilities.takes_results and unanswered > 0):
                yield Message("user", f"<tool_response>\n{message.content}\n</tool_response>")
            elif message.role == "tool":
                unanswered -= 1
                yield message
            elif message.role == "assistant":
                written = self._assistant(message)
                unanswered = len(written.calls)
                yield written
            else:
                yield message

    def _assistant(self, message: Message) -> Message:
        if not message.calls:
            return message
        native = self.abilities.writes_text_and_calls if message.content else self.abilities.writes_calls
        if not native or (self.family.one_call and len(message.calls) > 1):
            return self._as_text(message)
        if message.content and message.thinking and not self.abilities.takes_thinking_too:
            return replace(message, content="", thinking=f"{message.thinking}\n\n{message.content}")
        return message

    def _as_text(self, message: Message) -> Message:
        text = self.family.format.write(replace(message, thinking=""), thinking=False)
        return replace(message, content=text, calls=())

    def _placed_system(self, messages: list[Message]) -> list[Message]:
        """System messages where the template takes them, and an empty one where it would add its own."""
        if not self.abilities.takes_late_system and any(each.role == "system" for each in messages[1:]):
            system = "\n\n".join(each.content for each in messages if each.role == "system")
            messages = [Message("system", system), *(each for each in messages if each.role != "system")]
        leads = bool(messages) and messages[0].role == "system"
        if leads and not self.abilities.takes_system:
            return _merged([replace(messages[0], role="user"), *messages[1:]])
        return [Message("system", ""), *messages] if self.abilities.adds_system and not leads else messages

    def _dictionaries(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        written: list[dict[str, Any]] = []
        count = 0
        open_ids: list[str] = []
        for message in messages:
            entry: dict[str, Any] = {"role": message.role, "content": message.content}
            if message.role == "tool":
                entry |= {"name": message.tool, "tool_call_id": open_ids.pop(0)}
            if message.thinking:
                entry |= {"reasoning_content": message.thinking, "thinking": message.thinking}
            if message.calls:
                calls = [self._call(call, count + index) for index, call in enumerate(message.calls)]
                count, open_ids = count + len(calls), [call["id"] for call in calls]
                entry["tool_calls"] = calls
            written.append(entry)
        return written

    def _call(self, call: ToolCall, index: int) -> dict[str, Any]:
        function = {"name": call.name, "arguments": self.family.arguments(thaw(call.arguments))}
        return {"id": self.family.call_id(call.name, index), "type": "function", "function": function}


def tool_list(tools: Sequence[ToolSpec], example: str) -> str:
    """What a model is told of its tools in few tokens: a line each, `name(needed, optional?): what it does`."""
    lines = "\n".join(map(_line, tools))
    return f"Tools:\n{lines}\nTo use a tool, answer with exactly one call:\n{example}"


def _line(tool: ToolSpec) -> str:
    sentence = tool.description.strip().partition("\n")[0].partition(". ")[0].rstrip(".")
    head = f"{tool.name}({_parameters(tool)})"
    return f"{head}: {sentence}" if sentence else head


def _parameters(tool: ToolSpec) -> str:
    properties, required = tool.parameters.get("properties"), tool.parameters.get("required")
    needed = required if isinstance(required, tuple | list) else ()
    names = properties if isinstance(properties, Mapping) else ()
    return ", ".join(name if name in needed else f"{name}?" for name in names)


def _tool(tool: ToolSpec) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": thaw(tool.parameters)}
    return {"type": "function", "function": function}


def _with_system(messages: list[Message], text: str) -> list[Message]:
    if messages and messages[0].role == "system":
        joined = "\n\n".join(filter(None, (messages[0].content, text)))
        return [replace(messages[0], content=joined), *messages[1:]]
    return [Message("system", text), *messages]


def _merged(messages: Sequence[Message]) -> list[Message]:
    """Neighbours of one role as one message; tool results stay apart."""
    merged: list[Message] = []
    for role, group in groupby(messages, key=lambda each: each.role):
        run = list(group)
        if role == "tool" or len(run) == 1:
            merged += run
            continue
        merged.append(
            replace(
                run[0],
                content="\n\n".join(filter(None, (each.content for each in run))),
                thinking="\n\n".join(filter(None, (each.thinking for each in run))),
                calls=tuple(call for each in run for call in each.calls),
            )
        )
    return merged

"""gpt-oss's reply format: messages with a channel each, a call being a message addressed to a function."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from continualcode.renderers.formats import arguments_json
from continualcode.renderers.json_calls import MalformedCallError, call, read_json
from continualcode.renderers.reading import reply
from continualcode.types import Message, Reply, ToolCall

ANALYSIS_ONLY = "the reply ended in the analysis channel: no answer and no call came"


@dataclass(slots=True)
class _Parts:
    text: list[str] = field(default_factory=list)
    thinking: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Harmony:
    """`<|channel|>CHANNEL to=functions.NAME<|message|>...`: analysis is thinking; commentary and final are text.

    The prompt ends in `<|start|>assistant`, so the first message of a reply has no start of its own. Well-formed
    replies are read as the openai-harmony library reads them, which fetches a vocabulary first and refuses the rest.
    """

    example: str = "<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{...}<|call|>"

    def read(self, text: str, *, thinking: bool) -> Reply:
        parts = _Parts()
        for message in _MESSAGE_END.split(text):
            header, marker, body = message.partition("<|message|>")
            try:
                if marker:
                    self._message(header, body, parts)
                elif _HEADER.match(header):
                    raise MalformedCallError(f"a message header ends in <|message|>, found {header[:60]!r} without")
                else:
                    parts.text.append(header)
            except MalformedCallError as error:
                parts.problem = parts.problem or str(error)
        if parts.problem is None and not parts.calls and parts.thinking and not "".join(parts.text).strip():
            parts.problem = ANALYSIS_ONLY
        return reply(parts.text, parts.thinking, tuple(parts.calls), parts.problem, text)

    def write(self, message: Message, *, thinking: bool) -> str:
        parts = [f"<|channel|>analysis<|message|>{message.thinking}"] if message.thinking else []
        if message.content:
            parts.append(f"<|channel|>{'commentary' if message.calls else 'final'}<|message|>{message.content}")
        calls = [
            f"<|channel|>commentary to=functions.{each.name} <|constrain|>json<|message|>{arguments_json(each)}"
            for each in message.calls
        ]
        written = "<|end|><|start|>assistant".join(parts + calls)
        return f"{written}<|call|>" if calls else written

    def _message(self, header: str, body: str, parts: _Parts) -> None:
        recipient, channel = _RECIPIENT.search(header), _CHANNEL.search(header)
        if recipient is not None:
            parts.calls.append(self._call(recipient[1], body))
        elif channel is not None and channel[1] == "analysis":
            parts.thinking.append(body)
        elif channel is None or channel[1] in ("commentary", "final"):
            parts.text.append(body + "\n\n")
        else:
            raise MalformedCallError(f"the channels are analysis, commentary and final, found {channel[1]!r}")

    def _call(self, recipient: str, body: str) -> ToolCall:
        name = recipient.removeprefix("functions.")
        if name == recipient:
            raise MalformedCallError(f"a call is addressed to=functions.NAME, found to={recipient}")
        value, end = read_json(body, 0)
        if body[end:].strip():
            raise MalformedCallError(f"text follows the arguments' JSON: {body[end : end + 20]!r}")
        return call(name, value)


_MESSAGE_END = re.compile(r"(?:<\|end\|>|<\|call\|>|<\|return\|>)\s*")
_CHANNEL = re.compile(r"<\|channel\|>\s*([^\s<]*)")
_HEADER = re.compile(r"\s*(?:<\|start\|>|<\|channel\|>|to=)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")

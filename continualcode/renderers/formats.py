"""The call syntaxes of the model families, each a reader and the writer of the same text.

Facts from the published chat templates and model cards; knows nothing of tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from continualcode.renderers.json_calls import ARGUMENT_KEYS, MalformedCallError, call, call_from_object, read_json
from continualcode.types import ToolCall, thaw

Taken = tuple[tuple[ToolCall, ...], int]


def arguments_json(tool_call: ToolCall) -> str:
    return json.dumps(thaw(tool_call.arguments), ensure_ascii=False)


@dataclass(frozen=True, slots=True)
class Hermes:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen 2.5, Qwen 3."""

    opening: re.Pattern[str] = re.compile("<tool_call>")
    example: str = '<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call>'

    def take(self, text: str, opening: re.Match[str]) -> Taken:
        resume = _after(text, "</tool_call>", opening.end())
        with _resuming(resume):
            value, end = read_json(text, opening.end())
            end = _closed(text, end, "</tool_call>")
            return (call_from_object(value),), end

    def write_calls(self, calls: tuple[ToolCall, ...]) -> str:
        return "\n".join(f"<tool_call>\n{each.to_json()}\n</tool_call>" for each in calls)


@dataclass(frozen=True, slots=True)
class XmlFunctions:
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`: Qwen3-Coder, Qwen 3.5.

    Every value is read as the string it is: "3", "true" or a package.json may be meant as text, and only the tool's
    own schema can say. One line break after the opening and one before the closing parameter tag are not the value's.
    """

    opening: re.Pattern[str] = re.compile("<tool_call>|<function=")
    example: str = "<tool_call>\n<function=NAME>\n<parameter=KEY>\nVALUE\n</parameter>\n</function>\n</tool_call>"

    def take(self, text: str, opening: re.Match[str]) -> Taken:
        wrapped = opening.group() == "<tool_call>"
        resume = _after(text, "</tool_call>" if wrapped else "</function>", opening.end())
        with _resuming(resume):
            head = _FUNCTION.match(text, opening.end() if wrapped else opening.start())
            if head is None:
                found = text[opening.end() : opening.end() + 20]
                raise MalformedCallError(f"after {opening.group()} comes <function=NAME>, found {found!r}")
            arguments, end = self._parameters(text, head.end())
            end = _closed(text, end, "</tool_call>") if wrapped else _optional(text, end, "</tool_call>")
            return (call(head[1], arguments),), end

    def write_calls(self, calls: tuple[ToolCall, ...]) -> str:
        return "\n".join(
            f"<tool_call>\n<function={c.name}>\n{self._written(c)}</function>\n</tool_call>" for c in calls
        )

    def _written(self, tool_call: ToolCall) -> str:
        values = {
            key: value if isinstance(value, str) else json.dumps(thaw(value), ensure_ascii=False)
            for key, value in tool_call.arguments.items()
        }
        return "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in values.items())

    def _parameters(self, text: str, at: int) -> tuple[dict[str, str], int]:
        arguments: dict[str, str] = {}
        while (closing := _END_FUNCTION.match(text, at)) is None:
            opening = _PARAMETER.match(text, at)
            if opening is None:
                raise MalformedCallError(
                    f"inside <function> comes <parameter=KEY> or </function>, found {text[at : at + 20]!r}"
                    if text[at:].strip()
                    else "the call is not closed: </function> is missing"
                )
            ending = _END_PARAMETER.search(text, opening.end())
            if ending is None:
                raise MalformedCallError(f"<parameter={opening[1]}> is not closed by </parameter>")
            if opening[1] in arguments:
                raise MalformedCallError(f"the parameter {opening[1]!r} is written twice")
            arguments[opening[1]] = text[opening.end() : ending.start()]
            at = ending.end()
        return arguments, closing.end()


_FUNCTION = re.compile(r"\s*<function=\s*([^<>\n]+?)\s*>")
_END_FUNCTION = re.compile(r"\s*</function>")
_PARAMETER = re.compile(r"\s*<parameter=\s*([^<>\n]+?)\s*>\n?")
_END_PARAMETER = re.compile(r"\n?</parameter>(?=\s*(?:<parameter=|</function>))")


@dataclass(frozen=True, slots=True)
class BareJson:
    """A JSON object with a name and arguments and no closing tag: Llama 3 (`key` "parameters"), and the fallback.

    It begins a line or a code fence, or follows <|python_tag|> or Mistral's [TOOL_CALLS]; ";" or "," separates several.
    JSON without both keys is an answer, not a call.
    """

    key: str = "arguments"
    opening: re.Pattern[str] = re.compile(
        r"(?P<tag><\|python_tag\|>|\[TOOL_CALLS\]\s*\[?)|(?P<fence>```(?:json|tool_call)?[ \t]*\n\s*)(?=\{)"
        r"|(?:^|(?<=[;,])|(?<=</think>))[ \t]*(?=\{)",
        re.MULTILINE,
    )

    @property
    def example(self) -> str:
        return f'{{"name": ..., "{self.key}": {{...}}}}'

    def take(self, text: str, opening: re.Match[str]) -> Taken:
        sure = opening["tag"] is not None
        try:
            value, end = read_json(text, opening.end())
        except MalformedCallError:
            if sure or _LIKE_A_CALL.match(text, opening.end()):
                raise
            return (), opening.end() + 1
        if not sure and not (isinstance(value, dict) and "name" in value and any(k in value for k in ARGUMENT_KEYS)):
            return (), end
        with _resuming(end):
            found = call_from_object(value)
        trailing = ["```"] if opening["fence"] else [";", ",", "]"]
        return (found,), max(_optional(text, end, tag) for tag in trailing)

    def write_calls(self, calls: tuple[ToolCall, ...]) -> str:
        return "; ".join(
            f'{{"name": {json.dumps(c.name, ensure_ascii=False)}, "{self.key}": {arguments_json(c)}}}' for c in calls
        )


_LIKE_A_CALL = re.compile(r'\s*\{\s*"name"\s*:\s*"[^"]*"\s*,\s*"(?:arguments|parameters)"\s*:')


@dataclass(frozen=True, slots=True)
class DeepSeek:
    """DeepSeek's call tokens; `fenced` is how V3 and R1 write a call, else V3.1's. Both are read."""

    fenced: bool = False
    opening: re.Pattern[str] = re.compile("<｜tool▁calls▁begin｜>|<｜tool▁call▁begin｜>")

    @property
    def example(self) -> str:
        inner = "function<｜tool▁sep｜>NAME\n```json\n{...}\n```" if self.fenced else "NAME<｜tool▁sep｜>{...}"
        return f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{inner}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"

    def take(self, text: str, opening: re.Match[str]) -> Taken:
        section = _Section("<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁calls▁end｜>")
        return section.take(text, opening, self._one)

    def write_calls(self, calls: tuple[ToolCall, ...]) -> str:
        body = "\n".join(f"<｜tool▁call▁begin｜>{self._written(each)}<｜tool▁call▁end｜>" for each in calls)
        return f"<｜tool▁calls▁begin｜>{body}<｜tool▁calls▁end｜>"

    def _written(self, tool_call: ToolCall) -> str:
        if self.fenced:
            return f"function<｜tool▁sep｜>{tool_call.name}\n```json\n{arguments_json(tool_call)}\n```"
        return f"{tool_call.name}<｜tool▁sep｜>{arguments_json(tool_call)}"

    def _one(self, text: str, at: int) -> tuple[ToolCall, int]:
        head = _DEEPSEEK_HEAD.match(text, at)
        if head is None:
            raise MalformedCallError(
                f"after <｜tool▁call▁begin｜> comes NAME<｜tool▁sep｜>, found {text[at : at + 20]!r}"
            )
        value, end = read_json(text, head.end())
        if head["fence"]:
            end = _closed(text, end, "```")
        return call(head["fenced"] or head["name"], value), end


_DEEPSEEK_HEAD = re.compile(
    r"\s*(?:function<｜tool▁sep｜>\s*(?P<fenced>[^\s`<]+)\s*(?P<fence>```(?:json)?)|(?P<name>[^\s<]+)\s*<｜tool▁sep｜>)"
)


@dataclass(frozen=True, slots=True)
class Kimi:
    """Kimi K2: `<|tool_call_begin|>functions.NAME:INDEX<|tool_call_argument_begin|>{...}<|tool_call_end|>`.

    The index counts the calls of the whole conversation; a single message does not know it and writes from 0.
    """

    opening: re.Pattern[str] = re.compile(r"<\|tool_calls?_section_begin\|>|<\|tool_call_begin\|>")
    example: str = (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{...}"
        "<|tool_call_end|><|tool_calls_section_end|>"
    )

    def take(self, text: str, opening: re.Match[str]) -> Taken:
        section = _Section("<|tool_call_begin|>", "<|tool_call_end|>", "<|tool_calls_section_end|>")
        return section.take(text, opening, self._one)

    def write_calls(self, calls: tuple[ToolCall, ...]) -> str:
        body = "".join(
            f"<|tool_call_begin|>functions.{each.name}:{index}<|tool_call_argument_begin|>{arguments_json(each)}"
            "<|tool_call_end|>"
            for index, each in enumerate(calls)
        )
        return f"<|tool_calls_section_begin|>{body}<|tool_calls_section_end|>"

    def _one(self, text: str, at: int) -> tuple[ToolCall, int]:
        head = _KIMI_HEAD.match(text, at)
        if head is None:
            raise MalformedCallError(
                "after <|tool_call_begin|> comes functions.NAME:INDEX<|tool_call_argument_begin|>, "
                f"found {text[at : at + 20]!r}"
            )
        value, end = read_json(text, head.end())
        return call(head[1], value), end


_KIMI_HEAD = re.compile(r"\s*(?:functions\.)?([^\s:<]+)(?::\d+)?\s*<\|tool_call_argument_begin\|>")


@dataclass(frozen=True, slots=True)
class _Section:
    """Calls one after another, each between its own tags, with a tag around all that models like to forget."""

    begin: str
    end: str
    section_end: str

    def take(
        self, text: str, opening: re.Match[str], one: Callable[[str, int], tuple[ToolCall, int]]
    ) -> tuple[tuple[ToolCall, ...], int]:
        at = opening.start() if opening.group() == self.begin else opening.end()
        calls: list[ToolCall] = []
        while (begin := _optional(text, at, self.begin)) != at:
            with _resuming(_after(text, self.end, begin)):
                found, at = one(text, begin)
                at = _closed(text, at, self.end)
            calls.append(found)
        if not calls:
            raise MalformedCallError(f"after {opening.group()} comes {self.begin}, found {text[at : at + 20]!r}", at)
        return tuple(calls), _optional(text, at, self.section_end)


@contextmanager
def _resuming(end: int | None) -> Iterator[None]:
    """Adds to a MalformedCallError where reading can go on."""
    try:
        yield
    except MalformedCallError as error:
        error.end = end
        raise


def _after(text: str, tag: str, at: int) -> int | None:
    found = text.find(tag, at)
    return None if found < 0 else found + len(tag)


def _optional(text: str, at: int, tag: str) -> int:
    """Behind `tag` and the white space before it, or `at` when something else comes."""
    start = at
    while start < len(text) and text[start].isspace():
        start += 1
    return start + len(tag) if text.startswith(tag, start) else at


def _closed(text: str, at: int, tag: str) -> int:
    if (end := _optional(text, at, tag)) != at:
        return end
    found = text[at : at + 20]
    raise MalformedCallError(
        f"after the call comes {tag}, found {found!r}" if found.strip() else f"the call is not closed: {tag} is missing"
    )

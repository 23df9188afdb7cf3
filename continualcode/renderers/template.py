"""A tokenizer's chat template, and what it can do, found out by rendering probes and not by reading its source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from continualcode.errors import ConfigError

Dialogue = Sequence[Mapping[str, Any]]


class Tokenizer(Protocol):
    """What is used of a transformers tokenizer (4.57 to 5.x, fast or slow)."""

    chat_template: str | dict[str, str] | None
    eos_token_id: int | None

    @property
    def added_tokens_decoder(self) -> Mapping[int, Any]: ...

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any: ...

    def encode(self, text: str, **kwargs: Any) -> Any: ...

    def decode(self, token_ids: Any, **kwargs: Any) -> Any: ...


@dataclass(frozen=True, slots=True)
class Template:
    """The template as text to text; raises ConfigError when it refuses the messages."""

    tokenizer: Tokenizer

    def render(self, messages: Dialogue, tools: Sequence[Mapping[str, Any]] = (), *, ask: bool) -> str:
        """`ask`: end where the assistant begins to write."""
        from jinja2.exceptions import TemplateError

        try:
            text = self.tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, add_generation_prompt=ask, tokenize=False
            )
        except (TemplateError, TypeError) as error:
            raise ConfigError(f"the tokenizer's chat template refuses this conversation: {error}") from error
        return str(text)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What one chat template does."""

    lists_tools: bool
    writes_calls: bool
    """Of a message that is nothing but calls."""
    writes_text_and_calls: bool
    takes_thinking_too: bool
    """A message with text and calls may have thinking, shown or not."""
    takes_results: bool
    """A message of role "tool" is rendered."""
    takes_system: bool
    takes_late_system: bool
    adds_system: bool
    """Writes a system message of its own when the conversation has none."""
    takes_repeats: bool
    """Two messages of one role may follow each other."""
    opening: str
    """What stands between a request and where the assistant begins to write."""
    opens_after_results: bool
    """The same stands there when the conversation ends in a tool's result."""
    ending: str
    """What stands behind an answer."""

    @property
    def opens_thinking(self) -> bool:
        return self.opening.rstrip().endswith("<think>")


def probe(template: Template, arguments: Any, call_id: str) -> Abilities:
    """`arguments` is what the template takes for {"qzv": "qzw"}: the mapping itself or its JSON.

    Raises ConfigError when the template does not show even one message of text.
    """
    call = {"id": call_id, "type": "function", "function": {"name": "qzcall", "arguments": arguments}}
    calling = {"role": "assistant", "content": "", "tool_calls": [call]}
    saying = {**calling, "content": "qzsaid"}
    result = {"role": "tool", "content": "qzresult", "name": "qzcall", "tool_call_id": call_id}

    def has(messages: Dialogue, *wanted: str, tools: Dialogue = ()) -> bool:
        text = _attempt(lambda: template.render(messages, tools, ask=False))
        return text is not None and all(each in text for each in wanted)

    if not has([_USER, _ANSWER], "qzuser", "qzanswer"):
        raise ConfigError(
            "this chat template does not show messages of plain text; set another tokenizer.chat_template"
        )
    writes = has([_USER, calling], "qzcall", "qzv", "qzw")
    answered = _attempt(lambda: template.render([_USER, calling, result], ask=True)) or ""
    return Abilities(
        lists_tools=has([_USER], "qztool", "qzdescription", "qzparameter", tools=[_TOOL]),
        writes_calls=writes,
        writes_text_and_calls=writes and has([_USER, saying], "qzcall", "qzv", "qzw", "qzsaid"),
        takes_thinking_too=has([_USER, saying | _THOUGHT], "qzsaid"),
        takes_results=writes and has([_USER, calling, result], "qzresult"),
        takes_system=has([_SYSTEM, _USER], "qzsystem", "qzuser"),
        takes_late_system=has([_USER, _ANSWER, _SYSTEM], "qzsystem"),
        adds_system=_adds_system(template),
        takes_repeats=has([_USER, _USER, _ANSWER, _ANSWER], "qzuser", "qzanswer"),
        opening=(opening := _opening(template)),
        opens_after_results=answered.endswith(opening),
        ending=template.render([_USER, _ANSWER], ask=False).partition("qzanswer")[2],
    )


_USER: Mapping[str, Any] = {"role": "user", "content": "qzuser"}
_SYSTEM: Mapping[str, Any] = {"role": "system", "content": "qzsystem"}
_ANSWER: Mapping[str, Any] = {"role": "assistant", "content": "qzanswer"}
_THOUGHT = {"thinking": "qzthought", "reasoning_content": "qzthought"}
_TOOL: Mapping[str, Any] = {
    "type": "function",
    "function": {
        "name": "qztool",
        "description": "qzdescription",
        "parameters": {"type": "object", "properties": {"qzparameter": {"type": "string"}}, "required": []},
    },
}


def _attempt(render: Callable[[], str]) -> str | None:
    try:
        return render()
    except ConfigError:
        return None


def _adds_system(template: Template) -> bool:
    """Whether something stands where the system message would, when there is none."""
    bare = template.render([_USER], ask=False)
    given = _attempt(lambda: template.render([_SYSTEM, _USER], ask=False))
    before, found, after = (given or "").partition("qzsystem")
    surrounded = bare.startswith(before) and bare.endswith(after)
    return bool(found) and surrounded and len(bare) > len(before) + len(after)


def _opening(template: Template) -> str:
    asked, bare = (template.render([_USER], ask=ask) for ask in (True, False))
    return asked[len(bare) :] if asked.startswith(bare) else ""

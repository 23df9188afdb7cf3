"""Which family writes its calls how, and which one a model belongs to. The place to add a family."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from continualcode.errors import ConfigError
from continualcode.renderers.formats import BareJson, DeepSeek, Hermes, Kimi, XmlFunctions
from continualcode.renderers.harmony import Harmony
from continualcode.renderers.reading import Format, Tagged


def plain_id(name: str, index: int) -> str:
    """Nine letters and digits: what the strictest template (Mistral's) takes."""
    return f"call{index:05d}"


def kimi_id(name: str, index: int) -> str:
    return f"functions.{name}:{index}"


@dataclass(frozen=True, slots=True)
class Family:
    """How one family of models writes calls, and what its chat templates want."""

    name: str
    format: Format
    template: re.Pattern[str]
    """Found in the source of this family's chat templates, and of no earlier family's."""
    models: re.Pattern[str]
    """Found in this family's model names, where the template tells nothing."""
    arguments_as_text: bool = False
    """The template joins the arguments to other text, so it needs them as JSON."""
    one_call: bool = False
    """The template refuses several calls in one message."""
    call_id: Callable[[str, int], str] = plain_id

    def arguments(self, arguments: Any) -> Any:
        return json.dumps(arguments, ensure_ascii=False) if self.arguments_as_text else arguments


def _never() -> re.Pattern[str]:
    return re.compile("(?!)")


def _names(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.IGNORECASE)


_ALL = (
    Family("gpt-oss", Harmony(), re.compile(r"<\|channel\|>"), _names("gpt-?oss")),
    Family("kimi-k2", Tagged(Kimi()), re.compile(r"<\|tool_call_argument_begin\|>"), _names("kimi"), call_id=kimi_id),
    Family(
        "deepseek-v3",
        Tagged(DeepSeek(fenced=True)),
        re.compile(r"<｜tool▁call▁begin｜>[\s\S]*```json"),
        _names(r"deepseek-(?:v3(?!\.\d)|r1)"),
        arguments_as_text=True,
    ),
    Family(
        "deepseek-v3.1",
        Tagged(DeepSeek()),
        re.compile("<｜tool▁call▁begin｜>"),
        _names(r"deepseek-v3\.\d"),
        arguments_as_text=True,
    ),
    Family("qwen3-coder", Tagged(XmlFunctions()), re.compile("<function="), _names(r"qwen3-coder|qwen3\.\d")),
    Family(
        "llama-3",
        Tagged(BareJson("parameters")),
        re.compile(r"<\|start_header_id\|>[\s\S]*\"parameters\": "),
        _names(r"\A(?!.*hermes).*llama-?3"),
        one_call=True,
    ),
    Family("hermes", Tagged(Hermes()), re.compile(r"\A(?![\s\S]*<arg_key>)[\s\S]*<tool_call>"), _names("hermes|qwen")),
    Family("json", Tagged(BareJson()), _never(), _never()),
)
FAMILIES: Mapping[str, Family] = MappingProxyType({family.name: family for family in _ALL})


def choose_family(chat_template: str, model_name: str, family: str | None) -> Family:
    """The family asked for; else the one whose marks the template has, or whose name the model bears.

    Of a template without tools the renderer itself teaches the format: Hermes's, as most models have seen it. A
    template that lists tools in a syntax of no family here gets plain JSON. Raises ConfigError on an unknown family.
    """
    if family is not None:
        if family not in FAMILIES:
            raise ConfigError(f"no renderer family {family!r}; there are: {', '.join(sorted(FAMILIES))}")
        return FAMILIES[family]
    for pattern, text in (("template", chat_template), ("models", model_name)):
        for each in _ALL:
            if (each.template if pattern == "template" else each.models).search(text):
                return each
    return FAMILIES["json" if "tools" in chat_template else "hermes"]

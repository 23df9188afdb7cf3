"""Chat templates and tool-call parsing by model family; needs a tokenizer and no model."""

from __future__ import annotations

from collections.abc import Mapping

from continualcode.renderers.chat import ChatTemplateRenderer
from continualcode.renderers.families import FAMILIES, Family, choose_family
from continualcode.renderers.template import Tokenizer

__all__ = ["FAMILIES", "ChatTemplateRenderer", "Family", "Tokenizer", "make_renderer"]


def make_renderer(tokenizer: Tokenizer, *, model_name: str = "", family: str | None = None) -> ChatTemplateRenderer:
    """The renderer for a tokenizer, its family found from the chat template, else the model's name.

    Raises ConfigError for an unknown family and for a tokenizer without a chat template or an end-of-turn token.
    """
    template = tokenizer.chat_template
    source = "\n".join(template.values()) if isinstance(template, Mapping) else template or ""
    return ChatTemplateRenderer(tokenizer, choose_family(source, model_name, family))

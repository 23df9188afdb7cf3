"""Small byte-level tokenizers with each family's control tokens and a short chat template after its published one."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from continualcode.renderers import ChatTemplateRenderer, make_renderer
from continualcode.types import Conversation, Message, ToolCall, ToolSpec

CHATML = """
{%- for m in messages %}
{%- if loop.first and m.role != 'system' %}{{ '<|im_start|>system\\nYou are Small.<|im_end|>\\n' }}{% endif %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""

QWEN_HEAD = """
{%- if tools %}
{{- '<|im_start|>system\\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
{{- '# Tools\\n' }}{% for tool in tools %}{{ tool | tojson }}{{ '\\n' }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}
{%- set ns = namespace(last=0) %}
{%- for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
{%- elif m.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
"""

QWEN3 = (
    QWEN_HEAD
    + """
{%- if loop.index0 > ns.last and (loop.last or m.reasoning_content) %}{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}
{{- m.content if m.content is string else '' }}
{%- for call in m.tool_calls or [] %}
{%- if m.content or not loop.first %}{{ '\\n' }}{% endif %}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments if call.function.arguments is string else call.function.arguments | tojson }}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
)

QWEN35 = (
    QWEN_HEAD
    + """
{%- if loop.index0 > ns.last %}{{ '<think>\\n' + (m.reasoning_content or '') + '\\n</think>\\n\\n' }}{% endif %}
{{- (m.content or '') | trim }}
{%- for call in m.tool_calls or [] %}
{%- if loop.first and m.content %}{{ '\\n\\n' }}{% elif not loop.first %}{{ '\\n' }}{% endif %}
{{- '<tool_call>\\n<function=' + call.function.name + '>\\n' }}
{%- for key, value in call.function.arguments | items %}
{{- '<parameter=' + key + '>\\n' }}{{ value if value is string else value | tojson }}{{ '\\n</parameter>\\n' }}
{%- endfor %}
{{- '</function>\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"""
)

LLAMA3 = """
{{- bos_token }}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + system }}
{%- for tool in tools or [] %}{{ '\\n\\n' }}{{ tool | tojson(indent=4) }}{% endfor %}
{{- '<|eot_id|>' }}
{%- for m in messages %}
{%- if 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{ raise_exception('This model only supports single tool-calls at once!') }}{% endif %}
{%- set call = m.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
{{- call.arguments | tojson }}{{ '}<|eot_id|>' }}
{%- elif m.role == 'tool' %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}{{ m.content | tojson }}{{ '<|eot_id|>' }}
{%- else %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"""

DEEPSEEK = """
{%- set ns = namespace(system='', user=false) %}
{%- for m in messages %}{% if m.role == 'system' %}{% set ns.system = ns.system + m.content %}{% endif %}{% endfor %}
{{- bos_token + ns.system }}
{%- for m in messages %}
{%- if m.role == 'user' %}{% set ns.user = true %}{{ '<｜User｜>' + m.content }}
{%- elif m.role == 'tool' %}{{ '<｜tool▁output▁begin｜>' + m.content + '<｜tool▁output▁end｜>' }}
{%- elif m.role == 'assistant' %}
{%- if ns.user %}{{ '<｜Assistant｜>OPEN' }}{% endif %}{% set ns.user = false %}
{{- m.content or '' }}
{%- if m.tool_calls %}{{ '<｜tool▁calls▁begin｜>' }}
{%- for call in m.tool_calls %}
{{- '<｜tool▁call▁begin｜>BEFORE' + call.function.arguments + 'AFTER<｜tool▁call▁end｜>' }}
{%- endfor %}{{ '<｜tool▁calls▁end｜>' }}{% endif %}
{{- '<｜end▁of▁sentence｜>' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt and ns.user %}{{ '<｜Assistant｜>ASK' }}{% endif %}"""


def deepseek(told: str, asked: str, before: str, after: str) -> str:
    template = DEEPSEEK.replace("OPEN", told).replace("ASK", asked)
    return template.replace("BEFORE", before).replace("AFTER", after)


KIMI = """
{%- macro head(m) %}{% if m.role == 'user' %}<|im_user|>user<|im_middle|>{% elif m.role == 'assistant' %}
{{- '<|im_assistant|>assistant<|im_middle|>' }}{% else %}<|im_system|>{{ m.name or m.role }}<|im_middle|>{% endif %}{% endmacro %}
{%- if tools %}<|im_system|>tool_declare<|im_middle|>{{ tools | tojson }}<|im_end|>{% endif %}
{%- if messages[0].role != 'system' %}<|im_system|>system<|im_middle|>You are Kimi.<|im_end|>{% endif %}
{%- for m in messages %}{{ head(m) }}
{%- if m.role == 'tool' %}{{ '## Return of ' + m.tool_call_id + '\\n' }}{% endif %}{{ m.content or '' }}
{%- if m.tool_calls %}<|tool_calls_section_begin|>
{%- for call in m.tool_calls %}<|tool_call_begin|>{{ call.id }}<|tool_call_argument_begin|>
{{- call.function.arguments | tojson }}<|tool_call_end|>{% endfor %}<|tool_calls_section_end|>{% endif %}
{{- '<|im_end|>' }}{% endfor %}
{%- if add_generation_prompt %}<|im_assistant|>assistant<|im_middle|>{% endif %}"""

HARMONY = """
{{- '<|start|>system<|message|>You are ChatGPT.<|end|>' }}
{%- if messages[0].role == 'system' or tools %}{{ '<|start|>developer<|message|>' }}
{%- if messages[0].role == 'system' %}{{ '# Instructions\\n\\n' + messages[0].content }}{% endif %}
{%- for tool in tools or [] %}{{ '\\n// ' + tool.function.description + '\\ntype ' + tool.function.name + ' = ' }}
{{- tool.function.parameters.properties | tojson }}{% endfor %}{{ '<|end|>' }}{% endif %}
{%- set ns = namespace(call=none) %}
{%- for m in messages %}
{%- if m.role == 'user' %}{{ '<|start|>user<|message|>' + m.content + '<|end|>' }}
{%- elif m.role == 'tool' %}{{ '<|start|>functions.' + ns.call + ' to=assistant<|channel|>commentary<|message|>' }}
{{- m.content | tojson }}{{ '<|end|>' }}
{%- elif m.role == 'assistant' and m.tool_calls %}
{%- if m.content and m.thinking %}{{ raise_exception('Cannot pass both content and thinking with tool calls!') }}{% endif %}
{%- if m.content or m.thinking %}
{{- '<|start|>assistant<|channel|>analysis<|message|>' + (m.content or m.thinking) + '<|end|>' }}{% endif %}
{%- set ns.call = m.tool_calls[0].function.name %}
{{- '<|start|>assistant to=functions.' + ns.call + '<|channel|>commentary json<|message|>' }}
{{- m.tool_calls[0].function.arguments | tojson }}{{ '<|call|>' }}
{%- elif m.role == 'assistant' %}
{%- if m.thinking and loop.last %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}
{{- '<|start|>assistant<|channel|>final<|message|>' + m.content }}
{{- '<|return|>' if loop.last and not add_generation_prompt else '<|end|>' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"""

ALTERNATING = """
{{- bos_token }}
{%- for m in messages %}
{%- if m.role not in ('user', 'assistant') or (m.role == 'user') != (loop.index0 % 2 == 0) %}
{{- raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}
{{- '[INST] ' + m.content + ' [/INST]' if m.role == 'user' else m.content + eos_token }}
{%- endfor %}"""

UNKNOWN_SYNTAX = (
    QWEN_HEAD
    + """
{{- m.content or '' }}{% for call in m.tool_calls or [] %}{{ '[CALL]' }}{{ call.function | tojson }}{% endfor %}{{ '<|im_end|>\\n' }}
{%- endif %}{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
)

CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
QWEN_TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
DEEPSEEK_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>")
DEEPSEEK_TAGS = (
    *("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>", "<｜tool▁sep｜>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"),
    *("<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"),
)


@dataclass(frozen=True)
class Published:
    """What one model family's tokenizer consists of here. The first special token is bos, the one named `end` eos."""

    template: str
    special: tuple[str, ...]
    end: str
    tags: tuple[str, ...] = ()


PUBLISHED = {
    "chatml": Published(CHATML, CHATML_TOKENS, "<|im_end|>"),
    "hermes": Published(QWEN3, CHATML_TOKENS, "<|im_end|>", QWEN_TAGS),
    "qwen3-coder": Published(QWEN35, CHATML_TOKENS, "<|im_end|>", QWEN_TAGS),
    "llama-3": Published(
        LLAMA3,
        (
            *("<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>"),
            *("<|eot_id|>", "<|eom_id|>", "<|python_tag|>"),
        ),
        "<|eot_id|>",
    ),
    "deepseek-v3": Published(
        deepseek("", "<think>\\n", "function<｜tool▁sep｜>' + call.function.name + '\\n```json\\n", "\\n```"),
        DEEPSEEK_TOKENS,
        "<｜end▁of▁sentence｜>",
        DEEPSEEK_TAGS,
    ),
    "deepseek-v3.1": Published(
        deepseek("</think>", "</think>", "' + call.function.name + '<｜tool▁sep｜>", ""),
        DEEPSEEK_TOKENS,
        "<｜end▁of▁sentence｜>",
        DEEPSEEK_TAGS,
    ),
    "kimi-k2": Published(
        KIMI,
        (
            *("[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>"),
            *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>", "<|tool_call_begin|>"),
            *("<|tool_call_argument_begin|>", "<|tool_call_end|>"),
        ),
        "<|im_end|>",
    ),
    "gpt-oss": Published(
        HARMONY,
        (
            *("<|startoftext|>", "<|endoftext|>", "<|return|>", "<|constrain|>", "<|channel|>", "<|start|>"),
            *("<|end|>", "<|message|>", "<|call|>"),
        ),
        "<|return|>",
    ),
    "json": Published(UNKNOWN_SYNTAX, CHATML_TOKENS, "<|im_end|>"),
    "alternating": Published(ALTERNATING, ("<s>", "</s>"), "</s>", ("[INST]", "[/INST]")),
}

CORPUS = (
    'read the file and edit it\n\n{"name": "read", "arguments": {"path": "src/main.py"}}\n  def test():\n\n    return 1\n',
    '<tool_call>\n<function=write>\n<parameter=content>\n<|im_end|> <|x|>\n  "parameters": "arguments": "content": ',
)


def _tokenizer(published: Published) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        CORPUS * 4, trainers.BpeTrainer(vocab_size=420, initial_alphabet=alphabet, show_progress=False)
    )
    bpe.add_special_tokens(list(published.special))
    bpe.add_tokens([AddedToken(tag, normalized=False) for tag in published.tags])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=published.special[0], eos_token=published.end, pad_token=published.end
    )
    tokenizer.chat_template = published.template
    return tokenizer


@pytest.fixture(scope="session")
def tokenizer_of() -> Callable[[str], PreTrainedTokenizerFast]:
    """The small tokenizer of a family by name, each made once."""
    made: dict[str, PreTrainedTokenizerFast] = {}

    def find(name: str) -> PreTrainedTokenizerFast:
        return made.setdefault(name, _tokenizer(PUBLISHED[name])) if name not in made else made[name]

    return find


@pytest.fixture(scope="session")
def renderer_of(tokenizer_of) -> Callable[[str], ChatTemplateRenderer]:
    made: dict[str, ChatTemplateRenderer] = {}

    def find(name: str) -> ChatTemplateRenderer:
        if name not in made:
            made[name] = make_renderer(tokenizer_of(name))
        return made[name]

    return find


@pytest.fixture
def tools() -> tuple[ToolSpec, ...]:
    def schema(*needed: str, **optional: str) -> dict:
        properties = {name: {"type": "string"} for name in (*needed, *optional)}
        return {"type": "object", "properties": properties, "required": list(needed)}

    return (
        ToolSpec("read", "Read a file. Lines are numbered.", schema("path", offset="")),
        ToolSpec("write", "Write a whole file.\nParents are made.", schema("path", "content")),
    )


@pytest.fixture
def conversation(tools) -> Conversation:
    return Conversation((Message("system", "Be brief."), Message("user", "fix src/main.py")), tools)


@pytest.fixture
def reading() -> Message:
    return Message("assistant", "I look at it.", calls=(ToolCall("read", {"path": "src/main.py"}),))

"""Which family a tokenizer's template or a model's name means."""

import subprocess
import sys

import pytest

from continualcode.errors import ConfigError
from continualcode.renderers import FAMILIES, make_renderer
from continualcode.renderers.families import choose_family


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_is_found_by_its_template(renderer_of, name):
    assert renderer_of(name).family == name


@pytest.mark.parametrize(
    ("model", "family"),
    [
        *(("Qwen/Qwen3-8B", "hermes"), ("Qwen/Qwen2.5-7B-Instruct", "hermes"), ("Qwen/Qwen3.5-4B", "qwen3-coder")),
        *(("Qwen/Qwen3-Coder-30B-A3B-Instruct", "qwen3-coder"), ("NousResearch/Hermes-3-Llama-3.1-8B", "hermes")),
        *(("meta-llama/Llama-3.1-8B-Instruct", "llama-3"), ("meta-llama/Meta-Llama-3-8B", "llama-3")),
        *(("deepseek-ai/DeepSeek-V3", "deepseek-v3"), ("deepseek-ai/DeepSeek-V3.1", "deepseek-v3.1")),
        *(("deepseek-ai/DeepSeek-R1-0528", "deepseek-v3"), ("moonshotai/Kimi-K2-Thinking", "kimi-k2")),
        *(("openai/gpt-oss-20b", "gpt-oss"), ("smollm2-135m", "hermes"), ("", "hermes")),
    ],
)
def test_a_model_is_known_by_name_when_its_template_tells_nothing(model, family):
    assert choose_family("{{ messages }}", model, None).name == family


def test_a_template_outweighs_a_name():
    assert choose_family("<|tool_call_argument_begin|>", "Qwen/Qwen3-8B", None).name == "kimi-k2"


def test_a_template_with_tools_in_no_known_syntax_means_plain_json():
    assert choose_family("{{ tools }} <tool_call>{{ name }}<arg_key>", "zai/GLM", None).name == "json"


def test_a_family_asked_for_is_taken(tokenizer_of):
    assert make_renderer(tokenizer_of("hermes"), family="json").family == "json"


def test_an_unknown_family_names_all_there_are(tokenizer_of):
    with pytest.raises(
        ConfigError, match=r"no renderer family 'qwen'; there are: deepseek-v3, .*hermes, .*qwen3-coder"
    ):
        make_renderer(tokenizer_of("hermes"), family="qwen")


def test_importing_the_renderers_loads_no_transformers():
    code = "import sys, continualcode.renderers; sys.exit(bool({'transformers', 'torch', 'jinja2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""Prompts and completions of every family, over small tokenizers with that family's tokens and template."""

import copy

import pytest

from continualcode.errors import ConfigError
from continualcode.renderers import make_renderer
from continualcode.renderers.chat import CACHED_PIECES
from continualcode.types import Conversation, Message, ToolCall, ToolSpec

FAMILIES = (
    *("chatml", "hermes", "qwen3-coder", "llama-3", "deepseek-v3", "deepseek-v3.1", "kimi-k2", "gpt-oss"),
    *("json", "alternating"),
)
KEEPS_WHAT_IT_WROTE = sorted(set(FAMILIES) - {"deepseek-v3", "json"})
"""R1's template drops the thinking its prompt opened; no format here writes the unknown syntax's calls."""

CALLS = (
    ToolCall("read", {"path": "src/main.py"}),
    ToolCall("write", {"path": "ä b.txt", "content": 'one\n  "two" \\ </parameter> {"a": [1]}\n\n\tthree\n'}),
    ToolCall("write", {"path": "", "content": "\n"}),
    ToolCall("list", {}),
)


def text(tokenizer, tokens):
    return tokenizer.decode(tokens, skip_special_tokens=False)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("call", CALLS, ids=["plain", "awkward", "blank", "empty"])
def test_a_completion_reads_back_as_the_message_it_was_made_from(renderer_of, name, call):
    renderer = renderer_of(name)
    content = "I look at it."
    tokens = renderer.completion(Message("assistant", content, calls=(call,)))
    reply = renderer.parse(tokens)
    assert (reply.text, reply.calls, reply.problem) == (content, (call,), None)
    assert reply.call == call
    assert tokens[-1] in renderer.stop
    assert not set(tokens[:-1]) & set(renderer.stop)


@pytest.mark.parametrize("name", FAMILIES)
def test_an_answer_reads_back_as_itself(renderer_of, name):
    renderer = renderer_of(name)
    tokens = renderer.completion(Message("assistant", "Done: 2 < 3.\n\nAll tests pass."))
    reply = renderer.parse(tokens)
    assert (reply.text, reply.thinking, reply.calls, reply.problem) == ("Done: 2 < 3.\n\nAll tests pass.", "", (), None)
    assert tokens[-1] == renderer.stop[0]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("calls", [(), CALLS[:1]], ids=["answer", "call"])
def test_thinking_reads_back_apart_from_the_rest(renderer_of, name, calls):
    renderer = renderer_of(name)
    content = "" if calls else "It is done."
    reply = renderer.parse(renderer.completion(Message("assistant", content, "First I read.", calls)))
    assert (reply.text, reply.thinking, reply.calls, reply.problem) == (content, "First I read.", calls, None)


@pytest.mark.parametrize("name", KEEPS_WHAT_IT_WROTE)
def test_a_prompt_begins_with_the_earlier_prompt_and_the_completion(renderer_of, conversation, reading, name):
    renderer = renderer_of(name)
    message = Message("assistant", "", calls=reading.calls) if name in ("llama-3", "gpt-oss") else reading
    result = Message("tool", "1 | import os\n", tool="read")
    before = renderer.prompt(conversation) + renderer.completion(message)
    assert renderer.prompt(conversation.add(message, result))[: len(before)] == before


def test_the_prefix_holds_for_an_answer_that_begins_with_white_space_the_prompt_could_swallow(renderer_of):
    renderer = renderer_of("chatml")
    conversation = Conversation((Message("system", "s"), Message("user", "u")))
    answer = Message("assistant", "\n  def test():")
    before = renderer.prompt(conversation) + renderer.completion(answer)
    assert renderer.prompt(conversation.add(answer, Message("user", "more")))[: len(before)] == before


@pytest.mark.parametrize("name", FAMILIES)
def test_a_prompt_shows_the_tools_the_request_and_what_the_tool_answered(
    renderer_of, tokenizer_of, conversation, reading, name
):
    conversation = conversation.add(reading, Message("tool", "1 | import os", tool="read"))
    shown = text(tokenizer_of(name), renderer_of(name).prompt(conversation))
    for wanted in ("Be brief.", "fix src/main.py", "read", "offset", "Write a whole file", "1 | import os"):
        assert wanted in shown
    assert shown.count("src/main.py") == 2


def test_a_template_that_knows_tools_lists_them_itself(renderer_of, tokenizer_of, conversation):
    shown = text(tokenizer_of("hermes"), renderer_of("hermes").prompt(conversation))
    assert shown.startswith('<|im_start|>system\nBe brief.\n\n# Tools\n{"type": "function"')
    assert "To use a tool" not in shown
    assert shown.endswith("fix src/main.py<|im_end|>\n<|im_start|>assistant\n")


def test_a_template_without_tools_gets_a_line_each_in_the_system_message(renderer_of, tokenizer_of, tools):
    conversation = Conversation((Message("user", "go"),), tools)
    assert text(tokenizer_of("chatml"), renderer_of("chatml").prompt(conversation)) == (
        "<|im_start|>system\n"
        "Tools:\n"
        "read(path, offset?): Read a file\n"
        "write(path, content): Write a whole file\n"
        "To use a tool, answer with exactly one call:\n"
        '<tool_call>\n{"name": ..., "arguments": {...}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\ngo<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_tool_role_a_result_is_a_wrapped_user_message(renderer_of, tokenizer_of, conversation, reading):
    conversation = conversation.add(reading, Message("tool", "empty", tool="read"))
    assert text(tokenizer_of("chatml"), renderer_of("chatml").prompt(conversation)).endswith(
        "<|im_start|>assistant\nI look at it.\n"
        '<tool_call>\n{"name": "read", "arguments": {"path": "src/main.py"}}\n</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_response>\nempty\n</tool_response><|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(("name", "default"), [("chatml", "You are Small."), ("kimi-k2", "You are Kimi.")])
def test_a_template_never_adds_a_system_message_of_its_own(renderer_of, tokenizer_of, tools, name, default):
    assert default in tokenizer_of(name).apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)
    for conversation in (Conversation((Message("user", "hi"),)), Conversation((Message("user", "hi"),), tools)):
        assert default not in text(tokenizer_of(name), renderer_of(name).prompt(conversation))


def test_templates_that_demand_alternation_get_neighbours_of_one_role_as_one(renderer_of, tokenizer_of, tools):
    messages = (
        *(Message("system", "Be brief."), Message("user", "one"), Message("user", "two")),
        *(Message("assistant", "three"), Message("assistant", "four"), Message("user", "five")),
    )
    shown = text(tokenizer_of("alternating"), renderer_of("alternating").prompt(Conversation(messages)))
    assert shown == "<s>[INST] Be brief.\n\none\n\ntwo [/INST]three\n\nfour</s>[INST] five [/INST]"


def test_alternation_is_kept_without_a_system_message_too(renderer_of, tokenizer_of):
    messages = (Message("user", "one"), Message("user", "two"), Message("assistant", "3"), Message("assistant", "4"))
    shown = text(tokenizer_of("alternating"), renderer_of("alternating").prompt(Conversation(messages)))
    assert shown == "<s>[INST] one\n\ntwo [/INST]3\n\n4</s>"


def test_a_late_system_message_joins_the_first_where_the_template_refuses_it_later(tokenizer_of, tools):
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    refusal = (
        "{% for m in messages[1:] %}{% if m.role == 'system' %}{{ raise_exception('late') }}{% endif %}{% endfor %}"
    )
    tokenizer.chat_template = refusal + tokenizer.chat_template
    messages = (Message("system", "one"), Message("user", "two"), Message("system", "three"), Message("user", "four"))
    shown = text(tokenizer, make_renderer(tokenizer).prompt(Conversation(messages)))
    assert shown.startswith("<|im_start|>system\none\n\nthree<|im_end|>\n<|im_start|>user\ntwo<|im_end|>")
    assert shown.count("three") == 1


def test_a_late_system_message_stays_where_it_is_elsewhere(renderer_of, tokenizer_of):
    messages = (Message("system", "one"), Message("user", "two"), Message("system", "three"))
    shown = text(tokenizer_of("chatml"), renderer_of("chatml").prompt(Conversation(messages)))
    assert "two<|im_end|>\n<|im_start|>system\nthree<|im_end|>" in shown


def test_other_templates_keep_neighbours_of_one_role_apart(renderer_of, tokenizer_of):
    conversation = Conversation((Message("system", ""), Message("user", "one"), Message("user", "two")))
    shown = text(tokenizer_of("chatml"), renderer_of("chatml").prompt(conversation))
    assert "user\none<|im_end|>\n<|im_start|>user\ntwo<|im_end|>" in shown


def test_several_calls_of_one_message_are_written_even_where_the_template_refuses_them(renderer_of, tokenizer_of):
    conversation = Conversation(
        (Message("user", "go"), Message("assistant", "", calls=CALLS[:2]), Message("user", "one!"))
    )
    shown = text(tokenizer_of("llama-3"), renderer_of("llama-3").prompt(conversation))
    assert shown.count('{"name": "') == 2
    assert '"name": "read", "parameters": {"path": "src/main.py"}}; {"name": "write"' in shown


def test_a_llama_keeps_its_own_role_for_results(renderer_of, tokenizer_of, conversation):
    conversation = conversation.add(Message("assistant", "", calls=CALLS[:1]), Message("tool", "empty", tool="read"))
    shown = text(tokenizer_of("llama-3"), renderer_of("llama-3").prompt(conversation))
    assert '<|start_header_id|>ipython<|end_header_id|>\n\n"empty"<|eot_id|>' in shown


def test_gpt_oss_words_beside_a_call_join_the_thinking_that_its_template_refuses_beside_them(renderer_of, tokenizer_of):
    message = Message("assistant", "I look.", "Hm.", CALLS[:1])
    conversation = Conversation((Message("user", "u"), message, Message("tool", "empty", tool="read")))
    shown = text(tokenizer_of("gpt-oss"), renderer_of("gpt-oss").prompt(conversation))
    assert "<|channel|>analysis<|message|>Hm.\n\nI look.<|end|><|start|>assistant to=functions.read" in shown


def test_kimi_calls_are_numbered_through_the_conversation(renderer_of, tokenizer_of, tools):
    turn = (Message("assistant", "", calls=CALLS[:1]), Message("tool", "ok", tool="read"))
    shown = text(
        tokenizer_of("kimi-k2"), renderer_of("kimi-k2").prompt(Conversation((Message("user", "u"), *turn, *turn)))
    )
    assert "functions.read:0" in shown
    assert "functions.read:1" in shown
    assert "<|im_system|>read<|im_middle|>## Return of functions.read:1\nok<|im_end|>" in shown


def test_a_tool_result_that_answers_no_call_becomes_a_user_message(renderer_of, tokenizer_of):
    messages = (Message("user", "u"), Message("assistant", "<tool_call>{"), Message("tool", "no JSON", tool=""))
    for name in ("hermes", "gpt-oss", "kimi-k2"):
        shown = text(tokenizer_of(name), renderer_of(name).prompt(Conversation(messages)))
        assert "<tool_response>\nno JSON\n</tool_response>" in shown


def test_a_prompt_that_opens_thinking_is_closed_by_the_completion_that_has_none(renderer_of, tokenizer_of):
    tokens = renderer_of("qwen3-coder").completion(Message("assistant", "", calls=CALLS[:1]))
    assert text(tokenizer_of("qwen3-coder"), tokens).startswith("\n</think>\n\n<tool_call>\n<function=read>\n")
    tokens = renderer_of("deepseek-v3").completion(Message("assistant", "Hi"))
    assert text(tokenizer_of("deepseek-v3"), tokens) == "</think>\n\nHi<｜end▁of▁sentence｜>"


def test_an_r1_reply_to_a_tool_result_may_do_without_thinking(renderer_of, tokenizer_of, conversation, reading):
    tokenizer, renderer = tokenizer_of("deepseek-v3"), renderer_of("deepseek-v3")
    after_result = conversation.add(reading, Message("tool", "empty", tool="read"))
    assert text(tokenizer, renderer.prompt(conversation)).endswith("<think>\n")
    assert text(tokenizer, renderer.prompt(after_result)).endswith("empty<｜tool▁output▁end｜>")
    assert renderer.parse(tokenizer.encode("It is empty.")).text == "It is empty."
    reply = renderer.parse(tokenizer.encode("Shall I say so? Yes.\n</think>\n\nIt is empty."))
    assert (reply.thinking, reply.text) == ("Shall I say so? Yes.", "It is empty.")


def test_a_qwen_reply_that_never_left_its_thinking_is_a_problem(renderer_of, tokenizer_of):
    reply = renderer_of("qwen3-coder").parse(tokenizer_of("qwen3-coder").encode("Shall I say so?"))
    assert (reply.text, reply.thinking) == ("", "Shall I say so?")
    assert "still thinking" in reply.problem


def test_gpt_oss_calls_end_in_the_call_token_and_answers_in_return(renderer_of, tokenizer_of):
    call = renderer_of("gpt-oss").completion(Message("assistant", "", calls=CALLS[:1]))
    answer = renderer_of("gpt-oss").completion(Message("assistant", "Done"))
    assert text(tokenizer_of("gpt-oss"), call).endswith('{"path": "src/main.py"}<|call|>')
    assert text(tokenizer_of("gpt-oss"), answer) == "<|channel|>final<|message|>Done<|return|>"


def test_every_end_of_turn_token_of_the_vocabulary_stops(renderer_of, tokenizer_of):
    for name, ends in (("llama-3", ("<|eot_id|>", "<|eom_id|>")), ("gpt-oss", ("<|return|>", "<|call|>"))):
        stop = {text(tokenizer_of(name), [token]) for token in renderer_of(name).stop}
        assert stop >= set(ends)
    assert text(tokenizer_of("gpt-oss"), [renderer_of("gpt-oss").stop[0]]) == "<|return|>"


def test_decode_shows_one_token_control_tokens_too(renderer_of, tokenizer_of):
    renderer = renderer_of("hermes")
    assert renderer.decode(renderer.stop[0]) == "<|im_end|>"
    assert "".join(map(renderer.decode, tokenizer_of("hermes").encode("read the file"))) == "read the file"


def test_a_template_that_shows_no_plain_text_is_refused(tokenizer_of):
    tokenizer = copy.deepcopy(tokenizer_of("chatml"))
    tokenizer.chat_template = (
        "{% for m in messages %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
    )
    with pytest.raises(ConfigError, match="does not show messages of plain text"):
        make_renderer(tokenizer)


def test_the_token_that_the_template_puts_behind_an_answer_stops_whatever_eos_is(tokenizer_of):
    tokenizer = copy.deepcopy(tokenizer_of("alternating"))
    tokenizer.add_tokens(["<end_of_turn>"])
    tokenizer.chat_template = tokenizer.chat_template.replace("eos_token", "'<end_of_turn>\\n'")
    renderer = make_renderer(tokenizer)
    assert list(map(renderer.decode, renderer.stop)) == ["<end_of_turn>", "</s>"]
    assert text(tokenizer, renderer.completion(Message("assistant", "Hi"))) == "Hi<end_of_turn>"


def test_a_tokenizer_without_a_chat_template_is_refused(tokenizer_of):
    tokenizer = tokenizer_of("chatml").__class__(tokenizer_object=tokenizer_of("chatml").backend_tokenizer)
    with pytest.raises(ConfigError, match="no chat template"):
        make_renderer(tokenizer)


def test_a_conversation_the_template_refuses_is_an_error_that_says_why(renderer_of):
    with pytest.raises(ConfigError, match=r"refuses this conversation: .*must alternate"):
        renderer_of("alternating").prompt(Conversation((Message("assistant", "I begin"),)))


def test_a_tool_without_parameters_or_description_is_listed(renderer_of, tokenizer_of):
    conversation = Conversation((Message("user", "u"),), (ToolSpec("list", "", {"type": "object"}),))
    assert "\nlist()\n" in text(tokenizer_of("chatml"), renderer_of("chatml").prompt(conversation))


class Encoding:
    """A tokenizer that keeps what it was asked to encode."""

    def __init__(self, tokenizer):
        self._tokenizer, self.encoded = tokenizer, []

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def encode(self, text, **kwargs):
        self.encoded.append(text)
        return self._tokenizer.encode(text, **kwargs)


def test_only_what_is_new_in_a_conversation_is_encoded_however_long_it_is(tokenizer_of):
    tokenizer = Encoding(tokenizer_of("hermes"))
    renderer = make_renderer(tokenizer)
    said = [(Message("user", f"question {n}"), Message("assistant", f"answer {n}")) for n in range(2 * CACHED_PIECES)]
    conversation = Conversation(sum(said, ()))
    renderer.prompt(conversation.add(Message("user", "and now?")))
    tokenizer.encoded.clear()
    longer = conversation.add(Message("user", "and now?"), Message("assistant", "so"), Message("user", "why?"))
    prompt = renderer.prompt(longer)
    assert len(tokenizer.encoded) <= 3
    assert prompt == make_renderer(tokenizer_of("hermes")).prompt(longer)

"""What each family's format makes of a reply: calls, text, thinking, and what was wrong."""

import re

import pytest

from continualcode.renderers import FAMILIES
from continualcode.types import Message, ToolCall

READ = ToolCall("read", {"path": "a.py"})
BEGIN, END = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>"


def read(family, text, thinking=False):
    reply = FAMILIES[family].format.read(text, thinking=thinking)
    assert reply.raw == text
    return reply


PUBLISHED = [
    ("hermes", '<tool_call>\n{"name": "read", "arguments": {"path": "a.py"}}\n</tool_call>'),
    ("hermes", '<tool_call>{"name":"read","arguments":{"path":"a.py"}}</tool_call>'),
    ("hermes", '<tool_call>\n{"arguments": {"path": "a.py"}, "name": "read"}\n</tool_call>\n'),
    ("hermes", '<tool_call>{"name": "read", "parameters": {"path": "a.py"}}</tool_call>'),
    ("hermes", '<tool_call>{"name": "read", "arguments": "{\\"path\\": \\"a.py\\"}"}</tool_call>'),
    ("hermes", '<tool_call>{"type": "function", "name": "read", "arguments": {"path": "a.py"}}</tool_call>'),
    (
        "qwen3-coder",
        "<tool_call>\n<function=read>\n<parameter=path>\na.py\n</parameter>\n</function>\n</tool_call>",
    ),
    ("qwen3-coder", "<tool_call><function=read><parameter=path>a.py</parameter></function></tool_call>"),
    ("qwen3-coder", "<function=read>\n<parameter=path>\na.py\n</parameter>\n</function>\n</tool_call>"),
    ("qwen3-coder", "<function=read>\n<parameter=path>\na.py\n</parameter>\n</function>"),
    ("llama-3", '{"name": "read", "parameters": {"path": "a.py"}}'),
    ("llama-3", '<|python_tag|>{"name": "read", "parameters": {"path": "a.py"}}'),
    ("llama-3", '\n{"type": "function", "name": "read", "parameters": {"path": "a.py"}};'),
    (
        "deepseek-v3",
        f'<｜tool▁calls▁begin｜>{BEGIN}function<｜tool▁sep｜>read\n```json\n{{"path": "a.py"}}\n```{END}<｜tool▁calls▁end｜>',
    ),
    ("deepseek-v3", f'{BEGIN}read<｜tool▁sep｜>{{"path": "a.py"}}{END}'),
    ("deepseek-v3.1", f'<｜tool▁calls▁begin｜>{BEGIN}read<｜tool▁sep｜>{{"path": "a.py"}}{END}<｜tool▁calls▁end｜>'),
    ("deepseek-v3.1", f'<｜tool▁calls▁begin｜>\n{BEGIN}read<｜tool▁sep｜>\n{{"path":"a.py"}}\n{END}'),
    (
        "kimi-k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.read:0<|tool_call_argument_begin|>"
        '{"path": "a.py"}<|tool_call_end|><|tool_calls_section_end|>',
    ),
    (
        "kimi-k2",
        "<|tool_call_section_begin|> <|tool_call_begin|> read <|tool_call_argument_begin|> "
        '{"path": "a.py"} <|tool_call_end|>',
    ),
    ("gpt-oss", '<|channel|>commentary to=functions.read <|constrain|>json<|message|>{"path": "a.py"}'),
    ("gpt-oss", ' to=functions.read<|channel|>commentary json<|message|>{"path": "a.py"}<|call|>'),
    ("gpt-oss", '<|channel|>analysis to=functions.read code<|message|>{"path": "a.py"}'),
    ("json", '{"name": "read", "arguments": {"path": "a.py"}}'),
    ("json", '[TOOL_CALLS] [{"name": "read", "arguments": {"path": "a.py"}, "id": "call00000"}]'),
    ("json", '```json\n{"name": "read", "arguments": {"path": "a.py"}}\n```'),
    ("json", '{\n  "arguments": {\n    "path": "a.py"\n  },\n  "name": "read"\n}'),
]


@pytest.mark.parametrize(("family", "text"), PUBLISHED)
def test_a_call_is_read_in_every_spelling_its_family_uses(family, text):
    reply = read(family, text)
    assert (reply.call, reply.text, reply.problem) == (READ, "", None)


@pytest.mark.parametrize(("family", "text"), [each for each in PUBLISHED if each[0] != "gpt-oss"])
def test_words_before_and_after_a_call_are_the_text(family, text):
    reply = read(family, f"First I look.\n\n{text}\nThen I go on.")
    assert reply.call == READ
    assert reply.text.startswith("First I look.")
    assert reply.text.endswith("Then I go on.")
    assert "read" not in reply.text


def several(family):
    return FAMILIES[family].format.write(
        Message("assistant", "", calls=(READ, ToolCall("glob", {"pat": "*"}))), thinking=False
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_several_calls_are_all_kept_and_the_model_is_told_to_make_one(family):
    reply = read(family, several(family))
    assert [call.name for call in reply.calls] == ["read", "glob"]
    assert reply.problem == "the reply makes 2 calls (read, glob): make exactly one call per reply"
    assert reply.call is None


@pytest.mark.parametrize("family", FAMILIES)
def test_an_empty_reply_is_a_problem(family):
    assert "empty" in read(family, " \n").problem


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gpt-oss"}))
def test_a_call_inside_thinking_is_not_a_call(family):
    written = FAMILIES[family].format.write(Message("assistant", "", calls=(READ,)), thinking=False)
    for text, opened in (
        (f"<think>maybe\n{written}\n</think>\n\nNo need.", False),
        (f"maybe\n{written}\n</think>\n\nNo need.", True),
        (f"<think>maybe\n{written}\n</think>\n\nNo need.", True),
        (f"No need.\n<think>maybe\n{written}\n</think>", False),
    ):
        reply = read(family, text, opened)
        assert (reply.calls, reply.text, reply.problem) == ((), "No need.", None)
        assert reply.thinking.startswith("maybe")


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gpt-oss"}))
def test_a_call_after_thinking_is_a_call(family):
    written = FAMILIES[family].format.write(Message("assistant", "", calls=(READ,)), thinking=False)
    for text, opened in (
        (f"<think>\nhm\n</think>\n\n{written}", False),
        (f"hm\n</think>\n\n{written}", True),
        (f"hm</think>{written}", False),
    ):
        reply = read(family, text, opened)
        assert (reply.call, reply.thinking, reply.text) == (READ, "hm", "")


@pytest.mark.parametrize(("text", "opened"), [("<think>never ends", False), ("never ends", True), ("", True)])
def test_thinking_that_never_ends_is_a_problem_and_no_answer(text, opened):
    reply = read("hermes", text, opened)
    assert reply.problem == "the reply ended while still thinking (no </think>): no answer and no call came"
    assert (reply.text, reply.thinking) == ("", text.removeprefix("<think>"))


def test_think_tags_inside_an_argument_are_the_argument():
    call = ToolCall("write", {"content": "</think> <think> </tool_call> <tool_call>"})
    for family in ("hermes", "json", "llama-3", "kimi-k2", "deepseek-v3", "deepseek-v3.1"):
        reply = read(family, FAMILIES[family].format.write(Message("assistant", "", calls=(call,)), thinking=False))
        assert (reply.call, reply.thinking, reply.text) == (call, "", "")


MALFORMED = [
    ("hermes", '<tool_call>\n{"name": "read", "arguments": {"path": "a.py"}\n</tool_call>', "found '</tool_call>'"),
    ("hermes", '<tool_call>\n{"name": "read", "arguments": {"path": "a', "ends too early|Unterminated string"),
    ("hermes", '<tool_call>\n{"name": "read", "arguments": {"path": "a.py"}}', "</tool_call> is missing"),
    (
        "hermes",
        '<tool_call>{"name": "read", "arguments": {}}{"x": 1}</tool_call>',
        'comes </tool_call>, found \'{"x": 1}',
    ),
    ("hermes", '<tool_call>{"name": "read"}</tool_call>', 'one "arguments" object, found 0'),
    ("hermes", '<tool_call>{"name": "read", "arguments": {}, "parameters": {}}</tool_call>', "found 2"),
    ("hermes", '<tool_call>{"name": "read", "arguments": {}, "path": "a"}</tool_call>', "found also path"),
    ("hermes", '<tool_call>{"name": 3, "arguments": {}}</tool_call>', "non-empty string, found 3"),
    ("hermes", '<tool_call>{"name": "read", "arguments": ["a"]}</tool_call>', 'are a JSON object, found \\["a"\\]'),
    ("hermes", '<tool_call>{"name": "read", "arguments": "a"}</tool_call>', "malformed: Expecting value"),
    ("hermes", '<tool_call>["read"]</tool_call>', 'a call is {"name"'),
    ("hermes", '<tool_call>{"name": "r", "arguments": {"a": 1, "a": 2}}</tool_call>', "'a' is written twice"),
    ("hermes", '<tool_call>{"name": "r", "arguments": {"a": NaN}}</tool_call>', "NaN is not JSON"),
    ("hermes", '<tool_call>{"name": "r", "arguments": {"a": "\\ud800"}}</tool_call>', "surrogates not allowed"),
    ("hermes", '<tool_call>{"name": "r", "arguments": {"a": ' + "[" * 100_000, "nested too deeply"),
    ("hermes", '<tool_call>{"name": "r", "arguments": {"a": ' + "1" * 5_000 + "}}</tool_call>", "digits"),
    (
        "qwen3-coder",
        '<tool_call>{"name": "read"}</tool_call>',
        "after <tool_call> comes <function=NAME>, found '{\"name",
    ),
    ("qwen3-coder", "<tool_call><function=read><parameter=path>a", "<parameter=path> is not closed"),
    ("qwen3-coder", "<tool_call><function=read>", "</function> is missing"),
    ("qwen3-coder", "<tool_call><function=read></function>", "</tool_call> is missing"),
    ("qwen3-coder", "<tool_call><function=read>path: a</function></tool_call>", "comes <parameter=KEY> or </function>"),
    (
        "qwen3-coder",
        "<function=r><parameter=a>1</parameter><parameter=a>2</parameter></function>",
        "'a' is written twice",
    ),
    ("llama-3", '{"name": "read", "parameters": {"path": "a.py"}', "malformed"),
    (
        "llama-3",
        '<|python_tag|>brave_search.call(query="x")',
        "malformed: Expecting value at character 0, found 'brave",
    ),
    ("deepseek-v3", f"<｜tool▁calls▁begin｜>{BEGIN}function<｜tool▁sep｜>read\n```json\n{{}}{END}", "comes ```"),
    ("deepseek-v3.1", f"<｜tool▁calls▁begin｜>{BEGIN}read{END}", "comes NAME<｜tool▁sep｜>"),
    ("deepseek-v3.1", f'{BEGIN}read<｜tool▁sep｜>{{"path": "a"}}', "is missing"),
    ("deepseek-v3.1", "<｜tool▁calls▁begin｜>read", f"comes {BEGIN}, found 'read'"),
    ("kimi-k2", "<|tool_call_begin|>functions.read:0 {}<|tool_call_end|>", "functions.NAME:INDEX"),
    ("kimi-k2", "<|tool_call_begin|>functions.read:0<|tool_call_argument_begin|>{}", "<|tool_call_end|> is missing"),
    ("gpt-oss", "<|channel|>commentary to=functions.read <|constrain|>json", "ends in <|message|>"),
    ("gpt-oss", '<|channel|>commentary to=functions.read<|message|>{"path": ', "ends too early"),
    ("gpt-oss", "<|channel|>commentary to=browser.open<|message|>{}", "to=functions.NAME, found to=browser.open"),
    ("gpt-oss", "<|channel|>secret<|message|>x", "found 'secret'"),
    ("gpt-oss", "<|channel|>analysis<|message|>hm<|end|>", "ended in the analysis channel"),
    ("json", '{"name": "read", "arguments": {"path": "a.py"', "malformed"),
    ("json", '```json\n{"name": "read", "arguments": [1]}\n```', "are a JSON object"),
]


@pytest.mark.parametrize(("family", "text", "problem"), MALFORMED, ids=range(len(MALFORMED)))
def test_a_malformed_call_is_no_call_and_says_what_was_wrong(family, text, problem):
    reply = read(family, text)
    assert reply.calls == ()
    assert reply.call is None
    assert re.search(problem.replace("|>", r"\|>").replace("<|", r"<\|"), reply.problem)


def test_the_position_of_a_json_error_is_counted_from_the_start_of_the_json():
    reply = read("hermes", 'Hello. <tool_call>\n{"name": read}\n</tool_call>')
    assert reply.problem == "the JSON is malformed: Expecting value at character 9, found 'read}\\n</tool_call>'"
    assert reply.text == "Hello."


def test_reading_goes_on_behind_a_malformed_call():
    reply = read(
        "hermes",
        '<tool_call>{"name"</tool_call> then <tool_call>{"name": "read", "arguments": {"path": "a.py"}}</tool_call>',
    )
    assert reply.calls == (READ,)
    assert reply.problem.startswith("the JSON is malformed")
    assert reply.call is None
    assert reply.text == "then"


def test_line_breaks_inside_a_json_string_are_taken_as_they_stand():
    reply = read("hermes", '<tool_call>{"name": "write", "arguments": {"content": "one\ntwo\t"}}</tool_call>')
    assert reply.call == ToolCall("write", {"content": "one\ntwo\t"})


@pytest.mark.parametrize("family", ["json", "llama-3"])
@pytest.mark.parametrize(
    "text",
    [
        '{"name": "my-package", "version": "1.0.0"}',
        '{"answer": [1, 2]}',
        "{ is a brace",
        '{"name": "x", "arguments',
        'Write {"name": "read", "arguments": {}} to call it.',
        '{"calls": [\n{"name": "read", "arguments": {}}\n]}',
    ],
)
def test_json_that_is_no_call_is_an_answer(family, text):
    reply = read(family, text)
    assert (reply.text, reply.calls, reply.problem) == (text, (), None)


def test_xml_values_stay_strings_and_lose_one_line_break_at_each_end():
    text = (
        "<tool_call>\n<function=edit>\n<parameter=start>\n3\n</parameter>\n<parameter=all>true</parameter>\n"
        '<parameter=content>\n\n{"a": "</parameter>"}\n\n</parameter>\n</function>\n</tool_call>'
    )
    assert dict(read("qwen3-coder", text).call.arguments) == {
        "start": "3",
        "all": "true",
        "content": '\n{"a": "</parameter>"}\n',
    }


def test_xml_values_that_are_not_strings_are_written_as_json():
    call = ToolCall("edit", {"start": 3, "all": True, "lines": ["ä"], "none": None})
    written = FAMILIES["qwen3-coder"].format.write(Message("assistant", "", calls=(call,)), thinking=False)
    assert dict(read("qwen3-coder", written).call.arguments) == {
        "start": "3",
        "all": "true",
        "lines": '["ä"]',
        "none": "null",
    }


def test_gpt_oss_channels_are_told_apart():
    reply = read(
        "gpt-oss",
        "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant<|channel|>commentary<|message|>I look."
        '<|end|><|start|>assistant<|channel|>commentary to=functions.read <|constrain|>json<|message|>{"path": "a.py"}',
    )
    assert (reply.thinking, reply.text, reply.call) == ("Let me see.", "I look.", READ)
    reply = read("gpt-oss", "<|channel|>final<|message|>Done.")
    assert (reply.thinking, reply.text, reply.problem) == ("", "Done.", None)


def test_gpt_oss_text_of_a_call_inside_the_analysis_is_thinking():
    reply = read("gpt-oss", '<|channel|>analysis<|message|>{"name": "read", "arguments": {}} to=functions.read<|end|>')
    assert reply.calls == ()
    assert reply.thinking.endswith("to=functions.read")

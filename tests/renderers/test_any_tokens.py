"""Reading never raises, whatever was sampled, and what it returns holds together."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from continualcode.renderers import FAMILIES
from continualcode.types import Message, ToolCall

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAMES = tuple(FAMILIES)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
names = st.text("abcdefgh_", min_size=1, max_size=8)
calls = st.builds(ToolCall, names, st.dictionaries(st.text("abc_", min_size=1, max_size=4), json_values, max_size=3))


def holds_together(reply, text):
    assert reply.raw == text
    assert all(call.name for call in reply.calls)
    assert reply.problem is None or reply.call is None
    assert reply.problem is not None or reply.text or len(reply.calls) == 1


def cut_and_stitched(text, draw):
    """`text` with a piece left out, doubled or replaced."""
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 12)))
    return (
        text[:start]
        + draw(st.sampled_from(["", text[start:end] * 2, "{", "<think>", "</think>", '"', "x"]))
        + text[end:]
    )


@pytest.mark.parametrize("family", NAMES)
@given(text=st.text(max_size=60), opened=st.booleans())
@EXAMPLES
def test_any_text_is_read(family, text, opened):
    holds_together(FAMILIES[family].format.read(text, thinking=opened), text)


@pytest.mark.parametrize("family", NAMES)
@given(data=st.data(), opened=st.booleans())
@EXAMPLES
def test_any_mutated_call_is_read(family, data, opened):
    message = Message("assistant", data.draw(st.text(max_size=6)), calls=(data.draw(calls),))
    text = FAMILIES[family].format.write(message, thinking=opened)
    for _ in range(data.draw(st.integers(1, 3))):
        text = cut_and_stitched(text, data.draw)
    holds_together(FAMILIES[family].format.read(text, thinking=opened), text)


@pytest.mark.parametrize("family", NAMES)
@given(pieces=st.lists(st.integers(0, 10**9), max_size=12))
@EXAMPLES
def test_any_run_of_a_familys_own_tags_is_read(family, pieces):
    format = FAMILIES[family].format
    written = format.write(Message("assistant", "", "hm", (ToolCall("read", {"path": "a"}),)), thinking=False)
    tags = [
        *_tags(written),
        "{",
        "}",
        '{"name": "a", "arguments": {}}',
        '{"name": "a", "parameters": {"b": ',
        "```",
        "\n",
    ]
    text = "".join(tags[piece % len(tags)] for piece in pieces)
    for opened in (True, False):
        holds_together(format.read(text, thinking=opened), text)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "json"])
@given(tokens=st.lists(st.integers(0, 2**31), max_size=30) | st.lists(st.integers(0, 430), max_size=60))
@EXAMPLES
def test_any_tokens_are_read(renderer_of, name, tokens):
    reply = renderer_of(name).parse(tuple(tokens))
    holds_together(reply, reply.raw)


@pytest.mark.parametrize("family", sorted(set(NAMES) - {"qwen3-coder"}))
@given(call=calls)
@EXAMPLES
def test_every_call_reads_back_exactly(family, call):
    format = FAMILIES[family].format
    reply = format.read(format.write(Message("assistant", "", calls=(call,)), thinking=False), thinking=False)
    assert reply.problem is None
    assert reply.call == call


@given(
    arguments=st.dictionaries(
        st.text("abc_", min_size=1, max_size=4), st.text(max_size=20) | st.text("</parm>\n", max_size=20), max_size=3
    )
)
@EXAMPLES
def test_every_xml_call_of_strings_reads_back_exactly(arguments):
    format, call = FAMILIES["qwen3-coder"].format, ToolCall("write", arguments)
    reply = format.read(format.write(Message("assistant", "", calls=(call,)), thinking=False), thinking=False)
    assert (reply.call, reply.problem) == (call, None)


def _tags(text):
    import re

    return re.findall(r"<[^<>]*>", text)

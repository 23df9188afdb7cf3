"""Our reader of gpt-oss's replies against the openai-harmony library, where its vocabulary is on the disk.

TIKTOKEN_ENCODINGS_BASE names the folder with o200k_base.tiktoken; the library would fetch it from the network.
"""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from continualcode.renderers import FAMILIES

VOCABULARY = Path(os.environ.get("TIKTOKEN_ENCODINGS_BASE", ""), "o200k_base.tiktoken")
pytestmark = pytest.mark.skipif(not VOCABULARY.is_file(), reason="no o200k_base.tiktoken in TIKTOKEN_ENCODINGS_BASE")

bodies = st.text(max_size=20).filter(lambda text: text.strip() and "<|" not in text)
calls = st.tuples(
    st.sampled_from(
        [
            "<|channel|>commentary to=functions.read <|constrain|>json",
            " to=functions.read<|channel|>commentary json",
            "<|channel|>analysis to=functions.read code",
        ]
    ),
    st.sampled_from(['{"path": "a.py"}', '{"path": "<|start|>assistant<|channel|>", "n": [1, null]}', "{}"]),
)
words = st.tuples(st.sampled_from(["<|channel|>analysis", "<|channel|>commentary"]), bodies)
ends = st.tuples(st.just("<|channel|>final"), bodies) | calls


@pytest.fixture(scope="module")
def read():
    """(channel, recipient, text) of every message, by the library."""
    harmony = pytest.importorskip("openai_harmony")
    encoding = harmony.load_harmony_encoding(harmony.HarmonyEncodingName.HARMONY_GPT_OSS)

    def messages(text):
        parser = harmony.StreamableParser(encoding, harmony.Role.ASSISTANT)
        for token in encoding.encode(text, allowed_special="all"):
            parser.process(token)
        parser.process_eos()
        return [(each.channel, each.recipient, each.content[0].text) for each in parser.messages]

    return messages


@given(said=st.lists(words, max_size=3), end=ends, closed=st.booleans())
@settings(deadline=None)
def test_well_formed_replies_are_read_as_the_library_reads_them(read, said, end, closed):
    stop = "<|return|>" if "final" in end[0] else "<|call|>"
    text = "<|end|><|start|>assistant".join(f"{header}<|message|>{body}" for header, body in [*said, end])
    text += stop if closed else ""
    ours, theirs = FAMILIES["gpt-oss"].format.read(text, thinking=False), read(text)
    assert ours.problem is None
    thoughts = [body.strip() for channel, to, body in theirs if channel == "analysis" and to is None]
    shown = [body.strip() for channel, to, body in theirs if channel != "analysis" and to is None]
    assert ours.thinking == "\n\n".join(thoughts)
    assert ours.text.split() == " ".join(shown).split()
    assert [f"functions.{call.name}" for call in ours.calls] == [to for _, to, _ in theirs if to is not None]

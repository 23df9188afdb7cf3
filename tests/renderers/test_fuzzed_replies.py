"""What no model should say, through every family's renderer, the registry and gates that do as they like."""

import importlib
import sys
from pathlib import Path

import pytest

from continualcode.renderers import FAMILIES


@pytest.fixture
def replies():
    """The module of benchmarks/safety.py that makes them."""
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    try:
        yield importlib.import_module("safety_replies")
    finally:
        sys.path.remove(folder)


@pytest.fixture
def parse_of(renderer_of):
    def make(family):
        renderer = renderer_of(family)

        def parse(text):
            tokens = renderer._tokenizer.encode(text.encode(errors="replace").decode(), add_special_tokens=False)
            return renderer.parse((*tokens, renderer.stop[0]))

        return parse

    return make


async def test_no_reply_raises_and_no_unvalidated_argument_reaches_a_tool(replies, parse_of):
    rendered = {name: [*reads, parse_of(name)] for name, reads in replies.readers().items() if name != "json"}
    found = await replies.fuzz(1000, seed=1, reads={**rendered, "json": [replies.of_bytes]})
    assert found.faults == []
    assert found.reached > 50
    assert found.kinds["refused before any gate"] > 100
    assert found.kinds["denied"] > 20


async def test_what_reaches_a_tool_unvalidated_would_be_seen(replies, monkeypatch):
    monkeypatch.setattr("continualcode.tools.registry.FunctionTool.check", lambda tool, call: None)
    monkeypatch.setattr("continualcode.tools.registry.FunctionTool.arguments", lambda tool, given: dict(given))
    assert any(" was given " in fault for fault in (await replies.fuzz(1000, seed=1)).faults)


def test_every_family_is_read(replies):
    assert replies.readers().keys() == FAMILIES.keys()

"""The example of the trainer alone, on fewer questions than a person would give it."""

import importlib.util
import re
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "trainer_alone.py"

pytestmark = pytest.mark.model


async def test_feedback_in_words_alone_makes_other_answers_brief(monkeypatch, capsys):
    spec = importlib.util.spec_from_file_location("trainer_alone", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.setattr(example, "TRAINING", example.TRAINING[:4])
    monkeypatch.setattr(example, "HELD_OUT", example.HELD_OUT[:4])
    monkeypatch.setattr(example, "ROUNDS", 4)
    await example.main()
    printed = capsys.readouterr().out
    before, after = (int(mean) for mean in re.findall(r"are brief, (\d+) words in the mean", printed))
    assert after < 0.8 * before
    assert re.findall(r"^step (\d)", printed, re.MULTILINE)[:1] == ["1"]

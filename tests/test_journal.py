import json
import logging
import stat
from dataclasses import replace

import numpy as np
import pytest

from continualcode import Conversation, Deny, Lesson, Message, ToolCall, ToolSpec, TrainReport
from continualcode.events import Asked, Learned, Learning, Proposed, Reviewed, Stopped
from continualcode.journal import Journal, session_path, to_json
from continualcode.types import Completion, Reply, TokenView, Turn


@pytest.fixture
def turn():
    context = Conversation((Message("user", "fix it"),), (ToolSpec("bash", "Run.", {"type": "object"}),))
    reply = Reply("", calls=(ToolCall("bash", {"cmd": "rm é"}),), raw="raw")
    completion = Completion(
        (1, 2), (3, 4), np.array([-0.5, -1.25]), candidates=(np.ones((2, 1), int), np.zeros((2, 1))), origin=object()
    )
    return Turn(context, reply, completion)


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_event_is_a_line_in_order(tmp_path, turn):
    journal = Journal(tmp_path / "deep" / "s.jsonl")
    report = TrainReport(1, 1, 2, 0.5, 0.1, (TokenView((3,), np.array([-1.0]), np.array([-2.0]), np.array([-3.0])),))
    events = [
        Asked("fix it"),
        Proposed(turn),
        Reviewed(turn, turn.reply.calls[0], Deny("no")),
        Learned(report),
        Stopped("answered"),
    ]
    for event in events:
        journal.observe(event)
    lines = lines_of(journal.path)
    assert [line["event"] for line in lines] == [type(event).__name__ for event in events]
    assert lines[2]["verdict"] == {"type": "Deny", "reason": "no", "teach": True}
    assert lines[2]["call"]["arguments"] == {"cmd": "rm é"}
    assert lines[3]["report"]["views"][0]["teacher_T"] == [-2.0]


def test_a_lesson_can_be_learned_again_from_its_line(tmp_path, turn):
    journal = Journal(tmp_path / "s.jsonl")
    journal.observe(Learning((Lesson(turn, "use trash", ToolCall("bash", {"cmd": "trash"})),)))
    (lesson,) = lines_of(journal.path)[0]["lessons"]
    assert lesson["reason"] == "use trash"
    assert lesson["demonstration"]["arguments"] == {"cmd": "trash"}
    assert lesson["context"]["messages"][0]["content"] == "fix it"
    assert lesson["context"]["tools"][0]["name"] == "bash"
    completion = lesson["turn"]["completion"]
    assert (completion["prompt"], completion["tokens"], completion["logprobs_T"]) == ([1, 2], [3, 4], [-0.5, -1.25])


def test_a_proposal_is_written_without_what_the_lines_before_it_hold(tmp_path, turn):
    journal = Journal(tmp_path / "s.jsonl")
    journal.observe(Proposed(turn))
    journal.observe(Reviewed(turn, turn.reply.calls[0], Deny("no")))
    proposed, reviewed = lines_of(journal.path)
    assert "context" not in proposed["turn"]
    assert proposed["turn"]["completion"].keys() == {"type", "tokens", "logprobs_T", "stop_reason", "temperature"}
    assert "turn" not in reviewed


def test_a_proposal_takes_no_more_room_late_in_a_session_than_early(tmp_path, turn):
    early, late = Journal(tmp_path / "early.jsonl"), Journal(tmp_path / "late.jsonl")
    early.observe(Proposed(turn))
    said = turn.context.add(*[Message("user", "and so on")] * 1000)
    late.observe(Proposed(replace(turn, context=said, completion=replace(turn.completion, prompt=(1,) * 10_000))))
    assert late.path.stat().st_size == pytest.approx(early.path.stat().st_size, abs=2)


def test_what_has_no_json_form_is_refused_and_not_written_as_its_name():
    with pytest.raises(TypeError, match="not JSON: object"):
        to_json(object())


def test_only_its_owner_can_read_it(tmp_path):
    journal = Journal(tmp_path / "s.jsonl")
    journal.observe(Asked("secret"))
    assert stat.S_IMODE(journal.path.stat().st_mode) == 0o600


def test_a_session_without_events_leaves_no_file(tmp_path):
    Journal(session_path(tmp_path))
    assert list(tmp_path.rglob("*.jsonl")) == []
    assert session_path(tmp_path).parent == tmp_path / "sessions"


def test_what_cannot_be_written_is_said_once_and_the_agent_goes_on(tmp_path, caplog):
    (tmp_path / "taken").write_text("a file where a folder should be")
    journal = Journal(tmp_path / "taken" / "s.jsonl")
    with caplog.at_level(logging.WARNING):
        journal.observe(Asked("one"))
        journal.observe(Asked("two"))
    (record,) = caplog.records
    assert "no longer recorded" in record.getMessage()
    assert journal.broken


def test_text_that_is_no_unicode_is_still_written(tmp_path):
    journal = Journal(tmp_path / "s.jsonl")
    journal.observe(Asked("bad \udcff end"))
    assert b'"text": "bad \xed\xb3\xbf end"' in journal.path.read_bytes()

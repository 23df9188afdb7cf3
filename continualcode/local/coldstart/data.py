"""The cold-start examples: short sessions in the program's own conversation form, made from templates with a seed.

Knows nothing of tokens. About a third of the tasks hold a correction, half of them as the denial the agent keeps
in the conversation and half in the form in which the teacher is asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import numpy as np

from continualcode.local.coldstart.corrections import Correction, draw_correction
from continualcode.local.coldstart.requests import calling, draw_request
from continualcode.local.coldstart.results import carry_on, changed, numbered
from continualcode.local.coldstart.words import Words
from continualcode.sdpo.reprompt import teacher_context
from continualcode.types import Completion, Conversation, Lesson, Message, Reply, Turn

CORRECTED = 0.3
"""Share of the tasks that hold a correction."""
READ_AND_CHANGED = 0.12
"""Share of the others that go from the request through reading to the change."""


@dataclass(frozen=True, slots=True)
class Session:
    """Messages after the system prompt. `learned`: positions of the assistant's messages to be learned."""

    messages: tuple[Message, ...]
    learned: frozenset[int]

    def then(self, other: Session) -> Session:
        moved = {len(self.messages) + position for position in other.learned}
        return Session(self.messages + other.messages, self.learned | moved)


def make_sessions(count: int, seed: int = 0) -> list[Session]:
    """The same `count` sessions of one to three tasks for the same seed, on every machine."""
    words = Words(Random(seed))
    return [_session(words) for _ in range(count)]


def _session(words: Words) -> Session:
    session = Session((), frozenset())
    for remaining in reversed(range(words.pick((1, 1, 2, 2, 3)))):
        session = session.then(_task(words, finished=remaining > 0))
    return session


def _task(words: Words, *, finished: bool) -> Session:
    """One request and the calls after it; `finished`: to the answer, else it may break off after a call."""
    if words.chance(CORRECTED):
        correction = draw_correction(words)
        messages, first = (_denied if words.chance(0.5) else _asked_again)(words, correction)
    elif words.chance(READ_AND_CHANGED):
        messages, first = _read_and_changed(words), 1
    else:
        request = draw_request(words)
        messages, first = [Message("user", request.text), request.step], 1
    while messages[-1].calls and (finished or words.chance(0.35)):
        result, following = carry_on(words, messages[-1])
        messages += [Message("tool", result, tool=messages[-1].calls[0].name), following]
    learned = (i for i in range(first, len(messages)) if messages[i].role == "assistant")
    return Session(tuple(messages), frozenset(learned))


def _read_and_changed(words: Words) -> list[Message]:
    """The file is asked for, read and changed."""
    change, path = words.change(), words.path("py")
    wish = words.pick(("{wish} in {path}", "in {path}, {wish}", "{wish}, see {path}", "{path}: {wish}"))
    return [
        Message("user", wish.format(wish=change.request, path=path)),
        calling("read", path=path),
        Message("tool", numbered(change.lines), tool="read"),
        changed(words, path, change),
    ]


def _denied(words: Words, correction: Correction) -> tuple[list[Message], int]:
    """As the agent goes on after a denial: the refused call, the reason as its result, then the call that obeys."""
    wrong = Message("assistant", "", calls=(correction.wrong,))
    denial = Message("tool", f"denied: {correction.reason}", tool=correction.wrong.name)
    return [Message("user", correction.request), wrong, denial, correction.right], 3


def _asked_again(words: Words, correction: Correction) -> tuple[list[Message], int]:
    """As the teacher is asked: the request and the reason in one user message."""
    context = Conversation((Message("user", correction.request),))
    demonstration = correction.right.calls[0] if correction.right.calls and words.chance(0.1) else None
    asked = teacher_context(Lesson(_unsampled(context), correction.reason, demonstration))
    assert asked is not None
    return [*asked.messages, correction.right], len(asked.messages)


def _unsampled(context: Conversation) -> Turn:
    return Turn(context, Reply(""), Completion((), (), np.zeros(0)))

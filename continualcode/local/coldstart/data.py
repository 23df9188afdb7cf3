"""The cold-start examples: short sessions in the program's own conversation form, made from templates with a seed.

Knows nothing of tokens. About a third of the tasks hold a correction, half of them as the denial the agent keeps
in the conversation and half in the form in which the teacher is asked again.
"""

# ruff: noqa: SIM905

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import numpy as np

from continualcode.local.coldstart.changes import (
    change_a_shown_file,
    create_a_file,
    replace_known_text,
    replace_numbered_lines,
)
from continualcode.local.coldstart.corrections import Correction, draw_correction
from continualcode.local.coldstart.requests import (
    Request,
    calling,
    chat,
    find_files,
    look_at_a_file,
    look_at_some_lines,
    run_a_command,
    search_code,
    search_words,
    work_on_a_file,
)
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
    """The same `count` sessions for the same seed, on every machine.

    Two in five are one task; the others are several in one conversation, which costs less to train on.
    """
    words = Words(Random(seed))
    return [_session(words) for _ in range(count)]


def _session(words: Words) -> Session:
    session = Session((), frozenset())
    for remaining in reversed(range(words.pick((1, 1, 3, 5, 7)))):
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


REQUESTS: dict[Callable[[Words], Request], float] = {
    work_on_a_file: 18,
    look_at_a_file: 10,
    look_at_some_lines: 6,
    search_words: 9,
    search_code: 13,
    find_files: 12,
    run_a_command: 22,
    create_a_file: 9,
    replace_known_text: 8,
    replace_numbered_lines: 7,
    change_a_shown_file: 12,
    chat: 5,
}


def draw_request(words: Words) -> Request:
    maker = words.random.choices(list(REQUESTS), list(REQUESTS.values()))[0]
    request = maker(words)
    return Request(_voiced(words, request.text, plain=maker is chat), request.step)


def _voiced(words: Words, text: str, *, plain: bool) -> str:
    """The same words as different people write them."""
    first, *_ = text.split(maxsplit=1)
    if not plain and first in _IMPERATIVES and words.chance(0.4):
        text = words.pick(("please ", "can you ", "could you ", "now ", "I need you to ", "next, ")) + text
    head, line, rest = text.partition("\n")
    if words.chance(0.4) and first.isalpha():
        head = head[0].upper() + head[1:]
    if not line and head[-1].isalnum() and words.chance(0.15):
        head += "."
    return head + line + rest


_IMPERATIVES = frozenset(
    "fix get debug make refactor add write document simplify give handle clean remove sort improve open explain print read look "
    "display review summarize tell view check go describe search grep find list show execute run start commit install delete "
    "move rename lint format build push undo pull create put change swap substitute correct replace drop take update set".split()
)

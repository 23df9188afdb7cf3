"""Replies that no model should give, through reading, checking, gates and tools."""

from __future__ import annotations

import json
import random
import string
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from continualcode.agent import Agent, Limits
from continualcode.events import Malformed, Proposed, Reviewed, Stopped, ToolReturned
from continualcode.renderers import FAMILIES
from continualcode.testing import BytesRenderer
from continualcode.tools import FunctionTool, ToolRegistry, tool
from continualcode.types import (
    Approve,
    Completion,
    Conversation,
    Deny,
    Edit,
    Json,
    Message,
    Reply,
    ToolCall,
    Turn,
    Verdict,
)

Read = Callable[[str], Reply]
NAMES: tuple[str, ...] = (
    "note",
    "count",
    "nested",
    "Note",
    "note ",
    "",
    "bash",
    "notes",
    "__class__",
    "\u202enote",
    "note\0",
    "x" * 300,
)
SOUND: tuple[tuple[str, dict[str, Json]], ...] = (
    ("note", {"text": "a"}),
    ("count", {"times": 3, "sure": True}),
    ("nested", {"tree": {"a": [1, 2]}, "words": ["a", "b"]}),
)
PIECES: tuple[str, ...] = (
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    "\\u0000",
    "\\ud800",
    "\0",
    "\ud800",
    "NaN",
    "1e999",
    "null",
    "<tool_call>",
    "</tool_call>",
)
PIECES += (
    "<think>",
    "</think>",
    "<function=note>",
    "<parameter=text>",
    "```json",
    "<\uff5ctool\u2581calls\u2581begin\uff5c>",
)
PIECES += (
    "<|channel|>commentary to=functions.note<|message|>",
    "<|call|>",
    "<|tool_call_begin|>functions.note:0",
    "\n\n",
    "\ufeff",
)


@dataclass(slots=True)
class Found:
    """What came of the replies; `faults` should be empty."""

    replies: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    reached: int = 0
    """Calls that reached a tool."""
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in self.kinds.most_common())
        lines = [
            f"{self.replies:,} fuzzed replies: {kinds}; {self.reached:,} calls reached a tool; {len(self.faults)} faults"
        ]
        return "\n".join([*lines, *(f"         {fault}" for fault in self.faults[:20])])


def readers() -> dict[str, list[Read]]:
    """How the replies of every family of models are read."""
    return {
        name: [partial(family.format.read, thinking=opened) for opened in (False, False, True)]
        for name, family in FAMILIES.items()
    }


def of_bytes(text: str) -> Reply:
    """The doubles' renderer, which reads tokens."""
    return BytesRenderer().parse(tuple(text.encode("utf-8", "surrogatepass")))


async def fuzz(count: int, seed: int, reads: Mapping[str, Sequence[Read]] | None = None) -> Found:
    """Puts so many replies through an agent each, read as the family does that wrote them, or as another.

    They depend on `seed` alone. `reads` are readers by family, of any part of the families.
    """
    choose, found = random.Random(seed), Found()
    reads = reads or {**readers(), "json": [of_bytes]}
    registry = ToolRegistry(_tools(found))
    for _ in range(count):
        family = choose.choice(list(reads))
        text = reply_text(choose, family if choose.random() < 0.9 else "hermes")
        found.replies += 1
        try:
            await _through(choose.choice(reads[family])(text), registry, choose, found)
        except Exception as error:  # whatever it is, a person would have seen it
            found.faults.append(f"{type(error).__name__}: {error} on {text[:100]!r}")
    return found


def reply_text(choose: random.Random, family: str) -> str:
    """A call as the family writes it, sound or not, with pieces lost, doubled and put in; or anything."""
    if choose.random() < 0.1:
        return "".join(choose.choice((*PIECES, *string.printable)) for _ in range(choose.randrange(40)))
    calls = tuple(_call(choose) for _ in range(choose.choice((1, 1, 1, 1, 1, 2, 0))))
    message = Message("assistant", choose.choice(("", "", "I will.")), choose.choice(("", "hm")), calls)
    text = FAMILIES[family].format.write(message, thinking=False)
    for _ in range(choose.choice((0, 0, 0, 1, 2, 5))):
        start = choose.randrange(len(text) + 1)
        end = min(len(text), start + choose.randrange(12))
        text = text[:start] + choose.choice(("", text[start:end] * 2, choose.choice(PIECES))) + text[end:]
    return text


def _call(choose: random.Random) -> ToolCall:
    if choose.random() < 0.6:
        return ToolCall(*choose.choice(SOUND))
    return ToolCall(_name(choose), _arguments(choose))


def _name(choose: random.Random) -> str:
    return choose.choice(NAMES[:3]) if choose.random() < 0.7 else choose.choice(NAMES)


def _arguments(choose: random.Random) -> dict[str, Json]:
    arguments: dict[str, Json] = dict(choose.choice(SOUND)[1])
    for _ in range(choose.choice((0, 0, 1, 2))):
        key = choose.choice((*arguments, "text", "times", "sure", "tree", "words", "self", "", "\ud800", "kwargs"))
        arguments[key] = _value(choose, 3)
    return arguments


def _value(choose: random.Random, depth: int) -> Json:
    plain: list[Json] = [None, True, 0, -1, 10**30, 1.5, "", "x", "3", "true", "\0", "\ud800", "a" * 3000, "[1]", "{}"]
    if depth == 0 or choose.random() < 0.7:
        return choose.choice(plain)
    inner = [_value(choose, depth - 1) for _ in range(choose.randrange(3))]
    return inner if choose.random() < 0.5 else {str(index): item for index, item in enumerate(inner)}


def _tools(found: Found) -> list[FunctionTool]:
    """Tools that look at what reaches them with eyes of their own."""

    def is_sound(name: str, sound: bool, *values: object) -> str:
        found.reached += 1
        if not sound:
            found.faults.append(f"{name} was given {values!r}")
        return json.dumps(str(values))

    @tool
    def note(text: str) -> str:
        """Take a note."""
        return is_sound("note", type(text) is str, text)

    @tool
    def count(times: int, sure: bool = False) -> str:
        """Count."""
        return is_sound("count", type(times) is int and type(sure) is bool, times, sure)

    @tool
    def nested(tree: dict[str, list[int]], words: list[str]) -> str:
        """Nest."""
        lists = [item for key, item in tree.items() if type(key) is str]
        numbers = [number for item in lists for number in item]
        sound = len(lists) == len(tree) and all(type(item) is list for item in lists)
        sound = sound and all(type(number) is int for number in numbers) and all(type(word) is str for word in words)
        return is_sound("nested", sound, tree, words)

    return [note, count, nested]


class AnyGate:
    """Gives any verdict, edits to anything, or fails."""

    def __init__(self, choose: random.Random) -> None:
        self.choose = choose

    async def review(self, turn: Turn, call: ToolCall) -> Verdict | None:
        match self.choose.randrange(6):
            case 0:
                return Deny("no", teach=self.choose.random() < 0.5)
            case 1:
                return Edit(_arguments(self.choose), "better so", self.choose.choice((None, _name(self.choose))))
            case 2:
                return None
            case 3:
                raise RuntimeError(self.choose.choice(PIECES))
        return Approve()


class OneReply:
    def __init__(self, reply: Reply) -> None:
        self.replies = [reply, Reply("done")]

    async def propose(self, conversation: Conversation) -> Turn:
        return Turn(conversation, self.replies.pop(0), Completion((), (), np.zeros(0)))


async def _through(reply: Reply, registry: ToolRegistry, choose: random.Random, found: Found) -> None:
    agent = Agent(OneReply(reply), registry, [AnyGate(choose), AnyGate(choose)], limits=Limits(turns=2))
    async for event in agent.run("go on"):
        match event:
            case Malformed():
                found.kinds["refused before any gate"] += 1
            case Proposed(turn) if turn.reply is reply:
                found.kinds["put to the gates" if turn.reply.calls else "answers"] += 1
            case Reviewed(verdict=Deny()):
                found.kinds["denied"] += 1
            case ToolReturned():
                found.kinds["run"] += 1
            case Stopped("turn_limit"):
                found.faults.append("no end")

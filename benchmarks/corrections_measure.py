"""What a model proposes and how surely, before and after a correction: greedy calls, exact choices, drift.

Knows nothing of training. Greedy proposals are exact and cheap: a draft is checked by one scoring, and decoding goes
on from where the model departs from it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from corrections_habits import Ask, Beginning, Habit

from continualcode.protocols import Renderer, Sampler
from continualcode.sdpo import distill_candidates
from continualcode.types import Conversation, Floats, Ints, Message, Reply, Sampling, Tokens, ToolCall

MAX_TOKENS = 110
CANDIDATES = 100
"""Drift is measured over the first model's so many most likely tokens and one bucket for the rest."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one model and one habit, means over the requests."""

    probability: float
    """of the complying choice, the tokens up to where the choice falls being given."""
    against: float
    """the same, out of complying and usual choices only."""
    greedy: float
    """share of held-out requests whose greedy call complies."""
    kept: float | None = None
    """share of unrelated requests answered with the same tool and main argument as before."""
    drift: float | None = None
    """KL(first model || this one) in nats per token of the first model's answers to the unrelated requests."""
    calls: tuple[str, ...] = ()
    """the greedy replies to the held-out requests."""
    changed: tuple[str, ...] = ()
    """unrelated requests answered otherwise than before, each with the reply."""


@dataclass(frozen=True, slots=True, eq=False)
class Behaviour:
    """What the first model answers to one unrelated request, and how surely."""

    text: str
    tokens: Tokens
    reply: Reply
    ids_TK: Ints
    logprobs_TK: Floats
    main: str
    """The main argument, quoted; of an answer nothing."""
    decided: int
    """So many tokens say tool and main argument, all but the closing quote; or of an answer that it is one."""


class Examiner:
    """Asks one renderer's models. `opening` is what a session begins with."""

    def __init__(self, renderer: Renderer, opening: Conversation) -> None:
        self.renderer, self.opening = renderer, opening
        self._known: dict[tuple[str, str], Tokens] = {}

    def prompt(self, text: str, opening: Conversation | None = None) -> Tokens:
        return self.renderer.prompt((opening or self.opening).add(Message("user", text)))

    async def greedy(self, sampler: Sampler, prompt: Tokens, draft: Tokens = (), needed: int = 0) -> Tokens:
        """The greedy completion, as far as its first stop token; where it departs from the draft before `needed` tokens,
        as far as there."""
        tokens: Tokens = ()
        if draft:
            best, agreed = await self._checked(sampler, prompt, draft)
            tokens = best[: agreed + 1]
            if tokens[-1] in self.renderer.stop or agreed < needed:
                return tokens
        left = Sampling(max_tokens=max(1, MAX_TOKENS - len(tokens)), temperature=0.0, stop=self.renderer.stop)
        (rest,) = await sampler.sample(prompt + tokens, left)
        return tokens + rest.tokens

    async def _checked(self, sampler: Sampler, prompt: Tokens, draft: Tokens) -> tuple[Tokens, int]:
        """The most likely token at each position of the draft, and how many of the draft's are those."""
        ids_T1, _ = await sampler.top_logprobs(prompt, draft, 1)
        best = tuple(int(token) for token in ids_T1[:, 0])
        return best, next((t for t, (a, b) in enumerate(zip(best, draft, strict=True)) if a != b), len(draft))

    async def proposal(self, sampler: Sampler, prompt: Tokens, habit: Habit, ask: Ask) -> Reply:
        """The greedy reply to a held-out request; cut off where its beginning shows that it does not comply."""
        needed = max(len(self._begun(beginning)) for beginning in ask.complying) if habit.by_beginning else 0
        return self.renderer.parse(await self.greedy(sampler, prompt, self.written(ask.right), needed))

    async def choice(self, sampler: Sampler, prompt: Tokens, ask: Ask) -> tuple[float, float]:
        """Probability of the complying and of the usual beginnings, given the tokens up to the choice."""
        given = self._begun(Beginning(ask.right, ask.choice))

        async def mass(beginnings: Sequence[Beginning]) -> float:
            ends = {self._begun(beginning) for beginning in beginnings}
            assert all(end[: len(given)] == given for end in ends), ask
            scored = [await sampler.logprobs(prompt + given, end[len(given) :]) for end in ends]
            return float(sum(np.exp(logprobs_T.sum()) for logprobs_T in scored))

        return await mass(ask.complying), await mass(ask.violating)

    async def behaviour(self, sampler: Sampler, text: str) -> Behaviour:
        prompt = self.prompt(text)
        tokens = await self.greedy(sampler, prompt)
        ids_TK, logprobs_TK = await sampler.top_logprobs(prompt, tokens, CANDIDATES)
        reply = self.renderer.parse(tokens)
        if reply.call is None:
            return Behaviour(text, tokens, reply, ids_TK, logprobs_TK, "", 1)
        main = json.dumps(str(next(iter(reply.call.arguments.values()), "")), ensure_ascii=False)
        return Behaviour(text, tokens, reply, ids_TK, logprobs_TK, main, self._length(tokens, main[:-1]))

    async def compared(
        self, sampler: Sampler, before: Behaviour, opening: Conversation | None = None
    ) -> tuple[float, str | None]:
        """Summed drift in nats over the earlier answer's tokens, and how tool or main argument change if they do.

        The greedy reply now has the same tool and main argument if its tokens are the same that far: told without decoding.
        """
        prompt = self.prompt(before.text, opening)
        now_TK = await sampler.candidate_logprobs(prompt, before.tokens, before.ids_TK)
        drift = float(distill_candidates(now_TK, before.logprobs_TK, alpha=0.0).divergence_T.sum())
        head = before.tokens[: before.decided + 1]
        if (now_TK[: len(head), 0] > np.log(0.5)).all():  # the first candidate was greedy before
            return drift, None
        best, agreed = await self._checked(sampler, prompt, head)
        now = self._text(best[: agreed + 1])
        return drift, None if agreed >= before.decided and before.main in now else now

    def written(self, call: ToolCall) -> Tokens:
        return self.renderer.completion(Message("assistant", "", calls=(call,)))

    def _begun(self, beginning: Beginning) -> Tokens:
        """The fewest tokens of the call that hold the beginning."""
        key = beginning.call.to_json(), beginning.upto
        if key not in self._known:
            self._known[key] = self._cut(beginning)
        return self._known[key]

    def _cut(self, beginning: Beginning) -> Tokens:
        tokens = self.written(beginning.call)
        return tokens[: self._length(tokens, beginning.upto)]

    def _length(self, tokens: Tokens, upto: str) -> int:
        """The fewest tokens whose text holds `upto`, all of them when none do."""
        return next((end for end in range(1, len(tokens)) if upto in self._text(tokens[:end])), len(tokens))

    def _text(self, tokens: Tokens) -> str:
        return "".join(map(self.renderer.decode, tokens))


async def measure(
    examiner: Examiner,
    sampler: Sampler,
    habit: Habit,
    unrelated: Sequence[Behaviour],
    opening: Conversation | None = None,
) -> Measured:
    """The held-out requests of a habit and the unrelated ones, asked of this sampler."""
    choices, replies = [], []
    for ask in habit.held_out:
        prompt = examiner.prompt(ask.text, opening)
        choices.append(await examiner.choice(sampler, prompt, ask))
        replies.append(await examiner.proposal(sampler, prompt, habit, ask))
    pairs = [await examiner.compared(sampler, before, opening) for before in unrelated]
    changed = [
        f"{b.text}: {b.reply.raw} -> {now}" for b, (_, now) in zip(unrelated, pairs, strict=True) if now is not None
    ]
    good_N, bad_N = np.array(choices).T
    return Measured(
        probability=float(good_N.mean()),
        against=float((good_N / (good_N + bad_N)).mean()),
        greedy=float(np.mean([complies(habit, reply) for reply in replies])),
        kept=1 - len(changed) / len(unrelated) if unrelated else None,
        drift=sum(drift for drift, _ in pairs) / sum(len(b.tokens) for b in unrelated) if unrelated else None,
        calls=tuple(_shown(reply) for reply in replies),
        changed=tuple(changed),
    )


def complies(habit: Habit, reply: Reply) -> bool:
    return reply.call is not None and habit.complies(reply.call)


def _shown(reply: Reply) -> str:
    return reply.call.to_json() if reply.call is not None else reply.raw

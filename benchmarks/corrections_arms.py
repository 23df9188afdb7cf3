"""The ways to correct a habit that benchmarks/corrections.py sets side by side, each from the same weights."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from corrections_habits import Ask, Habit, unrelated
from corrections_measure import Behaviour, Examiner, Measured, complies, measure
from corrections_requests import APPROVED

from continualcode.backends import TinkerBackend
from continualcode.config import defaults_of
from continualcode.local import ServiceClient
from continualcode.local.coldstart.ordinary import ordinary_requests
from continualcode.policy import Policy
from continualcode.sdpo import SDPOConfig, SDPOTrainer
from continualcode.sdpo.rehearsal import beginning_of
from continualcode.sdpo.reprompt import teacher_context
from continualcode.types import Conversation, Example, Lesson, Message, Sampling, Turn

MODEL = "smollm2-135m"
SEED = 1
DEFAULTS = defaults_of("local", MODEL)
PLAIN = defaults_of("local", MODEL, null_space=False)
ORIGINAL = {
    "alpha": 1.0,
    "distillation_topk": None,
    "teacher_regularization": "none",
    "max_inner_steps": 1,
    "rehearse": 0,
    "min_gap": 0.0,
    "constant_instructions": False,
    "null_space": False,
}
"""One step of sampled-token reverse KL, the newest weights as teacher."""
LEARNING = (
    "learning_rate", "max_inner_steps", "max_denial_steps", "min_gap", "rehearse", "constant_instructions", "null_space"
)  # fmt: skip
"""The embedded model's defaults that say how it learns."""


def learning(defaults: Mapping[str, Any]) -> dict[str, Any]:
    return {name: defaults[name] for name in LEARNING if name in defaults}


@dataclass(frozen=True, slots=True)
class Row:
    """One arm at one point: what was measured and the seconds of training up to there."""

    measured: Measured
    seconds: float = 0.0
    note: str = ""


@dataclass(slots=True)
class Bench:
    """The model, its first behaviour and what the arms share."""

    service: ServiceClient
    examiner: Examiner
    first: TinkerBackend
    settings: dict[str, Any]
    corrections: int
    approved: int
    """So many ordinary turns were approved in the session before its first correction."""
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    rejections: dict[str, Turn] = field(default_factory=dict)

    async def fresh(self) -> TinkerBackend:
        """A new LoRA on the model: the same weights every time."""
        return await TinkerBackend.connect(
            self.service,
            model_name=MODEL,
            lora_rank=DEFAULTS["lora_rank"],
            seed=SEED,
            tokenizer=self.first.tokenizer,
        )

    def trainer(self, backend: TinkerBackend, **settings: Any) -> SDPOTrainer:
        chosen = {**learning(DEFAULTS), **self.settings, **settings}
        return SDPOTrainer(backend, self.examiner.renderer, SDPOConfig(**chosen), ordinary=self.ordinary)

    @property
    def ordinary(self) -> list[tuple[Conversation, Message]]:
        return [(self.examiner.opening.add(Message("user", text)), reply) for text, reply in ordinary_requests()]

    async def session(self, backend: TinkerBackend) -> SDPOTrainer:
        """Our trainer after some approved work."""
        trainer = self.trainer(backend)
        for index, text in enumerate(APPROVED[: self.approved]):
            conversation = self.examiner.opening.add(Message("user", text))
            trainer.rehearse(await self.policy(backend, 20 + index).propose(conversation))
        return trainer

    def policy(self, backend: TinkerBackend, seed: int, candidates: int = 20) -> Policy:
        sampling = Sampling(max_tokens=80, seed=SEED + 1000 * seed, candidates=candidates)
        return Policy(backend, self.examiner.renderer, sampling)

    async def behaviours_besides(self, habit: Habit) -> list[Behaviour]:
        """The first model's answers to 24 requests that have nothing to do with the habit."""
        texts = unrelated(habit)
        for text in texts:
            if text not in self.behaviours:
                self.behaviours[text] = await self.examiner.behaviour(self.first.sampler, text)
        return [self.behaviours[text] for text in texts]

    async def measured(self, backend: TinkerBackend, habit: Habit) -> Measured:
        return await measure(self.examiner, backend.sampler, habit, await self.behaviours_besides(habit))

    async def rejected(self, backend: TinkerBackend, habit: Habit, index: int) -> Turn | None:
        """The first of 12 sampled proposals that shows the habit; None when the model no longer has it."""
        ask = habit.training[index]
        policy = self.policy(backend, index)
        conversation = self.examiner.opening.add(Message("user", ask.text))
        for _ in range(12):
            turn = await policy.propose(conversation)
            if turn.reply.call is not None and _usual(ask, turn):
                return turn
        return None

    async def first_rejected(self, habit: Habit) -> Turn:
        if habit.name not in self.rejections:
            turn = await self.rejected(self.first, habit, 0)
            if turn is None:
                raise SystemExit(f"{habit.name}: 12 proposals and the habit in none of them")
            self.rejections[habit.name] = turn
        return self.rejections[habit.name]


VARIANTS: dict[str, dict[str, Any]] = {
    "all of the LoRA, nothing rehearsed": {**learning(PLAIN), "rehearse": 0},
    "all of the LoRA, 4 turns rehearsed": learning(PLAIN),
    "the whole gradient, instructions included": {"constant_instructions": False},
    "first 3 tokens skipped": {"skip_first_tokens": 3},
    "placebo subtracted": {"placebo": "The sky is blue today."},
    "the sampled token alone, centred": {"distillation_topk": None, "alpha": 1.0, "center_advantages": True},
}
"""Other settings of one correction; all of the LoRA goes with its own learning rate and steps, else one is changed alone."""
Rows = AsyncIterator[tuple[str, Row]]


async def base(bench: Bench, habit: Habit) -> Rows:
    besides = await bench.behaviours_besides(habit)
    yield "base", Row(await measure(bench.examiner, bench.first.sampler, habit, besides))


async def context(bench: Bench, habit: Habit) -> Rows:
    """No training: the denial stays in the conversation, or the reason was said before by the way."""
    denied = _denied(await bench.first_rejected(habit), habit)
    besides = await bench.behaviours_besides(habit)
    yield "context", Row(await measure(bench.examiner, bench.first.sampler, habit, besides, denied))
    said = bench.examiner.opening.add(Message("user", habit.reason))
    yield "note", Row(await measure(bench.examiner, bench.first.sampler, habit, (), said))


async def teacher(bench: Bench, habit: Habit) -> Rows:
    """No training: the reason stands with each held-out request, as the teacher of SDPO sees it."""
    turn = await bench.first_rejected(habit)

    def told(ask: Ask) -> Ask:
        asked = teacher_context(Lesson(replace(turn, context=Conversation((Message("user", ask.text),))), habit.reason))
        assert asked is not None
        return replace(ask, text=asked.messages[0].content)

    reasoned = replace(habit, asks=tuple(map(told, habit.asks)))
    yield "teacher", Row(await measure(bench.examiner, bench.first.sampler, reasoned, ()))


async def sft(bench: Bench, habit: Habit) -> Rows:
    """Cross-entropy on the corrected call, token mean, with all of the LoRA."""
    async for row in _sft(bench, habit, await bench.fresh(), "sft", PLAIN["learning_rate"], (1, 2, 4)):
        yield row


async def sft_null(bench: Bench, habit: Habit) -> Rows:
    """The same in the null space."""
    backend = await bench.fresh()
    begun = (beginning_of(turn, bench.examiner.renderer) for turn in bench.ordinary)
    await backend.into_null_space([prompt + reply for prompt, reply in begun])
    async for row in _sft(bench, habit, backend, "sft null", DEFAULTS["learning_rate"], (2, 4, 8)):
        yield row


async def _sft(
    bench: Bench, habit: Habit, backend: TinkerBackend, name: str, learning_rate: float, shown: Sequence[int]
) -> Rows:
    ask, seconds = habit.training[0], 0.0
    tokens = bench.examiner.written(ask.right)
    ids_T1 = np.array(tokens)[:, None]
    example = Example(bench.examiner.prompt(ask.text), tokens, ids_T1, np.full(ids_T1.shape, 1 / len(tokens)))
    for step in range(1, shown[-1] + 1):
        started = time.perf_counter()
        await backend.train_step([example], learning_rate=learning_rate)
        seconds += time.perf_counter() - started
        if step in shown:
            yield f"{name} {step}", Row(await bench.measured(backend, habit), seconds)


async def original(bench: Bench, habit: Habit) -> Rows:
    for rate in (PLAIN["learning_rate"], 1e-4):
        backend = await bench.fresh()
        trainer = bench.trainer(backend, **ORIGINAL, learning_rate=rate)
        report = await trainer.learn([Lesson(await bench.first_rejected(habit), habit.reason)])
        yield f"original {rate:g}", Row(await bench.measured(backend, habit), report.seconds if report else 0.0)


async def ours(bench: Bench, habit: Habit) -> Rows:
    backend = await bench.fresh()
    trainer, seconds, notes, measured = await bench.session(backend), 0.0, [], None
    for index in range(bench.corrections):
        steps = trainer.steps
        took, note = await correct(bench, trainer, habit, index)
        seconds, notes = seconds + took, [*notes, note]
        measured = measured if trainer.steps == steps else None
        if index + 1 in (1, 2, 4):
            measured = measured or await bench.measured(backend, habit)
            yield f"ours {index + 1}", Row(measured, seconds, ", ".join(notes))


async def correct(bench: Bench, trainer: SDPOTrainer, habit: Habit, index: int) -> tuple[float, str]:
    """One correction: denial, training, retry; the approved retry or the edit, training. The agent would also learn from
    an edited retry as a correction of its own; here that is left out."""
    backend = trainer.backend
    assert isinstance(backend, TinkerBackend)
    turn = await bench.rejected(backend, habit, index)
    if turn is None:
        return 0.0, "nothing to correct"
    lesson, right = Lesson(turn, habit.reason), habit.training[index].right
    denied = await trainer.learn([lesson])
    retry = await bench.policy(backend, 10 + index).propose(_denied(turn, habit))
    approved = complies(habit, retry.reply) and _as_good(retry, habit.training[index])
    if approved:
        trainer.rehearse(retry)
    whole = replace(lesson, resolution=retry) if approved else replace(lesson, demonstration=right)
    reports = [report for report in (denied, await trainer.learn([whole])) if report is not None]
    went = " then ".join(f"{report.outcome} in {report.inner_steps}" for report in reports)
    return sum(report.seconds for report in reports), f"retry {'approved' if approved else 'edited'} ({went})"


ARMS: dict[str, Callable[[Bench, Habit], Rows]] = {
    "base": base,
    "context": context,
    "teacher": teacher,
    "sft": sft,
    "sft null": sft_null,
    "original": original,
    "ours": ours,
}


async def variants(bench: Bench, habits: Sequence[Habit]) -> dict[str, Any]:
    """One correction of each habit, learned with other settings."""
    found: dict[str, Any] = {}
    bench.corrections = 1
    for name, bench.settings in VARIANTS.items():
        found[name] = {}
        for habit in habits:
            async for _, row in ours(bench, habit):
                say(habit.name, name, row)
                found[name][habit.name] = asdict(row)
    return found


async def gaps(bench: Bench, habits: Sequence[Habit]) -> dict[str, dict[str, float]]:
    """Nats between teacher and student over the rejected call, for the reason and for one that says nothing."""
    found: dict[str, dict[str, float]] = {}
    for habit in habits:
        turn = await bench.first_rejected(habit)
        found[habit.name] = {}
        for reason in (habit.reason, "thanks"):
            unseen = bench.trainer(bench.first, min_gap=1000.0, rehearse=0)
            report = await unseen.learn([Lesson(turn, reason)])
            found[habit.name][reason] = report.gap if report else 0.0
    return found


async def sequence(bench: Bench, habits: Sequence[Habit]) -> dict[str, Any]:
    """One correction each of several habits, one after another on the same weights; then all of them measured."""
    backend = await bench.fresh()
    trainer, seconds, alone = await bench.session(backend), 0.0, {}
    for habit in habits:
        took, _ = await correct(bench, trainer, habit, 0)
        seconds += took
        alone[habit.name] = await measure(bench.examiner, backend.sampler, habit, ())
    after = {habit.name: await bench.measured(backend, habit) for habit in habits}
    for habit in habits:
        say(f"sequence {habit.name}", "at once", Row(alone[habit.name]))
        say(f"sequence {habit.name}", "at the end", Row(after[habit.name]))
    return {
        "habits": [habit.name for habit in habits],
        "at once": {name: asdict(measured) for name, measured in alone.items()},
        "at the end": {name: asdict(measured) for name, measured in after.items()},
        "seconds": seconds,
    }


def say(habit: str, arm: str, row: Row) -> None:
    m = row.measured
    others = "" if m.kept is None else f"  kept {m.kept:4.0%}  KL {m.drift:.4f}"
    print(
        f"{habit:28} {arm:16} comply {m.greedy:4.0%}  P {m.probability:.3f} (against {m.against:.3f}){others}"
        f"  {row.seconds:5.1f} s  {row.note}",
        flush=True,
    )


def _denied(turn: Turn, habit: Habit) -> Conversation:
    """The conversation as the agent keeps it after the denial."""
    assert turn.reply.call is not None
    return turn.context.add(turn.reply.message, Message("tool", f"denied: {habit.reason}", tool=turn.reply.call.name))


def _usual(ask: Ask, turn: Turn) -> bool:
    assert turn.reply.call is not None
    text = turn.reply.call.to_json()
    return any(beginning.upto in text for beginning in ask.violating)


def _as_good(retry: Turn, ask: Ask) -> bool:
    """A person approves a complying call only with the arguments that say where or what: path, command, pattern."""
    call = retry.reply.call
    assert call is not None
    keys = ("path", "cmd", "pat")
    return [call.arguments.get(key) for key in keys] == [ask.right.arguments.get(key) for key in keys]

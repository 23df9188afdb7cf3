"""One `learn` under way: what is learned, what became of it so far, and whether another step is worth taking.

Knows nothing of backends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from continualcode.sdpo import objective
from continualcode.sdpo.rehearsal import rescored
from continualcode.sdpo.scoring import Scores
from continualcode.sdpo.settings import SDPOConfig
from continualcode.types import Floats, Metrics, Outcome, TokenView, TrainReport

NOISE = 0.01
"""Nats by which the same weights may score a completion differently than when they sampled it."""
KNOWN_BY_NOW = -1.0
"""A completion this many nats less likely than when it was sampled is one that was unlearned since."""


@dataclass(slots=True)
class Attempt:
    """One `learn` under way: what is learned and rehearsed, scored before the first step and now."""

    before: list[Scores]
    config: SDPOConfig
    now: list[Scores] = field(init=False)
    rehearsed_before: list[Floats] = field(default_factory=list)
    steps: int = 0
    metrics: Metrics = field(default_factory=dict)
    outcome: Outcome | None = None

    def __post_init__(self) -> None:
        self.now = list(self.before)

    @property
    def new(self) -> list[Scores]:
        return self.now[: len(self.before)]

    @property
    def most(self) -> int:
        """Steps it may take."""
        return (self.is_denial and self.config.max_denial_steps) or self.config.max_inner_steps

    @property
    def is_denial(self) -> bool:
        """Whether nothing is known yet of what would have been right."""
        return all(scores.passage.kind == "rejected" for scores in self.before)

    @property
    def worth_a_step(self) -> list[Scores]:
        """What is trained on."""
        return [*self._to_learn, *self.now[len(self.before) :]]

    @property
    def _to_learn(self) -> list[Scores]:
        """Of a completed lesson, the rejected tokens only where they are not less likely than when they were sampled:
        they should stay down, and what goes further down takes from what is to come up."""
        completed = {s.passage.prompt for s in self.new if s.passage.kind == "approved"}
        return [
            s for s in self.new if not (s.passage.kind == "rejected" and s.passage.prompt in completed and _is_down(s))
        ]

    @property
    def gap(self) -> float:
        return _mean(objective.gaps(self.before, self.config))

    @property
    def left(self) -> float:
        """Share of the gap that is left, of what is trained on."""
        learned = {id(scores.passage) for scores in self._to_learn}
        before, now = (
            _mean(objective.gaps([s for s in each if id(s.passage) in learned], self.config))
            for each in (self.before, self.new)
        )
        return now / before if before else 1.0

    @property
    def drift(self) -> float:
        return objective.drift(self.rehearsed_before, self.now[len(self.before) :])

    def nothing_to_learn(self) -> Outcome | None:
        """The initial gap predicts what can be gained (arXiv 2605.30070)."""
        rewarded = any(scores.passage.advantage for scores in self.before) and self.config.reward_weight > 0
        if rewarded or max(objective.gaps(self.before, self.config)) >= self.config.min_gap:
            return None
        return "understood" if all(map(_unlearned_since, self.before)) else "too weak"

    def rehearse(self, drawn: Sequence[Scores]) -> None:
        self.now += drawn
        self.rehearsed_before = [scores.student_TK for scores in drawn]

    def scored(self, student: Sequence[Floats]) -> None:
        """The log-probabilities after one more step, which decide whether another follows."""
        self.now = rescored(self.now, student)
        still = objective.gaps(self._to_learn, self.config)
        if self.left <= self.config.taken_at or max(still, default=0.0) < self.config.min_gap:
            self.outcome = "taken"
        elif self.drift > self.config.drift_budget:
            self.outcome = "drifted"
        elif self.steps == self.most:
            self.outcome = "trained"

    def report(self, outcome: Outcome | None, step: int, seconds: float) -> TrainReport:
        assert outcome is not None
        return TrainReport(
            step=step,
            lessons=sum(scores.passage.kind == "rejected" for scores in self.before),
            tokens=sum(len(scores.passage.tokens) for scores in self.before),
            loss=objective.mean_divergence(self.before, self.config),
            seconds=seconds,
            views=tuple(_view(was, now) for was, now in zip(self.before, self.new, strict=True)),
            metrics=self.metrics,
            outcome=outcome,
            inner_steps=self.steps,
            gap=self.gap,
            left=self.left,
            drift=self.drift,
            cut=max(scores.passage.cut for scores in self.before),
        )


def _view(before: Scores, now: Scores) -> TokenView:
    kind: Literal["rejected", "approved"] = "approved" if before.passage.kind == "approved" else "rejected"
    placebo_T = None if before.placebo_TK is None else before.own(before.placebo_TK)
    return TokenView(before.passage.tokens, before.student_T, before.teacher_T, now.student_T, kind, placebo_T)


def _is_down(scores: Scores) -> bool:
    return _since_sampled(scores) < -NOISE


def _unlearned_since(scores: Scores) -> bool:
    return scores.passage.sampled is None or _since_sampled(scores) < KNOWN_BY_NOW


def _since_sampled(scores: Scores) -> float:
    """Nats by which a sample became more likely."""
    sampled = scores.passage.sampled
    return float((scores.student_T - sampled.logprobs_T).sum()) if sampled is not None else 0.0


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0

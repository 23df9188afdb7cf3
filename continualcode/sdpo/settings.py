"""SDPOConfig: every choice of the trainer, checked. Knows nothing of how one is carried out.

Names and meaning are those of the paper's reference implementation (lasgroup/SDPO) where it has the choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from continualcode.errors import ConfigError


@dataclass(frozen=True, slots=True)
class SDPOConfig:
    """How corrections are learned. Raises ConfigError on values that cannot work."""

    learning_rate: float = 1e-4
    alpha: float = 0.0
    """0 forward KL(q||p), 1 reverse KL(p||q), between: generalised Jensen-Shannon. Sampled-token mode is reverse.

    The reference's default is 0.5. Forward KL moved more of a corrected habit in one step wherever it was measured
    (docs/benchmarks.md)."""
    distillation_topk: int | Literal["all"] | None = 20
    """K candidates per position; "all": the whole vocabulary, where the backend scores it; None: the sampled token
    alone. Capped, with a note, at what the backend can give."""
    distillation_add_tail: bool = True
    """One bucket for the rest of the vocabulary; otherwise the K are renormalised."""
    is_clip: float | None = 2.0
    """Upper bound of the importance ratio p_now / p_sampling; None: no importance weighting."""
    loss_agg_mode: Literal["token-mean", "seq-mean-token-mean"] = "token-mean"
    """Mean over all tokens of a batch, or over its completions of their own means."""

    teacher_regularization: str = "none"
    """Which teacher: "none" (newest weights), "frozen" (initial), "ema", "trust-region", or one a plug-in registers."""
    teacher_update_rate: float = 0.05
    """r of "ema" and "trust-region": 0 frozen, 1 newest."""

    max_reprompt_len: int = 10240
    """Tokens that reason and solution may add to the teacher's prompt. (The reference counts the question too, of
    which it has one; here that is a conversation, and never cut.)"""
    reprompt_truncation: Literal["right", "left", "error"] = "right"
    """Where a reason that is too long is cut: keep its beginning, keep its end, or refuse it."""
    include_environment_feedback: bool = True
    """Show the teacher a lesson's reason."""
    environment_feedback_only_without_solution: bool = False
    """... but not beside a solution."""
    success_reward_threshold: float = 0.5
    """Reward from which a turn is a solution that its siblings, other lessons on the same prompt, are shown."""
    dont_reprompt_on_self_success: bool = True
    """Never show a turn its own success."""
    remove_thinking_from_demonstration: bool = True
    """Show a sibling's solution without its thinking."""

    distillation_weight: float = 1.0
    reward_weight: float = 0.0
    """Of the policy gradient on rewards centred within the siblings (GRPO without its division by the deviation). With
    distillation_weight 0 that is all there is; with both, the hybrid."""

    constant_instructions: bool = False
    """No gradient through the instructions, what every conversation of the agent begins with: system message and tools.
    Their keys and values are taken as given. An approximation, for the time it saves where they are most of the prompt;
    only the embedded engine makes it (docs/corrections.md)."""

    null_space: bool = False
    """Before the first step, draw the LoRA's A away from what the layers read in the trainer's `ordinary` turns, which are
    then not rehearsed, and train B alone (LoRA-Null, arXiv 2503.02659). Steps may be longer: learning rates of 1e-3 and
    more. Only the embedded engine does it."""
    max_inner_steps: int = 1
    """Optimiser steps on one `learn`. After each the completions are scored again; see `taken_at`."""
    max_denial_steps: int | None = None
    """The same where nothing is known yet of what would have been right; None: as many. More steps then move the
    probability of what was rejected onto whatever begins like it."""
    taken_at: float = 0.02
    """A correction has taken when this share of the divergence that is trained on is left: no further inner step."""
    drift_budget: float = 0.05
    """Nats per token, on what is rehearsed, that one `learn` may move the policy: past it no further inner step."""
    rehearse: int = 0
    """Earlier lessons and approved turns mixed into each step, at most so many."""
    rehearsal_weight: float = 1.0
    """Of the divergence on what is rehearsed, beside 1 for the new lessons."""
    min_gap: float = 0.0
    """Nats between teacher and student over a whole completion below which nothing is trained, or no more: there is too
    little to learn, or nothing. Adam's steps are as long for a gap of .1 as for one of 10."""

    skip_first_tokens: int = 0
    """Tokens at the start of each completion that are not distilled on (SDFT's recipe skips 3)."""
    center_advantages: bool = False
    """Sampled-token mode: subtract each completion's mean advantage (arXiv 2603.12273)."""
    placebo: str | None = None
    """An unrelated feedback text: what it changes about the teacher is taken out (RLCSD, arXiv 2606.11709).
    log q <- log q - (log q_placebo - log p), normalised. Costs one more scoring."""

    def __post_init__(self) -> None:
        for message, holds in _conditions(self).items():
            if not holds:
                raise ConfigError(message)


def _conditions(config: SDPOConfig) -> dict[str, bool]:
    topk = config.distillation_topk
    sizes = ("max_inner_steps", "max_reprompt_len")
    amounts = ("rehearse", "rehearsal_weight", "drift_budget", "min_gap", "skip_first_tokens")
    weights = ("distillation_weight", "reward_weight")
    return {
        f"learning_rate must be > 0, not {config.learning_rate}": config.learning_rate > 0,
        f"alpha must lie in [0, 1], not {config.alpha}": 0 <= config.alpha <= 1,
        f"distillation_topk must be at least 1, 'all' or None, not {topk}": (
            topk in (None, "all") or (isinstance(topk, int) and topk >= 1)
        ),
        f"the sampled token alone estimates the reverse KL: alpha must be 1, not {config.alpha}": (
            topk is not None or config.alpha == 1
        ),
        f"is_clip must be > 0 or None, not {config.is_clip}": config.is_clip is None or config.is_clip > 0,
        f"loss_agg_mode is token-mean or seq-mean-token-mean, not {config.loss_agg_mode}": (
            config.loss_agg_mode in ("token-mean", "seq-mean-token-mean")
        ),
        f"teacher_update_rate must lie in [0, 1], not {config.teacher_update_rate}": (
            0 <= config.teacher_update_rate <= 1
        ),
        f"reprompt_truncation is right, left or error, not {config.reprompt_truncation}": (
            config.reprompt_truncation in ("right", "left", "error")
        ),
        f"max_denial_steps must be at least 1 or None, not {config.max_denial_steps}": (
            config.max_denial_steps is None or config.max_denial_steps >= 1
        ),
        f"taken_at must lie in [0, 1], not {config.taken_at}": 0 <= config.taken_at <= 1,
        "center_advantages is for the sampled token alone: set distillation_topk=None and alpha=1": (
            not config.center_advantages or topk is None
        ),
        "distillation_weight and reward_weight are both 0: there is nothing to train on": (
            config.distillation_weight > 0 or config.reward_weight > 0
        ),
        **{f"{name} must be at least 1, not {getattr(config, name)}": getattr(config, name) >= 1 for name in sizes},
        **{f"{n} must be 0 or more, not {getattr(config, n)}": getattr(config, n) >= 0 for n in (*amounts, *weights)},
    }

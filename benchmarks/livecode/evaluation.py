"""How many held-out problems a policy solves. Knows nothing of training."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from math import comb

import numpy as np

from continualcode.policy import Policy
from continualcode.protocols import Critic
from livecode.problem import Problem
from livecode.rollouts import Ask, attempt


def pass_at_k(samples: int, passed: int, k: int) -> float:
    """The chance that of k samples at least one passes, estimated without bias from `samples` of which `passed` did
    (Chen et al., arXiv 2107.03374: 1 - C(n - c, k) / C(n, k))."""
    if not 1 <= k <= samples or not 0 <= passed <= samples:
        raise ValueError(f"1 <= k <= samples and 0 <= passed <= samples, not k={k}, {passed} of {samples}")
    return 1 - comb(samples - passed, k) / comb(samples, k)


async def evaluate(
    problems: Sequence[Problem],
    ask: Ask,
    policy_of: Callable[[int], Policy],
    critic_of: Callable[[Problem], Critic],
    samples: int,
) -> dict[str, float]:
    """pass@1 and pass@k, k = `samples`, as means over the problems, and how many answers passed.

    The i-th problem is asked of `policy_of(i)`.
    """
    tries = [attempt(ask(p), policy_of(i), critic_of(p), samples) for i, p in enumerate(problems)]
    passed = [sum(rollout.passed for rollout in rollouts) for rollouts in await asyncio.gather(*tries)]
    ks = sorted({1, samples})
    means = {f"pass@{k}": float(np.mean([pass_at_k(samples, count, k) for count in passed])) for k in ks}
    return {**means, "passed": sum(passed), "samples": samples * len(problems)}

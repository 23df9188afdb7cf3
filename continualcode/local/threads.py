"""How many threads an engine's work gets: as many as there are cores that nobody else is using.

Work on several threads waits for the slowest at every operation. With two cores and one of them busy elsewhere, a
training step took 55 s on two threads and 6 s on one.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch

_LOAD = Path("/proc/loadavg")
_LOOKS, _BETWEEN = 3, 0.002
_MOST = torch.get_num_threads()


def fit_threads() -> None:
    """Takes the idle cores for what comes next. Where the system does not tell (not Linux) all are taken."""
    torch.set_num_threads(max(1, _MOST - busy_elsewhere()))


def busy_elsewhere() -> int:
    """Threads that run or want to, besides this one; the fewest of several looks, since most are gone at once."""
    if not _LOAD.exists():
        return 0
    return min(_runnable() for _ in range(_LOOKS)) - 1


def _runnable() -> int:
    time.sleep(_BETWEEN)
    return int(_LOAD.read_text().split()[3].partition("/")[0])

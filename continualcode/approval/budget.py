"""Budget: lets so many calls, changed files and seconds pass, and denies what is over. Knows nothing of what ran."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from continualcode.errors import ConfigError
from continualcode.tools import READ_ONLY
from continualcode.types import Deny, ToolCall, Turn


class Budget:
    """Denies, without teaching, what goes over a limit; leaves the rest to the next gate.

    It counts what it lets pass, whether or not a later gate denies that, so it belongs before the gates that approve.

    Args:
        calls: proposals.
        files: different files that calls with a `path` would change; what bash changes is not counted.
        seconds: since the first call; `clock` tells them.
    """

    def __init__(
        self,
        *,
        calls: int | None = None,
        files: int | None = None,
        seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if any(limit is not None and limit < 0 for limit in (calls, files, seconds)):
            raise ConfigError(f"limits are not negative: calls={calls}, files={files}, seconds={seconds}")
        self.calls, self.files, self.seconds = calls, files, seconds
        self._clock = clock
        self._began: float | None = None
        self._passed = 0
        self._last: Turn | None = None
        self._changed: frozenset[str] = frozenset()

    async def review(self, turn: Turn, call: ToolCall) -> Deny | None:
        self._began = self._clock() if self._began is None else self._began
        again = self._last is not None and turn is self._last
        passed, changed = self._passed + (not again), self._changed | _changed_by(call)
        over = {
            f"{self.calls} calls": self.calls is not None and passed > self.calls,
            f"{self.files} changed files": self.files is not None and len(changed) > self.files,
            f"{self.seconds} seconds": self.seconds is not None and self._clock() - self._began > self.seconds,
        }
        for limit, exceeded in over.items():
            if exceeded:
                return Deny(f"the budget of {limit} is used up", teach=False)
        self._passed, self._changed, self._last = passed, changed, turn
        return None


def _changed_by(call: ToolCall) -> frozenset[str]:
    path = call.arguments.get("path")
    return frozenset({os.path.normpath(path)}) if isinstance(path, str) and call.name not in READ_ONLY else frozenset()

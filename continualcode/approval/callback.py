"""Callback: any function as a gate."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable

from continualcode.types import ToolCall, Turn, Verdict


class Callback:
    """Asks `function(turn, call)`, sync or async, for a verdict or None."""

    def __init__(self, function: Callable[[Turn, ToolCall], Verdict | Awaitable[Verdict | None] | None]) -> None:
        self.function = function

    async def review(self, turn: Turn, call: ToolCall) -> Verdict | None:
        verdict = self.function(turn, call)
        return await verdict if inspect.isawaitable(verdict) else verdict

"""ReadOnly: approves calls of tools that change nothing, and leaves the rest to the next gate."""

from __future__ import annotations

from collections.abc import Collection

from continualcode.tools import READ_ONLY
from continualcode.types import Approve, ToolCall, Turn


class ReadOnly:
    """Approves the tools named; by default those of the standard set that read inside the workspace and write nothing."""

    def __init__(self, tools: Collection[str] = READ_ONLY) -> None:
        self.tools = frozenset(tools)

    async def review(self, turn: Turn, call: ToolCall) -> Approve | None:
        return Approve() if call.name in self.tools else None

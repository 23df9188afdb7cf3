"""Remember: "always allow", for this exact call or for this tool, as long as the program runs."""

from __future__ import annotations

from continualcode.types import Approve, ToolCall, Turn


class Remember:
    """Approves what `allow_call` or `allow_tool` was told before. Exact: a call that differs in one byte is asked again."""

    def __init__(self) -> None:
        self.calls: set[str] = set()
        self.tools: set[str] = set()

    def allow_call(self, call: ToolCall) -> None:
        self.calls.add(call.to_json())

    def allow_tool(self, name: str) -> None:
        self.tools.add(name)

    def forget(self) -> None:
        """Takes every "always" back."""
        self.calls.clear()
        self.tools.clear()

    async def review(self, turn: Turn, call: ToolCall) -> Approve | None:
        return Approve() if call.name in self.tools or call.to_json() in self.calls else None

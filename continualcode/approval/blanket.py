"""Gates that decide everything alike."""

from __future__ import annotations

from continualcode.types import Approve, Deny, ToolCall, Turn


class ApproveAll:
    """Approves every call. For throw-away workspaces and benchmarks only: nothing stands between model and machine."""

    async def review(self, turn: Turn, call: ToolCall) -> Approve:
        return Approve()


class DenyAll:
    """Denies every call, teaching only when told to."""

    def __init__(self, reason: str = "no call may run here", *, teach: bool = False) -> None:
        self.verdict = Deny(reason, teach)

    async def review(self, turn: Turn, call: ToolCall) -> Deny:
        return self.verdict

"""One moving line that says what is being waited for, and for how long. Knows nothing of what that is."""

from __future__ import annotations

import time

from rich.console import Console
from rich.live import Live
from rich.text import Text

_FRAMES = "|/-\\"
_HINT_AFTER = 5.0


class Progress:
    """Shows one label at a time with its seconds; on a terminal that cannot move the cursor, a plain line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None

    def show(self, label: str) -> None:
        self.stop()
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            self._live = Live(_Line(label), console=self._console, transient=True, refresh_per_second=8)
            self._live.start()
        else:
            self._console.print(Text(f"{label} ...", style="dim"))

    def stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


class _Line:
    def __init__(self, label: str) -> None:
        self.label, self.started = label, time.monotonic()

    def __rich__(self) -> Text:
        seconds = time.monotonic() - self.started
        frame = _FRAMES[int(seconds * 8) % len(_FRAMES)]
        hint = "  (Ctrl-C stops)" if seconds > _HINT_AFTER else ""
        return Text(f"{frame} {self.label} ... {seconds:.0f} s{hint}", style="cyan", no_wrap=True, overflow="ellipsis")

"""Lines from one stream and to another without ever blocking the event loop. Knows nothing of what they say."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import IO

_CHUNK = 65_536


def read_lines(stream: IO[bytes], put: Callable[[bytes | None], None]) -> None:
    """Calls `put` in the running loop with each line, and with None at the end.

    Read by a thread from the file descriptor itself: one that waits in a buffered reader could not be left behind at
    the end of the program.
    """
    loop, descriptor = asyncio.get_running_loop(), stream.fileno()

    def deliver(line: bytes | None) -> bool:
        try:
            loop.call_soon_threadsafe(put, line)
        except RuntimeError:  # the loop is closed: nobody reads any more
            return False
        return True

    def read() -> None:
        rest = b""
        while chunk := _read(descriptor):
            *lines, rest = (rest + chunk).split(b"\n")
            if not all(deliver(line) for line in lines):
                return
        if not rest or deliver(rest):
            deliver(None)

    threading.Thread(target=read, name="continualcode-stdin", daemon=True).start()


class LineWriter:
    """Writes lines in the order given, from a thread of its own; `broken` is called there when the reader is gone."""

    def __init__(self, stream: IO[str], broken: Callable[[], None]) -> None:
        self._stream, self._broken = stream, broken
        self._lines: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="continualcode-stdout", daemon=True)
        self._thread.start()

    def put(self, line: str) -> None:
        self._lines.put(line)

    async def finish(self) -> None:
        """Waits until all has been written."""
        self._lines.put(None)
        await asyncio.to_thread(self._thread.join)

    def _write(self) -> None:
        while (line := self._lines.get()) is not None:
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):  # ValueError: the stream is closed
                self._broken()
                return


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, _CHUNK)
    except OSError:  # the terminal or pipe went away: the end
        return b""

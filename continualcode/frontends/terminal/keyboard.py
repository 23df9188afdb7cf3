"""What the terminal does with keys while nobody reads them: not echoed, and thrown away when asked."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from prompt_toolkit.input import Input
from prompt_toolkit.input.typeahead import clear_typeahead

if sys.platform != "win32":
    import os
    import termios


def discard_typed(input: Input) -> None:
    """Throws away every key that has been pressed and not been read."""
    clear_typeahead(input)
    if sys.platform != "win32" and os.isatty(input.fileno()):
        termios.tcflush(input.fileno(), termios.TCIFLUSH)


@contextmanager
def echo(input: Input, on: bool) -> Iterator[None]:
    """Sets whether typed keys show, for as long as the context lasts."""
    if sys.platform == "win32" or not os.isatty(input.fileno()):
        yield
        return
    before = termios.tcgetattr(input.fileno())
    changed = termios.tcgetattr(input.fileno())
    changed[3] = changed[3] | termios.ECHO if on else changed[3] & ~termios.ECHO
    termios.tcsetattr(input.fileno(), termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(input.fileno(), termios.TCSADRAIN, before)


@contextmanager
def on_interrupt(action: Callable[[], None]) -> Iterator[None]:
    """Ctrl-C does this instead of ending the program. Only the main thread can say so; elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        action()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)

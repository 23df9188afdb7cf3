"""Asks the user: a request, one of a few keys or free text, or a line of reason. Knows nothing of what is decided.

Keys pressed before a question was on screen never answer it: what was typed ahead is thrown away, and keys are dropped
until the question has been shown, and the keyboard quiet, for a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TypeVar

from prompt_toolkit import PromptSession
from prompt_toolkit.application import Application
from prompt_toolkit.application.current import get_app_or_none, get_app_session
from prompt_toolkit.buffer import Buffer
from prompt_toolkit.filters import Condition
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History, InMemoryHistory
from prompt_toolkit.input import Input
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import Output

from continualcode.frontends.safe import typed
from continualcode.frontends.terminal.keyboard import discard_typed

QUIET_SECONDS = 0.15
ALONE_SECONDS = 0.3
"""A key answers when no other follows it for this long, or with Enter."""
_T = TypeVar("_T")
_ESCAPE_SECONDS = 0.05
"""How long an Escape waits to become an arrow key or Alt-Enter."""


@dataclass(frozen=True, slots=True)
class Option:
    """A key that answers at once, and what it does. `enter` is the Enter key on an empty line."""

    key: str
    label: str


@dataclass(frozen=True, slots=True)
class Pressed:
    """A key of one of the options."""

    key: str


@dataclass(frozen=True, slots=True)
class Typed:
    """Free text; never empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Left:
    """Escape, Ctrl-C, or no terminal any more."""


Answer = Pressed | Typed | Left


class Prompter:
    """Everything that is typed comes through here.

    Args:
        history: of requests; reasons have one of their own, for the session.
        input, output: prompt_toolkit's; by default those of the terminal.
    """

    def __init__(self, history: History, input: Input | None = None, output: Output | None = None) -> None:
        self.input = input or get_app_session().input
        self._given_input, self._output = input, output
        self._requests: PromptSession[str] = PromptSession(
            [("bold ansicyan", "> ")],
            history=history,
            multiline=True,
            prompt_continuation=[("", "  ")],
            key_bindings=_line_bindings(),
            input=input,
            output=output,
        )
        self._reasons = InMemoryHistory()

    async def request(self) -> str:
        """What the user asks for. Raises EOFError on Ctrl-D, KeyboardInterrupt on Ctrl-C."""
        return typed(await self._requests.prompt_async())

    async def reason(self, question: str) -> str | None:
        """One answer in words, possibly empty; None when the user left."""
        session: PromptSession[str] = self._session(_line_bindings(leave_on_escape=True))
        try:
            return typed(await session.prompt_async([("bold", f"{question} ")])).strip()
        except (EOFError, KeyboardInterrupt):
            return None

    async def choose(self, options: Sequence[Option], question: str) -> Answer:
        """One of the options by its key, or text and Enter; in text, the keys are letters."""
        discard_typed(self.input)
        guard = _Guard()
        keys = _Keys(options, guard)
        session: PromptSession[Answer] = self._session(keys.bindings)
        session.default_buffer.on_text_changed += keys.on_text
        session.app.after_render += guard.drawn
        guard.begin()
        try:
            answer = await session.prompt_async(lambda: _message(options, question))
        except (EOFError, KeyboardInterrupt):
            return Left()
        finally:
            keys.let_go()
        if isinstance(answer, Typed):
            self._reasons.append_string(answer.text)
        return answer

    def _session(self, bindings: KeyBindings) -> PromptSession[_T]:
        session: PromptSession[_T] = PromptSession(
            history=self._reasons,
            multiline=True,
            key_bindings=bindings,
            erase_when_done=True,
            input=self._given_input,
            output=self._output,
        )
        session.app.ttimeoutlen = session.app.timeoutlen = _ESCAPE_SECONDS
        return session


class _Guard:
    """Closed until its question has been shown, and the keyboard quiet, for QUIET_SECONDS."""

    def __init__(self) -> None:
        self._opens, self._drawn = inf, False

    def begin(self) -> None:
        self._opens = time.monotonic() + QUIET_SECONDS

    def drawn(self, app: Application[Answer]) -> None:
        if not self._drawn:
            self._drawn = True
            self.begin()

    def closed(self) -> bool:
        return time.monotonic() < self._opens


class _Keys:
    """The bindings of one question. A key answers when nothing follows it at once: `the wrong file` is no `t`."""

    def __init__(self, options: Sequence[Option], guard: _Guard) -> None:
        self._options = {option.key for option in options}
        self._guard = guard
        self._pressed = ""
        self._writing = False
        self._timer: asyncio.TimerHandle | None = None
        self.bindings = KeyBindings()
        early, choosing = Condition(guard.closed), Condition(lambda: not self._writing and not self._pressed)
        self.bindings.add(Keys.Any, eager=True, filter=early)(self._drop)
        self.bindings.add(Keys.CPRResponse, eager=True, filter=early, save_before=lambda _: False)(_report_row)
        for key in self._options - {"enter"}:
            self.bindings.add(key, filter=choosing)(self._press)
        self.bindings.add("enter")(self._enter)
        self.bindings.add("c-j")(_new_line)
        self.bindings.add("c-d", filter=choosing)(self._leave)
        self.bindings.add("escape", eager=True, filter=~early)(self._escape)
        self.bindings.add("c-c", eager=True)(self._leave)
        self.bindings.add(Keys.SIGINT, eager=True)(self._leave)

    def on_text(self, buffer: Buffer) -> None:
        if buffer.text != self._pressed:
            self.let_go()
            self._writing = self._writing or bool(buffer.text)

    def let_go(self) -> None:
        """Whatever key has been pressed will not answer any more."""
        self._pressed = ""
        if self._timer is not None:
            self._timer.cancel()

    def _drop(self, event: KeyPressEvent) -> None:
        self._guard.begin()

    def _press(self, event: KeyPressEvent) -> None:
        self._pressed = event.data
        answer = partial(event.app.exit, result=Pressed(event.data))
        self._timer = asyncio.get_running_loop().call_later(ALONE_SECONDS, answer)
        event.current_buffer.insert_text(event.data)

    def _enter(self, event: KeyPressEvent) -> None:
        text = typed(event.current_buffer.text).strip()
        if text and _more_is_coming(event):  # pasted where the terminal does not mark pastes
            _new_line(event)
        elif self._pressed:
            self._answer(event, Pressed(self._pressed))
        elif text:
            self._answer(event, Typed(text))
        elif "enter" in self._options and not self._writing:
            self._answer(event, Pressed("enter"))

    def _escape(self, event: KeyPressEvent) -> None:
        if _more_is_coming(event):  # Alt and a key: it answers nothing
            event.key_processor.empty_queue()
        elif self._writing or self._pressed:
            event.current_buffer.reset()
            self.let_go()
            self._writing = False
        else:
            self._leave(event)

    def _leave(self, event: KeyPressEvent) -> None:
        self._answer(event, Left())

    def _answer(self, event: KeyPressEvent, answer: Answer) -> None:
        self.let_go()
        event.app.exit(result=answer)


def _line_bindings(*, leave_on_escape: bool = False) -> KeyBindings:
    bindings = KeyBindings()

    @bindings.add("enter")
    def send(event: KeyPressEvent) -> None:
        if _more_is_coming(event):  # pasted where the terminal does not mark pastes
            event.current_buffer.newline(copy_margin=False)
        else:
            event.current_buffer.validate_and_handle()

    bindings.add("c-j")(_new_line)
    bindings.add("escape", "enter")(_new_line)
    if leave_on_escape:

        @bindings.add("escape")
        def leave(event: KeyPressEvent) -> None:
            event.app.exit(exception=KeyboardInterrupt)

    return bindings


def _new_line(event: KeyPressEvent) -> None:
    event.current_buffer.newline(copy_margin=False)


def _report_row(event: KeyPressEvent) -> None:
    """The terminal's own answer to where the cursor is, as prompt_toolkit's default binding takes it."""
    row, _ = event.data[2:-1].split(";")
    event.app.renderer.report_absolute_cursor_row(int(row))


def _more_is_coming(event: KeyPressEvent) -> bool:
    """Whether more than Enter was read in one go with this key: no finger is that fast."""
    return any(press.key not in (Keys.CPRResponse, Keys.Enter) for press in event.key_processor.input_queue)


def _message(options: Sequence[Option], question: str) -> StyleAndTextTuples:
    """The options, as many to a line as fit, and the question below."""
    app = get_app_or_none()
    columns = app.output.get_size().columns if app is not None else 80
    fragments: StyleAndTextTuples = [("", "\n")]
    used = 0
    for option in options:
        name = option.key.capitalize() if len(option.key) > 1 else option.key
        width = len(name) + len(option.label) + 1
        if used and used + 2 + width >= columns:
            fragments.append(("", "\n"))
            used = 0
        elif used:
            fragments.append(("", "  "))
            used += 2
        fragments += [("bold ansicyan", name), ("", f" {option.label}")]
        used += width
    return [*fragments, ("", "\n"), ("bold", f"{question} ")]

"""Journal: keeps every event of a session as a line of JSON, so that corrections and conversation survive a crash.

Knows nothing of frontends. What it cannot write it reports once; the agent goes on.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from continualcode.events import Event, Learned, LearnFailed, Learning
from continualcode.hookspecs import hookimpl
from continualcode.types import Json, Lesson, Turn, thaw

_log = logging.getLogger(__name__)


class Journal:
    """A plug-in that appends every event to one file, readable by its owner only.

    A line is `{"time", "event", ...fields}`. A turn is written without the conversation it saw, which the lines
    before it hold; a lesson with it and with its exact tokens and log-probabilities, so that it can be learned again.
    Corrections are on the disk before the step begins. The file appears with the first event.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.broken = False
        """Whether writing failed; nothing more is written then, because lines would be missing."""

    @hookimpl
    def observe(self, event: Event) -> None:
        if self.broken:
            return
        try:
            self._append(event)
        except OSError as error:
            self.broken = True
            _log.warning("this session is no longer recorded in %s: %s", self.path, error.strerror or error)

    def _append(self, event: Event) -> None:
        line = {"time": round(time.time(), 3), "event": type(event).__name__, **_fields(event)}
        with _open(self.path) as file:  # anew each time, so that there is nothing to close
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
            if isinstance(event, Learning | Learned | LearnFailed):
                os.fsync(file.fileno())


def session_path(state_dir: Path) -> Path:
    """A new file's name under `state_dir`/sessions, by time and process."""
    return state_dir / "sessions" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl"


def to_json(value: object) -> Json:
    """A value of continualcode as plain JSON. Raises TypeError on what has no such form."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Turn():
            return {name: item for name, item in _fields(value).items() if name != "context"}
        case Lesson():
            context = {"messages": to_json(value.turn.context.messages), "tools": to_json(value.turn.context.tools)}
            return {**_fields(value), "context": context}
        case np.ndarray():
            listed: Json = value.tolist()
            return listed
        case np.generic():
            return to_json(value.item())
        case tuple() | list():
            return [to_json(item) for item in value]
        case _ if is_dataclass(value):
            return _fields(value)
        case _:
            return thaw(value)  # type: ignore[arg-type]


def _fields(value: object) -> dict[str, Json]:
    assert is_dataclass(value)
    kept = [field.name for field in fields(value) if field.name != "origin"]  # a sampler is no value
    return {"type": type(value).__name__, **{name: to_json(getattr(value, name)) for name in kept}}


def _open(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "a", encoding="utf-8", errors="surrogatepass")

"""Journal: keeps every event of a session as a line of JSON, so that corrections and conversation survive a crash.

Knows nothing of frontends. What it cannot write it reports once; the agent goes on.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from continualcode.events import Event, Learned, LearnFailed, Learning, Proposed, Reviewed
from continualcode.hookspecs import hookimpl
from continualcode.types import Completion, Lesson, Turn

_log = logging.getLogger(__name__)


class Journal:
    """A plug-in that appends every event to one file, readable by its owner only.

    A line is `{"time", "event", ...fields}`. A proposal is written without the conversation and the prompt it saw, which
    the lines before it hold, so that a line is no longer the longer the session is; a lesson with both and with its
    exact tokens and log-probabilities, so that it can be learned again. (Candidates are of use with the very sampler
    they came from, and not kept.) Corrections are on the disk before the step begins. The file appears with the first event.
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
        line = {"time": round(time.time(), 3), "event": type(event).__name__, **_told(event)}
        with _open(self.path) as file:  # anew each time, so that there is nothing to close
            file.write(json.dumps(line, ensure_ascii=False, default=to_json) + "\n")
            file.flush()
            if isinstance(event, Learning | Learned | LearnFailed):
                os.fsync(file.fileno())


def session_path(state_dir: Path) -> Path:
    """A new file's name under `state_dir`/sessions, by time and process."""
    return state_dir / "sessions" / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.jsonl"


def to_json(value: object) -> Any:
    """A value of continualcode as JSON, one level deep: `json.dumps(value, default=to_json)`. Raises TypeError on what
    has no such form."""
    match value:
        case Turn():
            return _fields(value, "context")
        case Lesson(turn=turn):
            context = {"messages": turn.context.messages, "tools": turn.context.tools}
            return {**_fields(value), "context": context}
        case Completion():
            return _fields(value, "origin", "candidates")
        case np.ndarray():
            return value.tolist()
        case np.generic():
            return value.item()
        case Mapping():
            return dict(value)
        case _ if is_dataclass(value):
            return _fields(value)
    raise TypeError(f"not JSON: {type(value).__name__} {value!r}")


def _told(event: Event) -> dict[str, object]:
    """What an event says that the lines before it do not."""
    match event:
        case Proposed(turn):
            completion = _fields(turn.completion, "origin", "candidates", "prompt")
            return {**_fields(event), "turn": {**_fields(turn, "context"), "completion": completion}}
        case Reviewed():
            return _fields(event, "turn")
        case _:
            return _fields(event)


def _fields(value: object, *without: str) -> dict[str, object]:
    assert is_dataclass(value)
    kept = [field.name for field in fields(value) if field.name not in without]
    return {"type": type(value).__name__, **{name: getattr(value, name) for name in kept}}


def _open(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    return os.fdopen(descriptor, "a", encoding="utf-8", errors="surrogatepass")

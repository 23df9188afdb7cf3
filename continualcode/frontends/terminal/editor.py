"""A call's arguments in the user's editor: out as JSON, back as JSON. Knows nothing of decisions."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import cast

from continualcode.errors import ConfigError
from continualcode.frontends.safe import is_visible
from continualcode.types import JsonObject, thaw

_FALLBACKS = ("sensible-editor", "nano", "vim", "vi", "notepad")


class NotJsonError(ValueError):
    """What came back is no JSON object; the message says where and why."""


def as_json(arguments: JsonObject) -> str:
    """The text that is edited. What an editor would hide or could not hold is written as a JSON escape."""
    text = json.dumps(thaw(arguments), indent=2, ensure_ascii=False)
    return "".join(item if item == "\n" or is_visible(item) else json.dumps(item)[1:-1] for item in text) + "\n"


def read_json(text: str) -> JsonObject:
    """The edited arguments. Raises NotJsonError with line and column."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise NotJsonError(f"line {error.lineno}, column {error.colno}: {error.msg}") from error
    if not isinstance(value, dict):
        raise NotJsonError(f"line 1, column 1: the arguments are an object {{...}}, not {type(value).__name__}")
    return cast("JsonObject", value)


async def edit_text(text: str) -> str:
    """What $VISUAL, or else $EDITOR, leaves of a file with this text.

    Raises ConfigError when there is no editor or it fails. Cancelling ends the editor.
    """
    command = _editor()
    with tempfile.TemporaryDirectory(prefix="continualcode-") as folder:
        path = Path(folder, "arguments.json")
        await asyncio.to_thread(path.write_text, text, encoding="utf-8")
        try:
            process = await asyncio.create_subprocess_exec(*command, str(path))
        except OSError as error:
            raise ConfigError(f"the editor {command[0]!r} does not start: {error.strerror}; set $EDITOR") from error
        try:
            code = await process.wait()
        except asyncio.CancelledError:
            process.terminate()
            await process.wait()
            raise
        if code != 0:
            raise ConfigError(f"the editor {command[0]!r} ended with {code}; its changes are not used")
        try:
            return await asyncio.to_thread(path.read_text, encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ConfigError(f"the editor left text that is not UTF-8: {error}") from error


def _editor() -> list[str]:
    for variable in ("VISUAL", "EDITOR"):
        if wanted := os.environ.get(variable, "").strip():
            try:
                return shlex.split(wanted)
            except ValueError as error:
                raise ConfigError(f"${variable} is no command: {wanted!r}: {error}") from error
    for name in _FALLBACKS:
        if found := shutil.which(name):
            return [found]
    raise ConfigError(f"no editor: $VISUAL and $EDITOR are not set, and none of {', '.join(_FALLBACKS)} is installed")

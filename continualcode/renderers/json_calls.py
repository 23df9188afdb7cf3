"""JSON text to one ToolCall, strictly enough that nothing is guessed; knows nothing of the tags around it."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from continualcode.types import ToolCall

ARGUMENT_KEYS = ("arguments", "parameters")
HARMLESS_KEYS = frozenset({"name", "type", "id", *ARGUMENT_KEYS})


class MalformedCallError(Exception):
    """Why some text is not a call, in words the model can act on. `end` is where reading can go on, if known."""

    def __init__(self, reason: str, end: int | None = None) -> None:
        super().__init__(reason)
        self.end = end


def read_json(text: str, start: int) -> tuple[Any, int]:
    """The JSON value that begins at `start` (white space skipped) and where it ends.

    Line breaks inside strings are taken as they stand. Refused: a key written twice, NaN, half a surrogate pair.
    """
    while start < len(text) and text[start].isspace():
        start += 1
    try:
        value, end = _DECODER.raw_decode(text, start)
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        found = text[error.pos : error.pos + 20]
        raise MalformedCallError(
            f"the JSON is malformed: {error.msg} at character {error.pos - start}, found {found!r}"
            if found
            else f"the JSON is malformed: it ends too early, at character {error.pos - start} ({error.msg})"
        ) from None
    except RecursionError:
        raise MalformedCallError("the JSON is nested too deeply") from None
    except ValueError as error:
        raise MalformedCallError(f"the JSON is malformed: {error}") from None
    return value, end


def call_from_object(value: Any) -> ToolCall:
    """The call that `{"name": ..., "arguments": {...}}` stands for; "parameters" may stand for "arguments"."""
    if not isinstance(value, dict):
        raise MalformedCallError(f'a call is {{"name": ..., "arguments": {{...}}}}, found {_shown(value)}')
    if unknown := sorted(value.keys() - HARMLESS_KEYS):
        raise MalformedCallError(f'a call has the keys "name" and "arguments" only, found also {", ".join(unknown)}')
    keys = [key for key in ARGUMENT_KEYS if key in value]
    if len(keys) != 1:
        raise MalformedCallError(f'a call has one "arguments" object, found {len(keys)} in {_shown(value)}')
    return call(value.get("name"), value[keys[0]])


def call(name: Any, arguments: Any) -> ToolCall:
    """A call from its parts; arguments given as a JSON string are read."""
    if not isinstance(name, str) or not name.strip():
        raise MalformedCallError(f"the name of a call is a non-empty string, found {_shown(name)}")
    if isinstance(arguments, str):
        arguments, end = read_json(text := arguments, 0)
        if text[end:].strip():
            raise MalformedCallError(f"text follows the arguments' JSON: {text[end : end + 20]!r}")
    if not isinstance(arguments, dict):
        raise MalformedCallError(f'the arguments of "{name}" are a JSON object, found {_shown(arguments)}')
    try:
        return ToolCall(name.strip(), arguments)
    except RecursionError:
        raise MalformedCallError("the JSON is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} is written twice")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False)
    return shown if len(shown) <= 60 else shown[:57] + "..."


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_refuse_constant, strict=False)

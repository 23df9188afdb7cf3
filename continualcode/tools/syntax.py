"""Whether a change breaks the syntax of a file that parsed before; knows Python, JSON and TOML."""

from __future__ import annotations

import ast
import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import PurePath

MAX_BYTES = 2**20
"""Larger files are not parsed."""

_PARSERS: Mapping[str, Callable[[bytes], object]] = {
    ".py": ast.parse,
    ".pyi": ast.parse,
    ".json": json.loads,
    ".ipynb": json.loads,
    ".toml": lambda data: tomllib.loads(data.decode("utf-8-sig")),
}


def broken_syntax(path: str, before: bytes, after: bytes) -> str | None:
    """Line and error of `after`, where the file's name says what it is and `before` had none."""
    parse = _PARSERS.get(PurePath(path).suffix.lower())
    if parse is None or max(len(before), len(after)) > MAX_BYTES or _error_of(parse, before) is not None:
        return None
    return _error_of(parse, after)


def _error_of(parse: Callable[[bytes], object], data: bytes) -> str | None:
    try:
        parse(data)
    except (SyntaxError, json.JSONDecodeError) as error:
        return f"line {error.lineno}: {error.msg}"
    except ValueError as error:  # TOML's, which names the line itself; bytes that are no text
        return str(error)
    except (RecursionError, MemoryError):
        return "nested too deeply to be parsed"
    return None

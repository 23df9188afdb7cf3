"""Makes any text safe to print: what could move the cursor, hide or reorder text is shown as a visible escape."""

from __future__ import annotations

import re
import unicodedata

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_PLAIN = re.compile(r"[\n\t\x20-\x7e]*")


def visible(text: str) -> str:
    """`text` with control, format (bidi overrides, zero width) and surrogate characters as \\x1b or \\u202e.

    Newlines and tabs stay. What is returned has no terminal escape sequence and can be encoded.
    """
    if _PLAIN.fullmatch(text):
        return text
    return "".join(_shown(character) for character in text)


def is_visible(character: str) -> bool:
    """Whether it shows as itself and does nothing else."""
    return unicodedata.category(character) not in _INVISIBLE


def typed(text: str) -> str:
    """What came from the keyboard, with bytes that were no valid UTF-8 replaced."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def shorten(text: str, limit: int = 240) -> str:
    """One line of at most `limit` characters that keeps the beginning and the end."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    tail = limit // 3
    return f"{line[: limit - tail - 5]} ... {line[-tail:]}"


def _shown(character: str) -> str:
    if character in "\n\t" or is_visible(character):
        return character
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"

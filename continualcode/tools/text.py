"""A file's bytes as text and back without loss: newline style, byte-order mark and stray bytes all survive.

Knows nothing of files, paths or tools.
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8
from dataclasses import dataclass
from difflib import SequenceMatcher, get_close_matches

_PROBE_LINES = 5000
_COMPARED = 2000
_NUMBERED = re.compile(r"^ *\d+\| ?", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Text:
    """What a file says. Bytes that are no UTF-8 are lone surrogates in `body`, and come back as they were."""

    body: str
    marked: bool = False
    """Begins with a byte-order mark."""

    @classmethod
    def decode(cls, data: bytes) -> Text:
        return cls(data.removeprefix(BOM_UTF8).decode("utf-8", "surrogateescape"), data.startswith(BOM_UTF8))

    def encode(self) -> bytes:
        return (BOM_UTF8 if self.marked else b"") + self.body.encode("utf-8", "surrogateescape")

    @property
    def newline(self) -> str:
        """The file's own: CRLF when most of its lines end so."""
        crlf = self.body.count("\r\n")
        return "\r\n" if crlf > self.body.count("\n") - crlf else "\n"

    def styled(self, text: str) -> str:
        """`text` with the newlines of this file; in a file of plain newlines it stays exactly as it is."""
        return re.sub(r"\r?\n", "\r\n", text) if self.newline == "\r\n" else text

    def lines(self) -> list[tuple[str, str]]:
        """Each line and what ends it; only the last can be ended by nothing. No other character breaks lines."""
        found = []
        for line in self.body.split("\n"):
            ending = "\r\n" if line.endswith("\r") else "\n"
            found.append((line.removesuffix("\r"), ending))
        last, ending = found.pop()
        if last or ending == "\r\n":
            found.append((self.body[self.body.rfind("\n") + 1 :], ""))
        return found

    def spliced(self, start: int, end: int, new: list[str]) -> str:
        """The body with the lines start..end (from 1, inclusive) replaced; whether the file ends in a newline stays."""
        lines, newline = self.lines(), self.newline
        unended = bool(lines) and not lines[-1][1]
        whole = [*lines[: start - 1], *((line, newline) for line in new), *lines[end:]]
        ended = [line + (ending or newline) for line, ending in whole]
        if unended and ended:
            ended[-1] = whole[-1][0]
        return "".join(ended)


def is_binary(data: bytes) -> bool:
    """A NUL among the first 8,192 bytes: no text that a line tool could work on."""
    return b"\0" in data[:8192]


def shown(text: str) -> str:
    """The text with what cannot be encoded as UTF-8 replaced, to be printed or read by a model."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def tolerant(old: str) -> re.Pattern[str]:
    """Matches exactly `old`, whichever of the two newlines is written in either."""
    return re.compile(r"\r?\n".join(re.escape(part) for part in re.split(r"\r?\n", old)))


def without_numbers(text: str) -> str:
    """`text` less the line numbers that read puts in front."""
    return _NUMBERED.sub("", text)


def nearest_lines(body: str, old: str) -> tuple[int, list[str]] | None:
    """The lines of `body` most like `old`: the number of the first (from 1), and as many as `old` has.

    The longest line of `old` is the probe: of the windows around the lines closest to it the most similar one wins.
    """
    lines = [line.removesuffix("\r") for line in body.split("\n")][:_PROBE_LINES]
    wanted = [line.removesuffix("\r") for line in old.strip("\r\n").split("\n")]
    at = max(range(len(wanted)), key=lambda index: len(wanted[index].strip()))
    stripped = [line.strip() for line in lines]
    close = set(get_close_matches(wanted[at].strip(), set(stripped) - {""}, n=3, cutoff=0.5))
    starts = [max(0, index - at) for index, line in enumerate(stripped) if line in close][:50]
    windows = [(start, lines[start : start + len(wanted)]) for start in starts]
    if not windows:
        return None
    matcher = SequenceMatcher(None, autojunk=False)
    matcher.set_seq2("\n".join(wanted)[:_COMPARED])

    def likeness(window: tuple[int, list[str]]) -> float:
        matcher.set_seq1("\n".join(window[1])[:_COMPARED])
        return matcher.ratio()

    start, window = max(windows, key=likeness)
    return start + 1, window

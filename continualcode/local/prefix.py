"""Keys and values kept from one request for the next; knows nothing of what reads them.

What was read is reused by every later request with the same weights whose tokens begin alike: the turns of a
conversation, the samples of a prompt, a student's scoring and its teacher's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from continualcode.local.lora import versions_in_use
from continualcode.local.network import Cache
from continualcode.types import Ints


@dataclass
class PrefixStats:
    """Counts since the engine was made."""

    lookups: int = 0
    hits: int = 0
    tokens_reused: int = 0
    tokens_read: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    version: int
    tokens: Ints
    cache: Cache


class PrefixCache:
    """Least recently used entries, at most `limit` bytes of them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: list[_Entry] = []
        self.stats = PrefixStats()

    @property
    def nbytes(self) -> int:
        return sum(entry.cache.nbytes for entry in self._entries)

    def find(self, version: int, tokens: Sequence[int], most: int, room: int) -> Cache | None:
        """A copy of the longest reusable prefix, no longer than `most` tokens, with room for `room`."""
        self.stats.lookups += 1
        wanted = np.asarray(tokens[:most], np.int64)
        matches = [(_common(entry.tokens, wanted), entry) for entry in self._entries if entry.version == version]
        for length, entry in sorted(matches, key=lambda match: -match[0]):
            if length and (cache := entry.cache.fork(length, room)) is not None:
                self._entries.remove(entry)
                self._entries.append(entry)
                self.stats.hits += 1
                self.stats.tokens_reused += length
                return cache
        return None

    def put(self, version: int, tokens: Sequence[int], cache: Cache) -> None:
        """Takes ownership of `cache`, which holds the first `cache.length` of `tokens`.

        What was read with weights that nobody holds any more is dropped.
        """
        read = np.asarray(tokens[: cache.length], np.int64)
        in_use = versions_in_use()
        self._entries = [entry for entry in self._entries if entry.version in in_use]
        if cache.nbytes > self._limit:
            return
        self._entries = [e for e in self._entries if e.version != version or _common(e.tokens, read) < len(e.tokens)]
        self._entries.append(_Entry(version, read, cache))
        while self.nbytes > self._limit:
            self._entries.pop(0)

    def clear(self) -> None:
        self._entries.clear()


def _common(left: Ints, right: Ints) -> int:
    length = min(len(left), len(right))
    differ = np.flatnonzero(left[:length] != right[:length])
    return int(differ[0]) if len(differ) else length

"""One ordinary request of each kind with the reply it was taught: what a correction should leave as it is."""

from __future__ import annotations

from random import Random

from continualcode.local.coldstart.data import REQUESTS
from continualcode.local.coldstart.words import Words
from continualcode.types import Message


def ordinary_requests() -> tuple[tuple[str, Message], ...]:
    """A user's text and the assistant's reply, for each kind of request the cold start has; the same every time."""
    words = Words(Random(1))
    drawn = (maker(words) for maker in REQUESTS)
    return tuple((request.text, request.step) for request in drawn)

"""Lessons on their way to the learner. Knows nothing of how anything is learned."""

from __future__ import annotations

from dataclasses import dataclass, replace

from continualcode.types import Lesson, ToolCall, Turn


class Lessons:
    """Those that wait to be learned, and those that a later approval may still complete; none where none are `wanted`."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self.pending: tuple[Lesson, ...] = ()
        self._open: list[_Open] = []

    def keep(self, lesson: Lesson) -> None:
        """Before anything else can happen, so that a correction outlives a run that is closed or cancelled."""
        if self._wanted:
            self.pending += (lesson,)

    def keep_open(self, lesson: Lesson, gate: int) -> None:
        """A lesson without what would have been right, from the gate at this place."""
        self.keep(lesson)
        self._open.append(_Open(lesson, gate))

    def resolve(self, gate: int, *, resolution: Turn | None = None, demonstration: ToolCall | None = None) -> None:
        """Completes the open lessons whose gate has seen, and let pass, what was right. One not learned yet is replaced."""
        done = [each for each in self._open if each.gate <= gate]
        self._open = [each for each in self._open if each.gate > gate]
        for lesson in (each.lesson for each in done):
            self.pending = tuple(waiting for waiting in self.pending if waiting is not lesson)
            self.keep(replace(lesson, resolution=resolution, demonstration=demonstration))

    def close(self) -> None:
        """No approval will complete what is open now."""
        self._open.clear()


@dataclass(frozen=True, slots=True)
class _Open:
    lesson: Lesson
    gate: int

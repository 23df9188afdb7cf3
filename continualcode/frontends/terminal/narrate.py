"""Tells a person what an agent's events say. Knows nothing of how anything is asked."""

from __future__ import annotations

from itertools import takewhile
from typing import assert_never

from rich.console import Console, RenderableType
from rich.text import Text

from continualcode.agent import Agent
from continualcode.events import (
    Asked,
    Event,
    Learned,
    LearnFailed,
    Learning,
    Malformed,
    Proposed,
    Restored,
    Reviewed,
    Stopped,
    Thinking,
    ToolReturned,
    Tried,
)
from continualcode.frontends.safe import visible
from continualcode.frontends.terminal.progress import Progress
from continualcode.frontends.terminal.render import render_malformed, render_reply, render_result
from continualcode.frontends.terminal.report import counted, learned_lines, tried_lines
from continualcode.protocols import Examiner
from continualcode.tools import READ_ONLY
from continualcode.types import Deny, ToolCall, TrainReport


class Narrator:
    """Prints events and keeps the progress line going between them."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console, self._progress = console, progress
        self._last_told: TrainReport | None = None
        self.learning = False
        """A training step was under way at the last event."""

    def tell(self, agent: Agent, event: Event) -> None:
        self._progress.stop()
        self.learning = isinstance(event, Learning)
        match event:
            case Asked():
                self.tell_reports(agent)
            case Thinking():
                self._progress.show("thinking")
            case Proposed(turn):
                self._print(*render_reply(turn.reply))
                self._wait_for_trials(agent, turn.reply.call, "checking it")
            case Tried():
                self._print(*tried_lines(event))
            case Malformed(reply, problem):
                self._print(*render_malformed(reply, problem))
            case Reviewed():
                self._tell_verdict(event)
            case ToolReturned(call, result):
                self._print(render_result(result))
                self._wait_for_trials(agent, call, "checking what it changed")
            case Learning(lessons):
                self._progress.show(f"learning from {counted(len(lessons), 'correction')}")
            case Learned():
                self.tell_reports(agent)
            case LearnFailed():
                self._tell_failure(agent, event)
            case Stopped():
                self._tell_stop(event)
            case Restored():
                pass  # told by the command that asked for it
            case _:
                assert_never(event)

    def tell_reports(self, agent: Agent) -> None:
        """The steps not yet told, among them those that a stopped run left going."""
        untold = list(takewhile(lambda report: report is not self._last_told, reversed(agent.reports)))
        for report in reversed(untold):
            self._last_told = report
            for line in learned_lines(report):
                self._print(line)

    def _wait_for_trials(self, agent: Agent, call: ToolCall | None, doing: str) -> None:
        examined = any(isinstance(part, Examiner) for part in (*agent.gates, *agent.critics))
        if call is not None and call.name not in READ_ONLY and examined:
            self._progress.show(doing)

    def _tell_verdict(self, event: Reviewed) -> None:
        if isinstance(event.verdict, Deny):
            untaught = "" if event.verdict.teach else " (nothing is learned from it)"
            self._print(Text(f"denied: {visible(event.verdict.reason)}{untaught}", style="yellow"))
        else:
            self._progress.show(f"running {visible(event.call.name)}")

    def _tell_failure(self, agent: Agent, event: LearnFailed) -> None:
        kept = all(lesson in agent.pending for lesson in event.lessons)
        what = "the correction is kept and goes along with the next one" if kept else "it cannot be learned here"
        self._print(Text(f"not learned: {visible(event.error)}; {what}", style="yellow"))

    def _tell_stop(self, event: Stopped) -> None:
        match event.reason:
            case "answered":
                if not event.detail.strip():
                    self._print(Text("(the model ended without a word)", style="dim"))
            case "malformed":
                self._print(Text("stopped: too many replies in a row were no valid call; ask again", style="yellow"))
            case "turn_limit":
                self._print(Text(f"stopped: {visible(event.detail)}; ask to go on", style="yellow"))
            case _:
                assert_never(event.reason)

    def _print(self, *renderables: RenderableType) -> None:
        for renderable in renderables:
            self._console.print(renderable)

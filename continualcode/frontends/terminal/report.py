"""What a training step did, in words and tables. Pure: reports in, rich renderables out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from continualcode.frontends.terminal.safe import visible
from continualcode.protocols import Renderer
from continualcode.types import TrainReport


def probability(logprob: float) -> str:
    """A log-probability in nats as a percentage, or as a power of ten where that would be under 0.01 %."""
    if math.isnan(logprob):
        return "?"
    if math.isinf(logprob):
        return "0 %"
    percent = 100 * math.exp(min(logprob, 0.0))
    if percent >= 10:
        return f"{percent:.0f} %"
    return f"{percent:.2g} %" if percent >= 0.01 else f"10^{logprob / math.log(10):.1f}"


def learned_line(report: TrainReport) -> Text:
    """One line: how much less likely the rejected call is now, over how many tokens, in how many seconds."""
    took = f"learned in {report.seconds:.1f} s"
    over = f"over {counted(report.tokens, 'token')}, step {report.step}"
    if not report.views:
        return Text(f"{took} {over}: loss {report.loss:.3g}", style="cyan")
    before, after = report.logprob_before, report.logprob_after
    change = f"{probability(before)} -> {probability(after)}"
    per_token = f"(per token {_per_token(report, before)} -> {_per_token(report, after)})"
    if after < before:
        return Text(f"{took}: P(rejected call) {change} {per_token} {over}", style="cyan")
    return Text(f"{took}, but P(rejected call) did not fall: {change} {per_token} {over}", style="yellow")


def metrics_table(reports: Sequence[TrainReport]) -> Table:
    """One row per optimiser step of the session."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("step", "tokens", "loss", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("P(rejected call)", overflow="fold")
    for report in reports:
        change = f"{probability(report.logprob_before)} -> {probability(report.logprob_after)}" if report.views else "-"
        table.add_row(str(report.step), str(report.tokens), f"{report.loss:.3g}", f"{report.seconds:.1f}", change)
    return table


def heat_map(report: TrainReport, renderer: Renderer) -> Text:
    """The first rejected reply of a step, token by token: red where the teacher would have said it less, green more."""
    view, shown = report.views[0], Text()
    for token, advantage in zip(view.tokens, view.advantages_T, strict=True):
        shown.append(visible(renderer.decode(token)), style=_heat(float(advantage)))
    return shown


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _per_token(report: TrainReport, logprob: float) -> str:
    """The geometric mean of the tokens' probabilities, from the mean log-probability of the `lessons` completions."""
    return f"{math.exp(logprob * len(report.views) / report.tokens):.2g}"


def _heat(advantage: float) -> str:
    if advantage < -1:
        return "bold red underline"
    if advantage < -0.1:
        return "red"
    return "green" if advantage > 0.1 else "dim"

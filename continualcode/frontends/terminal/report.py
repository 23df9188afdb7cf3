"""What a training step did, in words and tables. Pure: reports in, rich renderables out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from continualcode.events import Tried
from continualcode.frontends.safe import shorten, visible
from continualcode.protocols import Renderer
from continualcode.types import TokenView, TrainReport


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


def learned_lines(report: TrainReport) -> list[Text]:
    """What was learned, and what of the reason was left out for want of room."""
    if not report.cut:
        return [learned_line(report)]
    room = f"no room for {counted(report.cut, 'character')} of the reason (max_reprompt_len, the model's context)"
    return [Text(room, style="yellow"), learned_line(report)]


def learned_line(report: TrainReport) -> Text:
    """One line: how much less likely the rejected call is now and how much more the approved one, over how many tokens,
    in how many seconds; or why nothing was trained."""
    match report.outcome:
        case "too weak":
            told = "with this reason the model would do much the same, so it works as context only"
            return Text(f"not trained: {told} (gap {report.gap:.2g} nats)", style="yellow")
        case "understood":
            return Text(f"not trained: the model has unlearned it by now (gap {report.gap:.2g} nats)", style="cyan")
        case _:
            return _trained_line(report)


def _trained_line(report: TrainReport) -> Text:
    took = f"learned in {report.seconds:.1f} s"
    over = f"over {counted(report.tokens, 'token')}, step {report.step}"
    if report.inner_steps > 1:
        over += f" ({report.inner_steps} of them{_ENDED.get(report.outcome, '')})"
    if not report.rejected:
        return Text(f"{took} {over}: loss {report.loss:.3g}", style="cyan")
    now, later = (_per_token(report.rejected, after=after) for after in (False, True))
    change = f"{_change(report.rejected)} (per token {now:.2g} -> {later:.2g})"
    right = f", P(approved call) {_change(report.approved)}" if report.approved else ""
    if report.approved or report.logprob_after < report.logprob_before:
        return Text(f"{took}: P(rejected call) {change}{right} {over}", style="cyan")
    return Text(f"{took}, but P(rejected call) did not fall: {change} {over}", style="yellow")


def tried_lines(tried: Tried) -> list[Text]:
    """What a trial cost, and what a call that has run already broke; nothing where the result was known."""
    lines = []
    if tried.runs:
        where = "in a copy" if tried.when == "before" else "after the call"
        told = [f"{tried.seconds:.1f} s", *filter(None, [tried.summary]), *(["cannot tell"] if tried.blind else [])]
        lines.append(Text(f"`{visible(shorten(tried.command, 80))}` {where}: {', '.join(told)}", style="dim"))
    if tried.when == "after" and tried.reason is not None:
        lines.append(Text(visible(tried.reason), style="yellow"))
    return lines


def metrics_table(reports: Sequence[TrainReport]) -> Table:
    """One row per optimiser step of the session."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("step", "tokens", "loss", "seconds"):
        table.add_column(name, justify="right")
    table.add_column("P(rejected call)", overflow="fold")
    for report in reports:
        change = _change(report.rejected) if report.rejected else "-"
        table.add_row(str(report.step), str(report.tokens), f"{report.loss:.3g}", f"{report.seconds:.1f}", change)
    return table


_ENDED = {"taken": ", until it had taken", "drifted": ", until what was approved began to move"}


def heat_map(view: TokenView, renderer: Renderer) -> Text:
    """A reply token by token, coloured by its advantage, log q - log p: see `LEGEND`."""
    shown = Text()
    for token, advantage in zip(view.tokens, view.advantages_T, strict=True):
        shown.append(visible(renderer.decode(token)), style=_heat(float(advantage)))
    return shown


LEGEND = Text.assemble(
    ("under -1 nat", "bold red underline"),
    (" the model, shown your reason, would hardly have said this; ", "dim"),
    ("under -0.1", "red"),
    (" would have said it less; ", "dim"),
    ("over 0.1", "green"),
    (" more; dim: much the same", "dim"),
)


def why(report: TrainReport, renderer: Renderer) -> list[Text]:
    """What a step saw: each rejected and approved reply as a heat-map, and the token that your reason spoke most against."""
    lines: list[Text] = []
    for view in report.views:
        lines += [Text(f"{view.kind} reply:", style="bold"), heat_map(view, renderer)]
        worst = int(view.advantages_T.argmin())
        token = visible(renderer.decode(view.tokens[worst]))
        before, told, after = (
            probability(float(array[worst])) for array in (view.student_T, view.teacher_T, view.after_T)
        )
        if view.kind == "rejected":
            lines.append(Text(f"most against '{token}': {before}, with your reason {told}, since the step {after}"))
    return [*lines, LEGEND]


def counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _change(views: Sequence[TokenView]) -> str:
    """Probability of a whole reply before and after the step: the geometric mean where there are several."""
    before = sum(float(view.student_T.sum()) for view in views) / len(views)
    after = sum(float(view.after_T.sum()) for view in views) / len(views)
    return f"{probability(before)} -> {probability(after)}"


def _per_token(views: Sequence[TokenView], *, after: bool) -> float:
    """The geometric mean of the probabilities of all tokens."""
    total = sum(float((view.after_T if after else view.student_T).sum()) for view in views)
    return math.exp(total / sum(len(view.tokens) for view in views))


def _heat(advantage: float) -> str:
    if advantage < -1:
        return "bold red underline"
    if advantage < -0.1:
        return "red"
    return "green" if advantage > 0.1 else "dim"

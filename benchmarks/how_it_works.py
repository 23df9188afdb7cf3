"""One correction followed through the code with the embedded model's own tokens and numbers: docs/how-it-works.md and .png.

    python benchmarks/how_it_works.py

The text stands here with places for what is measured; nothing in it is typed in by hand.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import Template

import matplotlib
import numpy as np
from one_correction import EXAMPLES, _demo, _write

from continualcode import Config, Lesson, SDPOConfig, ToolCall
from continualcode.assembly import Assembly, build
from continualcode.plugins import load_plugins
from continualcode.types import Example, TokenView, TrainReport

matplotlib.use("Agg")
import matplotlib.pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
TEXT = Path(__file__).with_name("how_it_works.md.in")
RIGHT = ToolCall(
    "edit_lines",
    {"path": "calc.py", "start_line": 2, "end_line": 2, "content": "    return a + b"},
)


async def main() -> int:
    demo = _demo()
    request = demo.REQUEST + (EXAMPLES / "demo_repo" / "calc.py").read_text()
    with tempfile.TemporaryDirectory() as folder:
        config = Config(workspace=folder, backend="local", model_name="smollm2-135m", seed=1, state_dir=folder)
        async with await build(config, load_plugins(entry_points=False)) as assembly:
            found = await _follow(assembly, config, request, demo)
    (DOCS / "how-it-works.md").write_text(Template(TEXT.read_text()).substitute(found))
    return 0


async def _follow(assembly: Assembly, config: Config, request: str, demo: object) -> dict[str, object]:
    backend, renderer = assembly.backend, assembly.agent.policy.renderer
    learner = assembly.agent.learner
    assert learner is not None
    steps: list[Sequence[Example]] = []
    step = backend.train_step

    async def watched(examples: Sequence[Example], **options: object) -> object:
        steps.append(examples)
        return await step(examples, **options)

    backend.train_step = watched
    chances = [await demo.chances(assembly, request)]
    turn = await _write(assembly, request)
    lesson = Lesson(turn, demo.REASON)
    denied = await learner.learn([lesson])
    assert denied is not None
    chances.append(await demo.chances(assembly, request))
    resolved = await learner.learn([replace(lesson, demonstration=RIGHT)])
    assert resolved is not None
    chances.append(await demo.chances(assembly, request))
    elsewhere = await demo.chances(assembly, demo.ELSEWHERE)
    _draw(denied, resolved, renderer)
    rejected = denied.rejected[0]
    decisive = int(np.argmin(rejected.advantages_T))
    return {
        "request": _quoted(request),
        "reason": demo.REASON,
        "call": turn.reply.call.to_json(),
        "prompt": len(turn.completion.prompt),
        "tokens": len(turn.completion.tokens),
        "rows": _rows(rejected, renderer, decisive),
        "decisive": _shown(renderer.decode(rejected.tokens[decisive])),
        "candidates": _candidates(steps[0][0], decisive, renderer, rejected),
        "gap": f"{denied.gap:.2f}",
        "loss": f"{denied.loss:.4f}",
        "taken": f"{SDPOConfig().taken_at:.0%}",
        "most": config.max_inner_steps,
        "denied": _told(denied),
        "resolved": _told(resolved),
        "approved": len(resolved.approved[0].tokens),
        "right": RIGHT.to_json(),
        "chances": _chances(chances),
        "elsewhere": ", ".join(f"P({tool}) {chance:.2f}" for tool, chance in elsewhere.items()),
    }


def _rows(view: TokenView, renderer: object, decisive: int) -> str:
    first = max(0, decisive - 4)
    lines = []
    for t in range(first, min(len(view.tokens), decisive + 5)):
        before, teacher, after = (float(np.exp(array[t])) for array in (view.student_T, view.teacher_T, view.after_T))
        token = _shown(renderer.decode(view.tokens[t]))
        lines.append(f"| {t} | `{token}` | {before:.3f} | {teacher:.3f} | {view.advantages_T[t]:+.2f} | {after:.3f} |")
    return "\n".join(lines)


def _candidates(example: Example, decisive: int, renderer: object, view: TokenView) -> str:
    """The heaviest candidates at the decisive token, with the weights the backend was given."""
    order = np.argsort(-np.abs(example.weights_TK[decisive]))[:6]
    return "\n".join(
        f"| `{_shown(renderer.decode(int(example.ids_TK[decisive, k])))}` | {example.weights_TK[decisive, k]:+.5f} |"
        for k in order
    )


def _told(report: TrainReport) -> str:
    views = [f"P({view.kind} reply) {_power(view.student_T)} -> {_power(view.after_T)}" for view in report.views]
    return (
        f"{report.inner_steps} optimiser step{'' if report.inner_steps == 1 else 's'} ({report.outcome}), "
        f"{report.left:.0%} of the gap left, {'; '.join(views)}"
    )


def _power(logprobs_T: np.ndarray) -> str:
    return f"10^{float(logprobs_T.sum()) / np.log(10):.1f}"


def _chances(stages: Sequence[dict[str, float]]) -> str:
    names = ("before", "after the denial", "after the edit")
    tools = list(stages[0])
    head = f"| | {' | '.join(f'P({tool})' for tool in tools)} |\n|---|{'---|' * len(tools)}"
    rows = [
        f"| {name} | {' | '.join(f'{stage[tool]:.2f}' for tool in tools)} |"
        for name, stage in zip(names, stages, strict=True)
    ]
    return "\n".join([head, *rows])


def _draw(denied: TrainReport, resolved: TrainReport, renderer: object) -> None:
    views = [("rejected reply", denied.rejected[0]), ("corrected reply", resolved.approved[0])]
    figure, axes = plt.subplots(2, 1, figsize=(11, 6))
    for axis, (name, view) in zip(axes, views, strict=True):
        shown = slice(0, 40)
        places = np.arange(len(view.tokens[shown]))
        for values, label in (
            (view.student_T, "student before"),
            (view.teacher_T, "teacher"),
            (view.after_T, "student after"),
        ):
            axis.plot(places, np.exp(values[shown]), marker="o", markersize=3, label=label)
        axis.set_xticks(
            places, [_shown(renderer.decode(token)) for token in view.tokens[shown]], rotation=90, fontsize=7
        )
        axis.set_ylabel("probability of the token")
        axis.set_title(name)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(DOCS / "how-it-works.png", dpi=110, metadata={"Software": None})


def _shown(text: str) -> str:
    return text.replace("\n", "\\n").replace("|", "\\|").replace("`", "'") or "(end)"


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}".rstrip() for line in text.strip().splitlines())


if __name__ == "__main__":
    logging.getLogger("transformers").setLevel(logging.ERROR)
    sys.exit(asyncio.run(main()))

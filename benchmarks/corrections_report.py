"""The table and the plot of benchmarks/corrections.py, from its JSON. Runs no model."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ARMS = {
    "base": "before any correction",
    "context": "the denial in the conversation only",
    "note": "the reason in the conversation only",
    "teacher": "the teacher: the reason in the request",
    "original 0.0001": "the original's recipe, lr 1e-4",
    "original 0.0003": "the original's recipe, lr 3e-4",
    "sft 1": "SFT on the right call, 1 step",
    "sft 2": "SFT, 2 steps",
    "sft 4": "SFT, 4 steps",
    "sft null 2": "SFT in the null space, 2 steps",
    "sft null 4": "SFT in the null space, 4 steps",
    "sft null 8": "SFT in the null space, 8 steps",
    "ours 1": "**ours, 1 correction**",
    "ours 2": "ours, 2 corrections",
    "ours 4": "ours, 4 corrections",
}
TARGETS = {"greedy": 0.8, "kept": 0.95, "seconds": 8.0}
HELD = 0.7


def write_report(results: Mapping[str, Any], folder: Path) -> None:
    """corrections.md and corrections.png in the folder."""
    habits = results["habits"]
    parts = [_head(results), _means(habits), _targets(results), _each(habits), _changed(habits)]
    if "sequence" in results:
        parts.append(_sequence(results["sequence"]))
    if "gaps" in results:
        parts.append(_gaps(results["gaps"]))
    if "variants" in results:
        parts.append(_variants(results["variants"], habits))
    (folder / "corrections.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    _plot(habits, folder / "corrections.png")


def _head(results: Mapping[str, Any]) -> str:
    return (
        f"# What one correction teaches\n\n`{results['command']}`\n\n"
        f"{len(results['habits'])} habits of the embedded model (smollm2-135m with its cold start), each corrected from the same weights; 10 held-out\n"
        "requests a habit and 24 unrelated ones, asked in a new conversation. *Comply*: share of greedy calls that obey the correction.\n"
        "*P*: exact probability of the obeying choice at the point where the choice falls, the tokens before it given; *of both*: out of\n"
        "obeying and usual choices. *Kept*: share of unrelated requests answered with the same tool and main argument. *KL*: nats per\n"
        "token from the first model's answers to those. Seeded; single run. An edited retry is not\n"
        "learned from as a correction of its own, as the agent would. Nothing of this stands in the cold-start data.\n\n"
        "![share of held-out proposals that comply, against unrelated behaviour kept](corrections.png)"
    )


def _means(habits: Mapping[str, Any]) -> str:
    lines = [
        "| mean over the habits | comply | P | of both | kept | KL | training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm, title in ARMS.items():
        rows = _rows(habits, arm)
        if rows:
            lines.append(f"| {title} | " + " | ".join(_figures(rows)) + " |")
    return "\n".join(lines)


def _figures(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    mean = {
        key: _mean([row["measured"][key] for row in rows])
        for key in ("greedy", "probability", "against", "kept", "drift")
    }
    kept = "" if mean["kept"] is None else f"{mean['kept']:.0%}"
    drift = "" if mean["drift"] is None else f"{mean['drift']:.4f}"
    seconds = _mean([row["seconds"] for row in rows])
    return [
        f"{mean['greedy']:.0%}", f"{mean['probability']:.2f}", f"{mean['against']:.2f}", kept, drift, f"{seconds:.1f}" if seconds else "0",
    ]  # fmt: skip


def _targets(results: Mapping[str, Any]) -> str:
    rows = _rows(results["habits"], "ours 1")
    if not rows:
        return ""
    found = {
        "greedy": _mean([row["measured"]["greedy"] for row in rows]),
        "kept": _mean([row["measured"]["kept"] for row in rows]),
        "seconds": _mean([row["seconds"] for row in rows]),
    }
    lines = [
        f"- {_met(found['greedy'] >= TARGETS['greedy'])}: {found['greedy']:.0%} of held-out proposals comply (target {TARGETS['greedy']:.0%}); "
        f"{sum(row['measured']['greedy'] >= TARGETS['greedy'] for row in rows)} of {len(rows)} habits reach it",
        f"- {_met(found['kept'] >= TARGETS['kept'])}: {found['kept']:.0%} of unrelated behaviours kept (target {TARGETS['kept']:.0%})",
        f"- {_met(found['seconds'] <= TARGETS['seconds'])}: {found['seconds']:.1f} s of training (target {TARGETS['seconds']:.0f}), "
        f"{max(row['seconds'] for row in rows):.1f} at most",
    ]
    if "sequence" in results:
        held = _held(results["sequence"])
        lines.append(
            f"- {_met(held >= HELD)}: after four habits {held:.0%} of the first still holds (target {HELD:.0%})"
        )
    load = (
        f" (load of the last quarter of an hour: {results['load']:.1f}, a busy core being 1)"
        if "load" in results
        else ""
    )
    return f"One correction each, two cores{load}:\n\n" + "\n".join(lines)


def _met(holds: bool) -> str:
    return "met" if holds else "**missed**"


def _each(habits: Mapping[str, Any]) -> str:
    arms = [arm for arm in ARMS if _rows(habits, arm)]
    lines = [
        "Habit by habit: share that complies, in percent, and behind it P; of the one correction what was kept and how it went.\n",
        "| habit | " + " | ".join(arms) + " | kept | how it went |",
        "|---|" + "---|" * len(arms) + "---|---|",
    ]
    for name, habit in habits.items():
        cells = [_cell(habit["arms"].get(arm)) for arm in arms]
        once = habit["arms"].get("ours 1")
        kept, went = (f"{once['measured']['kept']:.0%}", once["note"]) if once else ("", "")
        lines.append(f"| {name} ({habit['kind']}): *{habit['reason']}* | {' | '.join(cells)} | {kept} | {went} |")
    return "\n".join(lines)


def _changed(habits: Mapping[str, Any]) -> str:
    changed = [text.partition(": ")[0] for row in _rows(habits, "ours 1") for text in row["measured"]["changed"]]
    often = ", ".join(f"*{request}* {times} times" for request, times in Counter(changed).most_common(4))
    return f"After one correction {len(changed)} unrelated answers changed in all; most often {often}." if often else ""


def _cell(row: Mapping[str, Any] | None) -> str:
    return (
        f"{100 * row['measured']['greedy']:.0f} {row['measured']['probability']:.2f}".replace("0.", ".") if row else ""
    )


def _sequence(found: Mapping[str, Any]) -> str:
    lines = [
        "Four habits, one correction each, one after another on the same weights:\n",
        "| habit | comply at once | at the end | P at once | at the end |",
        "|---|---|---|---|---|",
    ]
    for name in found["habits"]:
        at_once, end = found["at once"][name], found["at the end"][name]
        lines.append(
            f"| {name} | {at_once['greedy']:.0%} | {end['greedy']:.0%} | {at_once['probability']:.2f} | {end['probability']:.2f} |"
        )
    return "\n".join(lines)


def _gaps(found: Mapping[str, Mapping[str, float]]) -> str:
    lines = [
        "Gap between the model and itself told the reason, in nats over the rejected call; beside it with *thanks* as the reason:\n"
    ]
    lines += [f"- {name}: {' and '.join(f'{gap:.2f}' for gap in gaps.values())}" for name, gaps in found.items()]
    return "\n".join(lines)


def _variants(found: Mapping[str, Mapping[str, Any]], measured: Mapping[str, Any]) -> str:
    names = list(next(iter(found.values())))
    lines = [
        f"Other settings (all of the LoRA: with its own learning rate and steps), one correction each of {', '.join(names)}; means:\n",
        "| | comply | P | of both | kept | KL | training, s |",
        "|---|---|---|---|---|---|---|",
    ]
    as_it_is = {name: measured[name]["arms"]["ours 1"] for name in names}
    for name, rows in {"as it is": as_it_is, **found}.items():
        lines.append(f"| {name} | {' | '.join(_figures(list(rows.values())))} |")
    return "\n".join(lines)


def _held(found: Mapping[str, Any]) -> float:
    """How much of the first habit still holds at the end; 0 when it was never learned."""
    first = found["habits"][0]
    learned = found["at once"][first]["greedy"]
    return float(found["at the end"][first]["greedy"] / learned) if learned else 0.0


def _rows(habits: Mapping[str, Any], arm: str) -> list[Mapping[str, Any]]:
    return [habit["arms"][arm] for habit in habits.values() if arm in habit["arms"]]


def _mean(values: Sequence[Any]) -> Any:
    return None if any(value is None for value in values) else statistics.fmean(values)


def _plot(habits: Mapping[str, Any], path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7.5, 4.5), dpi=120)
    colours = {
        "base": "black",
        "context": "tab:gray",
        "note": "tab:gray",
        "original": "tab:red",
        "sft": "tab:orange",
        "ours": "tab:blue",
    }
    for arm in ARMS:
        rows = [row for row in _rows(habits, arm) if row["measured"]["kept"] is not None]
        if not rows:
            continue
        colour = colours[arm.split()[0]]
        comply = [row["measured"]["greedy"] for row in rows]
        kept = [row["measured"]["kept"] for row in rows]
        axes.scatter(comply, kept, s=12, color=colour, alpha=0.2, linewidths=0)
        axes.scatter(statistics.fmean(comply), statistics.fmean(kept), s=60, color=colour)
        axes.annotate(
            arm,
            (statistics.fmean(comply), statistics.fmean(kept)),
            xytext=(5, 5),
            textcoords="offset points",
            fontsize=8,
        )
    axes.axvline(TARGETS["greedy"], color="green", linewidth=0.8, linestyle=":")
    axes.axhline(TARGETS["kept"], color="green", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="held-out proposals that comply",
        ylabel="unrelated behaviours kept",
        xlim=(-0.03, 1.06),
        ylim=(-0.03, 1.06),
    )
    axes.set_title("Large: mean over the habits; small: one habit. Dotted: targets", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, metadata={"Software": None})
    plt.close(figure)

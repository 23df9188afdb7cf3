"""What a run says of itself: log lines, a tracker, a progress bar and a plot. Knows nothing of training."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress, TimeElapsedColumn

from continualcode.errors import ConfigError, MissingExtraError
from livecode.settings import Settings

DIGITS = 6
"""Significant ones in the log."""


class Record:
    """Where events go: to log.jsonl, cut at `log_bytes` when a run is resumed; to wandb and trackio where a project is
    named; above a progress bar. Use it as a context. Raises ConfigError for a log too short, a tracker not there."""

    def __init__(self, settings: Settings, log_bytes: int = 0) -> None:
        self.file = settings.log_path / "log.jsonl"
        projects = {"wandb": settings.wandb_project, "trackio": settings.trackio_project}
        self._trackers = [_tracker(name, project, settings) for name, project in projects.items() if project]
        self.file.touch()
        if (found := self.file.stat().st_size) < log_bytes:
            raise ConfigError(f"{self.file} has {found} bytes and had {log_bytes} when it was saved; it was changed")
        os.truncate(self.file, log_bytes)
        self._log = self.file.open("a", encoding="utf-8")
        self._bar = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True))
        self._task = self._bar.add_task("training", total=1.0)

    def __enter__(self) -> Record:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()
        self._log.close()
        for tracker in self._trackers:
            tracker.finish()

    def say(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def event(self, kind: str, step: int, values: Mapping[str, float], seconds: float) -> None:
        """`seconds` are the only part of a line that is not the same in every run of the same settings."""
        told = {key: value if isinstance(value, int) else float(f"{value:.{DIGITS}g}") for key, value in values.items()}
        told["seconds"] = round(seconds, 2)
        self._log.write(json.dumps({"event": kind, "step": step, **told}) + "\n")
        self._log.flush()
        for tracker in self._trackers:
            tracker.log({f"{kind}/{key}": value for key, value in told.items()}, step=step)
        self.say(f"step {step} {kind}: " + ", ".join(f"{key} {value:.5g}" for key, value in told.items()))

    def progress(self, share: float) -> None:
        self._bar.update(self._task, completed=share)

    def bytes_on_disk(self) -> int:
        """How long the log is, all of it on disk."""
        os.fsync(self._log.fileno())
        return self.file.stat().st_size


def read_log(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def plot(folder: Path) -> Path:
    """plot.png from log.jsonl: held-out pass rates and the reward in training. MissingExtraError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("the plot", "bench") from error
    events = read_log(folder / "log.jsonl")
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    held_out, training = figure.subplots(1, 2)
    rates = sorted({key for event in events for key in event if key.startswith("pass@")})
    for key in rates:
        _draw(held_out, [event for event in events if event["event"] == "eval"], key)
    _draw(training, [event for event in events if event["event"] == "batch"], "reward")
    for axes, title in ((held_out, "held-out problems"), (training, "reward in training")):
        axes.set(title=title, xlabel="optimiser steps", ylim=(0, None))
    if rates:
        held_out.legend()
    figure.savefig(folder / "plot.png", dpi=150)
    return folder / "plot.png"


def _draw(axes: Any, events: Sequence[Mapping[str, Any]], key: str) -> None:
    seen = [(event["step"], event[key]) for event in events if key in event]
    axes.plot([step for step, _ in seen], [value for _, value in seen], marker="o", label=key)


def _tracker(name: str, project: str, settings: Settings) -> Any:
    """wandb's interface, which is trackio's as well."""
    try:
        tracker = importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(f"{name}_project is set, and {name} is not installed: pip install {name}") from error
    tracker.init(
        project=project, name=settings.wandb_run_name or settings.log_path.name, config=settings.model_dump(mode="json")
    )
    return tracker
